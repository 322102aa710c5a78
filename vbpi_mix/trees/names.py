"""Taxon names as other programs take and rewrite them.

MrBayes 3.2.7 (found by trying) takes names of at most 99 characters, which are letters, digits and
``_ . + -``, do not begin with ``+`` or ``-``, are neither ``begin`` nor ``end``, and stay distinct when case
is ignored; quoted names it takes in no form. `mrbayes_names` makes any names so. IQ-TREE 2.0.7 keeps letters,
digits and ``_ - . | /``, puts ``_`` for every other byte, and cuts the names of FASTA files at the first
blank. `match_taxa` undoes both for taxa that are known.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence

from vbpi_mix.errors import TreeFormatError

_LONGEST = 99
_MAX_LISTED = 10
_CODE = r"u((?:10|[0-9A-F])?[0-9A-F]{1,4})"


def mrbayes_names(taxa: Sequence[str]) -> tuple[str, ...]:
    """Distinct names that MrBayes takes, in the order of ``taxa``; they do not depend on this order.

    A blank becomes ``_`` where no two names get equal by that. Any other character that MrBayes does not take
    is written ``_uHEX_`` by its Unicode number, and so is an underscore that would begin such a code. Names
    that are too long, or differ in case only, are cut and end in 16 digits of their SHA-256.
    """
    readable = [coded_name(name.replace(" ", "_")) for name in taxa]
    shared = Counter(name.lower() for name in readable)
    written = [
        short if shared[short.lower()] == 1 else coded_name(name)
        for name, short in zip(taxa, readable, strict=True)
    ]
    shared = Counter(name.lower() for name in written)
    return tuple(
        short if shared[short.lower()] == 1 and len(short) <= _LONGEST else f"{short[:82]}_{_digest(name)}"
        for name, short in zip(taxa, written, strict=True)
    )


def coded_name(name: str) -> str:
    """Name in the characters that MrBayes takes, of any length; `plain_name` gives the name back."""
    guarded = re.sub(rf"_(?={_CODE}[^A-Za-z0-9.+-])", "_u5F_", name)
    coded = re.sub(r"[^A-Za-z0-9_.+-]|^[+-]", lambda other: _code(other.group()), guarded)
    return _code(coded[0]) + coded[1:] if coded.lower() in ("begin", "end") else coded


def plain_name(name: str) -> str:
    """Name with every ``_uHEX_`` turned into the character of that Unicode number, if there is one."""
    return re.sub(f"_{_CODE}_", _character, name)


def match_taxa(found: Sequence[str], wanted: Sequence[str], source: str) -> dict[str, int]:
    """Position in ``wanted`` of every name found.

    A name matches an equal one, else one that is equal but for underscores and spaces. Where that leaves
    names over, all names found are compared with `mrbayes_names` of those wanted, then with what IQ-TREE
    makes of them.

    Raises:
        TreeFormatError: listing the missing and the unexpected names.
    """
    near = _near_numbers(found, wanted)
    if len(near) == len(set(found)) == len(wanted):
        return near
    for written in (mrbayes_names(wanted), *_iqtree_names(wanted)):
        numbers = {name: number for number, name in enumerate(written)}
        if len(numbers) == len(wanted) and set(found) == set(numbers):
            return numbers
    taken = set(near.values())
    missing = [name for number, name in enumerate(wanted) if number not in taken]
    unexpected = [name for name in found if name not in near]
    raise TreeFormatError(
        f"{source}: expected trees of the {len(wanted)} taxa of the alignment;"
        f" missing: {_some(missing)}; unexpected: {_some(unexpected)}."
        " Make the names of the alignment and of the trees the same (names that MrBayes or IQ-TREE rewrote"
        " are understood if all taxa stay distinct)"
    )


def _some(names: Sequence[str]) -> str:
    """Names for a message, at most ten of them."""
    more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    return (", ".join(names[:_MAX_LISTED]) or "none") + more


def _near_numbers(found: Sequence[str], wanted: Sequence[str]) -> dict[str, int]:
    """Position in ``wanted`` of the names found that have an equal name there, or a single similar one."""
    exact = {name: number for number, name in enumerate(wanted)}
    numbers = {name: exact[name] for name in found if name in exact}
    free: dict[str, list[int]] = {}
    for name, number in exact.items():
        if name not in numbers:
            free.setdefault(name.replace("_", " "), []).append(number)
    others = [name for name in dict.fromkeys(found) if name not in exact]
    shared = Counter(name.replace("_", " ") for name in others)
    for name in others:
        similar = name.replace("_", " ")
        if shared[similar] == 1 and len(free.get(similar, ())) == 1:
            numbers[name] = free[similar][0]
    return numbers


def _iqtree_names(taxa: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names that IQ-TREE gives to taxa of a FASTA file, and of other files."""
    first_words = ["".join(name.split(maxsplit=1)[:1]) for name in taxa]
    return [_iqtree_name(name) for name in first_words], [_iqtree_name(name) for name in taxa]


def _iqtree_name(name: str) -> str:
    return re.sub(rb"[^A-Za-z0-9_.|/-]", b"_", name.encode()).decode()


def _code(character: str) -> str:
    return f"_u{ord(character):X}_"


def _character(code: re.Match[str]) -> str:
    """Character that a code stands for; surrogates are none, so that their codes stay as they are."""
    number = int(code.group(1), 16)
    return code.group() if 0xD800 <= number <= 0xDFFF else chr(number)


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:16]
