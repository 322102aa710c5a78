"""Newick text in and out.

Reading accepts rooted and unrooted binary trees (a root of two children is dissolved, its two branch lengths
are added), quoted labels, [comments] anywhere between tokens, and labels on inner nodes, which are ignored.
Underscores are kept as they are in names; a label that is no taxon as it stands is tried once more with
underscores and spaces taken as equal.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from jaxtyping import Int64, UInt8

from vbpi_mix.errors import TreeFormatError
from vbpi_mix.shapes import BranchLengths, Topologies
from vbpi_mix.trees import _newick_kernels as kernels
from vbpi_mix.trees._newick_writer import write_trees
from vbpi_mix.trees.topology import Tree, canonicalise, canonicalise_with_lengths

HashTable: TypeAlias = tuple[UInt8[np.ndarray, "_"], np.ndarray, np.ndarray, np.ndarray, int]
"""Label bytes, their offsets, hash slots, taxon numbers, and a size above the longest label's."""

_MESSAGES = {
    kernels.NO_BRACKET: "expected '(' and a tree",
    kernels.UNCLOSED_BRACKET: "expected a ')' for this '(' before the end of the tree",
    kernels.EXTRA_BRACKET: "expected ';' after the tree, got a ')' that closes nothing",
    kernels.UNKNOWN_TAXON: "unknown taxon {label}; known are {taxa}",
    kernels.DUPLICATE_TAXON: "taxon {label} occurs twice in the tree; every taxon must occur once",
    kernels.MISSING_TAXON: "expected every taxon in the tree, missing: {missing}",
    kernels.MULTIFURCATION: (
        "expected a binary tree, this node has too many children (two are allowed, three at the outermost"
        " brackets); resolve the polytomy into nodes of two children, or leave the tree out"
    ),
    kernels.ONE_CHILD: "expected two children, this node has one; remove its pair of brackets",
    kernels.BAD_LENGTH: "expected a branch length (a finite decimal number) after ':'",
    kernels.TEXT_AFTER_TREE: "expected ';' after the tree, got further text",
    kernels.UNCLOSED_COMMENT: "expected a ']' for this '['",
    kernels.UNCLOSED_QUOTE: "expected a closing quote for this ' (a quote inside a name is doubled)",
    kernels.EMPTY_LABEL: "expected a taxon name or '('",
    kernels.NESTED_TOO_DEEP: "more nested brackets than taxa",
    kernels.UNEXPECTED_TEXT: "expected ',' or ')' here",
}

_TOKEN = re.compile(rb"\[[^\]]*\]|'(?:[^']|'')*'|[(),:;]|[^\s(),:;\[\]'](?:[^(),:;\[\]']*[^\s(),:;\[\]'])?")

# Trees written at a time: enough to make calls cheap, few enough to need little memory.
_BLOCK = 1000


@dataclass(frozen=True)
class LabelTable:
    """Hash tables from the labels of a file to taxa.

    Attributes:
        taxa: names in the order of the leaves' numbers.
        labels: taxon number of every label.
        exact: hash table of the labels.
        relaxed: hash table of the labels with underscores turned into spaces, without ambiguous ones.
    """

    taxa: tuple[str, ...]
    labels: Mapping[str, int]
    exact: HashTable
    relaxed: HashTable

    @classmethod
    def from_labels(cls, taxa: Sequence[str], labels: Mapping[str, int] | None = None) -> "LabelTable":
        """Table of the labels given (label to taxon number), or of the taxa's own names."""
        taxa = tuple(taxa)
        if len(set(taxa)) != len(taxa):
            twice = sorted({name for name in taxa if taxa.count(name) > 1})
            raise TreeFormatError(f"expected distinct taxon names, got twice: {', '.join(twice)}")
        if len(taxa) < 3:
            raise TreeFormatError(f"expected a tree of at least 3 taxa, got {len(taxa)}: {', '.join(taxa)}")
        labels = {name: number for number, name in enumerate(taxa)} if labels is None else labels
        meanings: dict[str, set[int]] = {}
        for label, number in labels.items():
            meanings.setdefault(label.replace("_", " "), set()).add(number)
        relaxed = {label: numbers.pop() for label, numbers in meanings.items() if len(numbers) == 1}
        return cls(taxa, labels, _hash_table(labels), _hash_table(relaxed))


def _hash_table(labels: Mapping[str, int]) -> HashTable:
    encoded = [label.encode() for label in labels]
    sizes = [len(label) for label in encoded]
    names = np.frombuffer(b"".join(encoded), np.uint8)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    slots = np.full(1 << max(4, (4 * len(encoded)).bit_length()), -1, np.int64)
    kernels.fill_slots(names, offsets, slots)
    return names, offsets, slots, np.array(list(labels.values()), np.int32), max(sizes, default=0) + 1


@dataclass(frozen=True)
class TreeText:
    """Bytes of a file that hold trees, and where each tree lies.

    Attributes:
        data: the bytes.
        starts: first byte of every tree, [tree].
        ends: byte after every tree, where its semicolon stands, [tree].
        source: name of the file, or of the text, for messages.
    """

    data: bytes
    starts: Int64[np.ndarray, " tree"]
    ends: Int64[np.ndarray, " tree"]
    source: str

    @classmethod
    def from_newick(cls, data: bytes, source: str) -> "TreeText":
        """Trees that end in semicolons; after the last one the semicolon may be absent."""
        ends = semicolons(data, source)
        starts = np.concatenate([[0], ends + 1])
        if data[starts[-1] :].strip():
            ends = np.append(ends, len(data))
        return cls(data, starts[: len(ends)].astype(np.int64), ends.astype(np.int64), source)


def semicolons(data: bytes, source: str) -> Int64[np.ndarray, " found"]:
    """Positions of the semicolons outside of quotes and comments.

    Raises:
        TreeFormatError: for a quote or comment that does not end.
    """
    out = np.empty(data.count(b";"), np.int64)
    num_found, kind, position = kernels.find_semicolons(np.frombuffer(data, np.uint8), out)
    if kind != kernels.OK:
        raise TreeFormatError(f"{place(data, position, source)}: {_MESSAGES[kind]}")
    return out[:num_found]


def place(data: bytes, position: int, source: str) -> str:
    """Where a byte is, for messages: source, line and column, both counted from 1."""
    line = data.count(b"\n", 0, position) + 1
    column = position - data.rfind(b"\n", 0, position)
    return f"{source}, line {line}, column {column}"


def leaf_labels(data: bytes) -> list[str]:
    """Labels of the leaves of one Newick tree, in order of appearance: those after '(' or ','."""
    found, before = [], b""
    for token in _TOKEN.findall(data):
        if token.startswith(b"["):
            continue
        if before in (b"(", b",") and token not in (b"(", b",", b")", b":", b";"):
            found.append(unquoted(token.decode()))
        before = token
    return found


def parse_batch(text: TreeText, table: LabelTable) -> tuple[Topologies, BranchLengths]:
    """Canonical topologies of all trees of a text and their branch lengths, NaN where a branch has none.

    Raises:
        TreeFormatError: with place and cause, for the first tree that cannot be read.
    """
    num_trees, num_taxa = len(text.starts), len(table.taxa)
    children = np.empty((num_trees, num_taxa - 2, 2), np.int32)
    lengths = np.empty((num_trees, 2 * num_taxa - 3), np.float64)
    kind, tree, position = kernels.parse_trees(
        np.frombuffer(text.data, np.uint8),
        text.starts,
        text.ends,
        table.exact,
        table.relaxed,
        num_taxa,
        children,
        lengths,
    )
    if kind != kernels.OK:
        raise TreeFormatError(_explain(kind, int(tree), int(position), text, table))
    return children, lengths


def _explain(kind: int, tree: int, position: int, text: TreeText, table: LabelTable) -> str:
    """Message of an error in a tree."""
    start, end = int(text.starts[tree]), int(text.ends[tree])
    token = _TOKEN.match(text.data[position:end])
    label = repr(unquoted(token.group().decode(errors="replace"))) if token else "''"
    missing = ""
    if kind == kernels.MISSING_TAXON:
        missing = _some(_absent_taxa(text.data[start:end], table))
    cause = _MESSAGES[kind].format(label=label, taxa=_some(table.taxa), missing=missing)
    around = text.data[position : min(end, position + 30)].decode(errors="replace").split("\n")[0]
    return f"{place(text.data, position, text.source)} (tree {tree + 1}, at {around!r}): {cause}"


def _absent_taxa(tree: bytes, table: LabelTable) -> list[str]:
    """Taxa that no leaf of a tree stands for."""
    relaxed = {label.replace("_", " "): number for label, number in table.labels.items()}
    present = {table.labels.get(label, relaxed.get(label.replace("_", " "))) for label in leaf_labels(tree)}
    return [name for number, name in enumerate(table.taxa) if number not in present]


def _some(names: Sequence[str]) -> str:
    """Names for a message, at most ten of them."""
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(names[:10]) + more


def known_lengths(lengths: BranchLengths, text: TreeText) -> BranchLengths | None:
    """Branch lengths, or None where no tree has any.

    Raises:
        TreeFormatError: if some branches have a length and some have none, or a sum of two is infinite.
    """
    absent = np.isnan(lengths)
    if absent.all():
        return None
    infinite = np.flatnonzero(np.isinf(lengths).any(axis=1))
    if len(infinite):
        where = place(text.data, int(text.starts[infinite[0]]), text.source)
        raise TreeFormatError(
            f"{where} (tree {infinite[0] + 1}): the two branches at the root are one, and the sum of their"
            " lengths is too large; shorten them"
        )
    if absent.any():
        tree = int(np.flatnonzero(absent.any(axis=1))[0])
        where = place(text.data, int(text.starts[tree]), text.source)
        raise TreeFormatError(
            f"{where} (tree {tree + 1}): expected a length on every branch or on none,"
            f" {int(absent[tree].sum())} of {lengths.shape[1]} branches have none"
        )
    return lengths


def parse_newick(text: str, taxa: Sequence[str] | None = None, source: str = "Newick text") -> Tree:
    """The tree of a Newick text.

    Args:
        text: one tree, rooted or unrooted.
        taxa: names in the order wanted; without them, the tree's own in sorted order.
        source: what to call the text in messages.

    Raises:
        TreeFormatError: if the text is not one binary tree of these taxa.
    """
    trees = TreeText.from_newick(text.encode(), source)
    if len(trees.ends) != 1:
        raise TreeFormatError(f"{source}: expected one tree, got {len(trees.ends)}")
    table = LabelTable.from_labels(taxa if taxa is not None else found_taxa(trees))
    children, lengths = parse_batch(trees, table)
    kept = known_lengths(lengths, trees)
    return Tree(table.taxa, children[0], None if kept is None else kept[0])


def found_taxa(text: TreeText) -> tuple[str, ...]:
    """Sorted names of the leaves of a text's first tree."""
    return tuple(sorted(set(leaf_labels(text.data[text.starts[0] : text.ends[0]]))))


def quoted(name: str) -> str:
    """Name as a Newick label: quoted, with its own quotes doubled, if it holds any special character."""
    if re.fullmatch(r"[^\s()\[\]{}/\\,;:=*'\"`+<>]+", name):
        return name
    return "'" + name.replace("'", "''") + "'"


def unquoted(label: str) -> str:
    """Name that a Newick label stands for."""
    return label[1:-1].replace("''", "'") if label.startswith("'") else label


def write_newick(tree: Tree) -> str:
    """Newick text of a tree, with three children at its outermost brackets, ended by a semicolon.

    Equal trees with equally ordered taxa give equal texts; branch lengths read back unchanged.
    """
    lengths = None if tree.branch_lengths is None else tree.branch_lengths[None]
    return next(newick_texts(tree.children[None], lengths, [quoted(name) for name in tree.taxa]))


def newick_texts(
    children: Topologies,
    branch_lengths: BranchLengths | None,
    labels: Sequence[str],
    digits: int | None = None,
) -> Iterator[str]:
    """Newick texts of trees, made a block of trees at a time.

    Args:
        children: topologies, [tree, internal, 2].
        branch_lengths: expected substitutions per site, [tree, edge]; None leaves them out.
        labels: labels of the taxa, quoted already.
        digits: significant digits of the branch lengths; by default as many as they need to read back
        unchanged, which takes three times as long as 9.

    Raises:
        ValueError: if the labels or branch lengths are not as many as the topologies need.
    """
    num_trees, num_taxa, num_edges = len(children), children.shape[1] + 2, 2 * children.shape[1] + 1
    if len(labels) != num_taxa:
        raise ValueError(f"expected {num_taxa} labels, got {len(labels)}")
    if branch_lengths is not None and branch_lengths.shape != (num_trees, num_edges):
        raise ValueError(f"expected branch lengths {(num_trees, num_edges)}, got {branch_lengths.shape}")
    encoded = [label.encode() for label in labels]
    label_bounds = np.cumsum([0, *map(len, encoded)])
    label_bytes = np.frombuffer(b"".join(encoded), np.uint8)
    # Besides labels and lengths: 3 characters for each inner branch, 5 for the outermost brackets.
    bare_size = label_bounds[-1] + 3 * (num_taxa - 3) + 5
    for first in range(0, num_trees, _BLOCK):
        block = slice(first, first + _BLOCK)
        if branch_lengths is None:
            ordered = canonicalise(children[block])
            suffixes, bounds = b"", np.zeros(len(ordered) * num_edges + 1, np.int64)
        else:
            ordered, lengths = canonicalise_with_lengths(children[block], branch_lengths[block])
            suffixes = _length_suffixes(lengths, digits)
            colons = np.flatnonzero(np.frombuffer(suffixes, np.uint8) == ord(":"))
            bounds = np.append(colons, len(suffixes))
        ends = bounds[::num_edges] + bare_size * np.arange(len(ordered) + 1)
        out = np.empty(ends[-1], np.uint8)
        write_trees(ordered, label_bytes, label_bounds, np.frombuffer(suffixes, np.uint8), bounds, out)
        data = out.tobytes()
        for start, end in pairwise(ends.tolist()):
            yield data[start:end].decode()


def _length_suffixes(lengths: BranchLengths, digits: int | None) -> bytes:
    """Branch lengths one after another, each after a colon."""
    values = lengths.ravel().tolist()
    if digits is None:
        return (":" + ":".join(map(repr, values))).encode()
    return ((f":%.{digits}g" * len(values)) % tuple(values)).encode()
