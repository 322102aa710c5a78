"""Parser of the character matrix of a NEXUS file.

NEXUS is a sequence of commands ended by ``;``, grouped in blocks, with ``[comments]`` that nest and names
that may stand in quotes. The matrix is in a DATA or a CHARACTERS block, whose DIMENSIONS and FORMAT commands
say how to read it.

References:
    Maddison DR, Swofford DL, Maddison WP (1997). NEXUS: an extensible file format for systematic information.
    Syst Biol 46:590-621.
"""

import re
from dataclasses import dataclass

import numpy as np

from vbpi_mix._nucleotides import MASKS, SYMBOLS
from vbpi_mix.errors import AlignmentError

_QUOTED = r"""(?<![^\s;=,\]])(?:'(?:[^']|'')*'|"[^"]*")"""
_OUTSIDE_COMMENT = re.compile(_QUOTED + r"|[\[;]")
_INSIDE_COMMENT = re.compile(r"[\[\]]")
_OPTION = re.compile(r"""([A-Za-z]+)(?:\s*=\s*("[^"]*"|'[^']*'|\([^)]*\)|\S+))?""")
_TOKEN = re.compile(_QUOTED + r"|(?:\{[^{}]*\}|\([^()]*\)|[^\s{(]++|[{(])++")
_STATE_SET = re.compile(r"\{([^{}]*)\}|\(([^()]*)\)")
_NUCLEOTIDE_TYPES = ("dna", "rna", "nucleotide", "nucleotides")
_UNSUPPORTED = ("transpose", "equate", "nolabels", "tokens")


@dataclass(frozen=True)
class _Format:
    """What the DIMENSIONS and FORMAT commands say about a matrix."""

    num_taxa: int | None
    num_sites: int
    is_interleaved: bool
    missing: str
    gap: str
    match: str


def parse_nexus(text: str, source: str) -> list[tuple[str, str]]:
    """Taxa and sequences of a NEXUS file.

    Gap and missing symbols come back as ``-`` and ``?``, sets as IUPAC symbols, and match symbols as what the
    first taxon has. Underscores of names stay as they are.

    Args:
        text: The file's content, which begins with ``#NEXUS``.
        source: The file's name, for messages.

    Raises:
        AlignmentError: If there is not exactly one matrix, or it is not of nucleotides, or breaks the format.
    """
    matrices: list[tuple[_Format, str]] = []
    block = ""
    options: dict[str, str] = {}
    for command in _commands(text.lstrip()[len("#NEXUS") :], source):
        keyword, *rest = command.split(maxsplit=1)
        match keyword.lower():
            case "begin":
                block = "".join(rest).strip().lower()
                if block in ("data", "characters"):
                    options = {}
            case "dimensions" | "format" if block in ("data", "characters"):
                options |= {key.lower(): value.strip("'\"") for key, value in _OPTION.findall("".join(rest))}
            case "matrix" if block in ("data", "characters"):
                matrices.append((_matrix_format(options, source), "".join(rest)))
    if len(matrices) != 1:
        raise AlignmentError(
            f"{source}: expected one MATRIX, closed by ';', in a DATA or CHARACTERS block, found "
            f"{len(matrices)}; keep the one to analyse"
        )
    layout, body = matrices[0]
    rows = _interleaved_rows(body) if layout.is_interleaved else _sequential_rows(body, layout.num_sites)
    _check_dimensions(rows, layout, source)
    return _resolve_symbols(rows, layout, source)


def _commands(text: str, source: str) -> list[str]:
    """Commands that end with ``;``, without comments; what follows the last ``;`` is no command."""
    commands: list[str] = []
    parts: list[str] = []
    position = depth = 0
    while True:
        match = (_INSIDE_COMMENT if depth else _OUTSIDE_COMMENT).search(text, position)
        if match is None:
            break
        if depth == 0:
            end = match.start() if match[0] in ("[", ";") else match.end()  # a quoted name stays
            parts.append(text[position:end])
        if match[0] == "[":
            depth += 1
        elif match[0] == "]":
            depth -= 1
            parts.append(" ")  # a comment parts words
        elif match[0] == ";":
            command = "".join(parts).strip()
            if command:
                commands.append(command)
            parts = []
        position = match.end()
    if depth:
        raise AlignmentError(f"{source}: a NEXUS comment opened by '[' is never closed; add the ']'")
    return commands


def _matrix_format(options: dict[str, str], source: str) -> _Format:
    """Layout that the options of a matrix's block describe."""
    datatype = options.get("datatype", "dna").lower()
    if datatype not in _NUCLEOTIDE_TYPES:
        hint = "it looks like protein; " if datatype == "protein" else ""
        raise AlignmentError(
            f"{source}: expected NEXUS datatype {', '.join(_NUCLEOTIDE_TYPES[:3])}, came {datatype!r}; "
            f"{hint}only nucleotide alignments can be analysed"
        )
    for keyword in _UNSUPPORTED:
        if keyword in options:
            raise AlignmentError(
                f"{source}: the NEXUS option {keyword.upper()} is not supported; export the matrix without it"
            )
    for keyword in ("missing", "gap", "matchchar"):
        if len(options.get(keyword, "?")) != 1:
            raise AlignmentError(
                f"{source}: expected NEXUS option {keyword.upper()} to be one symbol, came "
                f"{options[keyword]!r}"
            )
    num_sites = options.get("nchar", "")
    num_taxa = options.get("ntax")
    if not (num_sites.isdecimal() and (num_taxa is None or num_taxa.isdecimal())):
        raise AlignmentError(
            f"{source}: expected DIMENSIONS with NTAX and NCHAR as whole numbers before the MATRIX, came "
            f"ntax={num_taxa}, nchar={num_sites or None}"
        )
    return _Format(
        num_taxa=None if num_taxa is None else int(num_taxa[:12]),
        num_sites=int(num_sites[:12]),
        is_interleaved=options.get("interleave", "no").lower() != "no",
        missing=options.get("missing", "?"),
        gap=options.get("gap", "-"),
        match=options.get("matchchar", ""),
    )


def _unquoted(token: str) -> str:
    """A name without its quotes; a doubled single quote inside single quotes stands for one."""
    if len(token) >= 2 and token[0] == token[-1] == "'":
        return token[1:-1].replace("''", "'")
    if len(token) >= 2 and token[0] == token[-1] == '"':
        return token[1:-1]
    return token


def _sequence_length(token: str) -> int:
    """Sites of a piece of a sequence, in which a set such as ``{AG}`` is one site."""
    return len(_STATE_SET.sub("N", token))


def _sequential_rows(body: str, num_sites: int) -> list[tuple[str, str]]:
    """Rows of a matrix in which a name follows when the sequence before it is complete."""
    rows: list[tuple[str, list[str]]] = []
    missing_sites = 0
    for match in _TOKEN.finditer(body):
        token = match[0]
        if missing_sites <= 0:
            rows.append((_unquoted(token), []))
            missing_sites = num_sites
        else:
            rows[-1][1].append(token)
            missing_sites -= _sequence_length(token)
    return [(name, "".join(parts)) for name, parts in rows]


def _interleaved_rows(body: str) -> list[tuple[str, str]]:
    """Rows of a matrix in blocks, each line of which begins with its taxon's name."""
    fragments: dict[str, list[str]] = {}
    for line in body.split("\n"):
        tokens = [match[0] for match in _TOKEN.finditer(line)]
        if tokens:
            fragments.setdefault(_unquoted(tokens[0]), []).extend(tokens[1:])
    return [(name, "".join(parts)) for name, parts in fragments.items()]


def _check_dimensions(rows: list[tuple[str, str]], layout: _Format, source: str) -> None:
    """Refuse rows that are not what DIMENSIONS promises."""
    cure = "correct DIMENSIONS, or say INTERLEAVE in FORMAT if the matrix comes in blocks"
    for name, sequence in rows:
        if _sequence_length(sequence) != layout.num_sites:
            raise AlignmentError(
                f"{source}: expected {layout.num_sites} sites (NCHAR), taxon {name!r} has "
                f"{_sequence_length(sequence)}; {cure}"
            )
    if layout.num_taxa is not None and len(rows) != layout.num_taxa:
        raise AlignmentError(
            f"{source}: expected {layout.num_taxa} taxa (NTAX), the matrix has {len(rows)}; {cure}"
        )


def _resolve_symbols(rows: list[tuple[str, str]], layout: _Format, source: str) -> list[tuple[str, str]]:
    """Rows with sets as IUPAC symbols, match symbols replaced, and the usual gap and missing symbols."""
    meaning = {layout.gap: "-", layout.missing: "?"}
    meaning = {case: m for s, m in meaning.items() for case in (s, s.lower(), s.upper()) if len(case) == 1}
    translation = str.maketrans({s: m for s, m in meaning.items() if s != layout.match})

    def union(match: re.Match[str]) -> str:
        members = [meaning.get(s, s) for s in (match[1] or match[2] or "") if not s.isspace() and s != ","]
        unknown = [s for s in members if s not in MASKS]
        if unknown or not members:
            return (unknown or ["{"])[0]  # no set of nucleotides: refused later, with its taxon and site
        return SYMBOLS[int(np.bitwise_or.reduce([MASKS[s] for s in members]))]

    resolved = [(name, _STATE_SET.sub(union, sequence)) for name, sequence in rows]
    if layout.match and resolved:
        first_name, first = resolved[0]
        if layout.match in first:
            raise AlignmentError(
                f"{source}: taxon {first_name!r}, site {first.index(layout.match) + 1}: the first taxon has "
                f"the MATCHCHAR {layout.match!r}, which stands for what the first taxon has; write out its "
                "sequence"
            )
        resolved = [(name, _matched(sequence, first, layout.match)) for name, sequence in resolved]
    return [(name, sequence.translate(translation)) for name, sequence in resolved]


def _matched(sequence: str, first: str, match: str) -> str:
    """A sequence with every match symbol replaced by the symbol of the first sequence at that site."""
    if match not in sequence or len(sequence) != len(first):
        return sequence
    codes, first_codes = (np.frombuffer(s.encode("utf-32-le"), dtype="<u4") for s in (sequence, first))
    return np.where(codes == ord(match), first_codes, codes).astype("<u4").tobytes().decode("utf-32-le")
