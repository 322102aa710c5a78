"""NEXUS files of trees, as MrBayes, BEAST and others write them: labels, tree texts and weights.

Read are the TRANSLATE command, the TAXLABELS command where there is no translation, and all TREE and UTREE
commands. A tree's weight is its ``[&W 0.12]``, or ``12/100``; else the ``p = 0.12`` of a comment after its
name; else 1.
"""

import re
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from vbpi_mix.errors import TreeFormatError
from vbpi_mix.trees.names import plain_name
from vbpi_mix.trees.newick import TreeText, leaf_labels, place, semicolons, unquoted

CODED_NAMES = b"[Names: characters by their Unicode numbers are written _uHEX_]"
"""Comment in the files of ``nexus``, whose names `plain_name` reads."""

_TRUE_NAME = re.compile(rb"\[Name (\S+): ([^\]]+)\]")
"""Comment in these files: a taxon's label and the name that it has instead of that of the translation."""

_COMMENT = rb"\[[^\]]*\]"
_GAP = rb"(?:\s|" + _COMMENT + rb")*"
_COMMAND = re.compile(_GAP + rb"(\w+)")
_WORD = re.compile(_COMMENT + rb"|('(?:[^']|'')*'|[^\s,\[\]']+)")
_TREE_HEAD = re.compile(
    rb"\s+\*?\s*(?:'(?:[^']|'')*'|[^\s=\[]+)((?:\s|" + _COMMENT + rb")*)=((?:\s|" + _COMMENT + rb")*)"
)
_NUMBER = rb"([0-9]+\.?[0-9]*(?:[eE][-+]?[0-9]+)?)"
_WEIGHT = re.compile(rb"\[\s*&\s*[wW]\s+" + _NUMBER + rb"(?:\s*/\s*([1-9][0-9]*))?\s*\]")
_PROBABILITY = re.compile(rb"\[\s*p\s*=\s*" + _NUMBER)


@dataclass(frozen=True)
class NexusTrees:
    """What a NEXUS file says about its trees.

    Attributes:
        taxa: names in the order of the file.
        labels: name of the taxon that each label stands for.
        text: where the trees are.
        weights: one for each tree, [tree]; None where no tree has one.
    """

    taxa: tuple[str, ...]
    labels: dict[str, str]
    text: TreeText
    weights: Float64[np.ndarray, " tree"] | None


def read_nexus(data: bytes, source: str) -> NexusTrees:
    """Labels, tree texts and weights of a NEXUS file.

    Raises:
        TreeFormatError: for a file without trees, or a TRANSLATE or TREE command that cannot be read.
    """
    ends = semicolons(data, source)
    starts = np.concatenate([[data.index(b"#") + len("#NEXUS")], ends + 1])
    translation: dict[str, str] = {}
    tax_labels: list[str] = []
    tree_starts, tree_ends, weights = [], [], []
    for start, end in zip(starts.tolist(), ends.tolist(), strict=False):
        command = _COMMAND.match(data, start, end)
        if command is None:
            continue
        match command.group(1).lower():
            case b"tree" | b"utree":
                head = _TREE_HEAD.match(data, command.end(), end)
                if head is None:
                    where = place(data, command.start(1), source)
                    raise TreeFormatError(f"{where}: expected a name and '=' after TREE")
                tree_starts.append(head.end())
                tree_ends.append(end)
                weights.append(_weight(head.group(1), head.group(2)))
            case b"translate":
                translation |= _translation(data, command.end(), end, source)
            case b"taxlabels":
                tax_labels = _words(data[command.end() : end])
    unfinished = _COMMAND.match(data, int(starts[-1]))
    if unfinished is not None:
        where = place(data, unfinished.start(1), source)
        raise TreeFormatError(
            f"{where}: expected ';' at the end of this command, the file ends before; if writing it was"
            " interrupted, remove its last line"
        )
    if not tree_starts:
        raise TreeFormatError(f"{source}: expected a NEXUS file with TREE commands, found none")
    before = data[: tree_starts[0]]
    if CODED_NAMES in before:
        true = {label.decode(): b"".join(name.split()).decode() for label, name in _TRUE_NAME.findall(before)}
        translation = {label: plain_name(true.get(label, name)) for label, name in translation.items()}
    text = TreeText(data, np.array(tree_starts, np.int64), np.array(tree_ends, np.int64), source)
    taxa, labels = _labels(translation, tax_labels, data[tree_starts[0] : tree_ends[0]])
    if all(weight is None for weight in weights):
        return NexusTrees(taxa, labels, text, None)
    return NexusTrees(taxa, labels, text, np.array([1.0 if w is None else w for w in weights]))


def _labels(
    translation: dict[str, str], tax_labels: list[str], first_tree: bytes
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Taxa of a file, and the name that each label of its trees stands for; names stand for themselves."""
    if translation:
        taxa = tuple(translation.values())
        return taxa, {name: name for name in taxa} | translation
    if tax_labels:
        numbers = {str(number + 1): name for number, name in enumerate(tax_labels)}
        return tuple(tax_labels), numbers | {name: name for name in tax_labels}
    taxa = tuple(sorted(set(leaf_labels(first_tree))))
    return taxa, {name: name for name in taxa}


def _words(command: bytes) -> list[str]:
    """Words of a command, without comments and commas."""
    return [unquoted(word.decode()) for word in _WORD.findall(command) if word]


def _translation(data: bytes, start: int, end: int, source: str) -> dict[str, str]:
    """Label to name of a TRANSLATE command."""
    words = _words(data[start:end])
    labels, names = words[::2], words[1::2]
    if len(labels) != len(names) or len(set(labels)) != len(labels) or len(set(names)) != len(names):
        raise TreeFormatError(
            f"{place(data, start, source)}: expected TRANSLATE with pairs of a label and a name, all distinct"
            f" (names with blanks in quotes), got {len(words)} words, {len(set(labels))} distinct labels"
            f" and {len(set(names))} distinct names"
        )
    return dict(zip(labels, names, strict=True))


def _weight(after_name: bytes, before_tree: bytes) -> float | None:
    """Weight in the comments of a TREE command."""
    if found := _WEIGHT.search(before_tree):
        return float(found.group(1)) / float(found.group(2) or 1)
    if found := _PROBABILITY.search(after_name):
        return float(found.group(1))
    return None
