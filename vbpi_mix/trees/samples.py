"""Samples of trees from files: what bootstrap and Markov chain programs leave behind.

The format is found from the content, gzipped or not: Newick (``.ufboot``, one tree after another), NEXUS
(``.t``, ``.trees``, ``.trprobs``, ``.con.tre`` of binary trees), and two tables with tabs between columns:
``replicate, count, topology`` below a line ``#taxa`` with names (topologies number them from 0), and
``probability, topology``.
"""

import gzip
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from vbpi_mix.errors import TreeFormatError
from vbpi_mix.shapes import BranchLengths, Topologies
from vbpi_mix.trees.names import match_taxa
from vbpi_mix.trees.newick import LabelTable, TreeText, found_taxa, known_lengths, parse_batch, place
from vbpi_mix.trees.nexus_reader import read_nexus
from vbpi_mix.trees.topology import unique_topologies


@dataclass(frozen=True)
class TreeSample:
    """Distinct topologies and how much each weighs.

    Attributes:
        taxa: names, in the order of the leaves' numbers.
        children: distinct canonical topologies, heaviest first, [tree, internal, 2].
        weights: counts or probabilities, positive, not normalised, [tree].
        source: where they come from, for messages and provenance.
    """

    taxa: tuple[str, ...]
    children: Topologies
    weights: Float64[np.ndarray, " tree"]
    source: str


@dataclass(frozen=True)
class TreeDraws:
    """All trees of a file in their order, with branch lengths.

    Attributes:
        taxa: names, in the order of the leaves' numbers.
        children: canonical topologies, [tree, internal, 2].
        branch_lengths: expected substitutions per site, [tree, edge], or None where the file has none.
        weights: 1 each unless the file says otherwise, [tree].
        source: where they come from, for messages and provenance.
    """

    taxa: tuple[str, ...]
    children: Topologies
    branch_lengths: BranchLengths | None
    weights: Float64[np.ndarray, " tree"]
    source: str


@dataclass(frozen=True)
class _TreeFile:
    """Trees of a file not yet parsed: labels stand for names; weights are None for plain draws."""

    taxa: tuple[str, ...]
    labels: Mapping[str, str]
    text: TreeText
    weights: Float64[np.ndarray, " tree"] | None


def read_tree_sample(
    path: str | Path,
    taxa: Sequence[str] | None = None,
    burn_in: float = 0.0,
    replicates: tuple[int, ...] | None = None,
) -> TreeSample:
    """The distinct topologies of a file of trees and their weights.

    Args:
        path: file in one of the formats above.
        taxa: names in the order wanted; without them, the file's own order (Newick: sorted).
        burn_in: fraction of the trees to leave out at the beginning, 0 <= burn_in < 1; only of unweighted
        trees.
        replicates: replicates to read from a table that has several; all without it.

    Raises:
        TreeFormatError: if the file cannot be read, or its taxa are not those given.
        ValueError: if an argument is out of range or does not apply to the format.
    """
    file, children, _ = _read(Path(path), taxa, burn_in, replicates)
    weights = _weights(file, len(children))
    distinct, inverse, _ = unique_topologies(children)
    totals = np.bincount(inverse, weights, minlength=len(distinct))
    order = np.argsort(-totals, kind="stable")
    order = order[totals[order] > 0]
    return TreeSample(file.taxa, distinct[order], totals[order], str(path))


def read_tree_draws(path: str | Path, taxa: Sequence[str] | None = None, burn_in: float = 0.0) -> TreeDraws:
    """All trees of a file with their branch lengths; the arguments are those of `read_tree_sample`.

    Raises:
        TreeFormatError: as `read_tree_sample`, and if only some branches have a length.
        ValueError: as `read_tree_sample`.
    """
    file, children, lengths = _read(Path(path), taxa, burn_in, None)
    kept = known_lengths(lengths, file.text)
    return TreeDraws(file.taxa, children, kept, _weights(file, len(children)), str(path))


def _weights(file: _TreeFile, num_trees: int) -> Float64[np.ndarray, " tree"]:
    return np.ones(num_trees) if file.weights is None else file.weights


def _read(
    path: Path, taxa: Sequence[str] | None, burn_in: float, replicates: tuple[int, ...] | None
) -> tuple[_TreeFile, Topologies, BranchLengths]:
    """A file with its taxa in the order wanted, its topologies and its branch lengths, NaN where absent."""
    if not 0 <= burn_in < 1:
        raise ValueError(f"expected a burn-in fraction from 0 to below 1, got {burn_in}")
    file = _detect(_bytes(path), str(path), replicates)
    _check_weights(file)
    if burn_in > 0:
        if file.weights is not None:
            raise ValueError(f"expected no burn-in for the weighted trees of {path}, got {burn_in}")
        first = int(burn_in * len(file.text.starts))
        text = TreeText(file.text.data, file.text.starts[first:], file.text.ends[first:], file.text.source)
        file = _TreeFile(file.taxa, file.labels, text, None)
    wanted = tuple(file.taxa if taxa is None else taxa)
    numbers = match_taxa(file.taxa, wanted, str(path))
    table = LabelTable.from_labels(wanted, {label: numbers[name] for label, name in file.labels.items()})
    children, lengths = parse_batch(file.text, table)
    return _TreeFile(wanted, file.labels, file.text, file.weights), children, lengths


def _check_weights(file: _TreeFile) -> None:
    """Refuse weights without a finite positive sum.

    Raises:
        TreeFormatError: if one is not finite, or all are zero, or they are too large to be added.
    """
    weights, text = file.weights, file.text
    if weights is None:
        return
    infinite = np.flatnonzero(~np.isfinite(weights))
    if len(infinite):
        where = place(text.data, int(text.starts[infinite[0]]), text.source)
        raise TreeFormatError(
            f"{where} (tree {infinite[0] + 1}): expected a finite weight, got {weights[infinite[0]]}; "
            "correct it"
        )
    with np.errstate(over="ignore"):
        total = weights.sum()
    if not 0 < total < np.inf:
        raise TreeFormatError(
            f"{text.source}: expected weights of trees with a finite positive sum, they add up to {total:g}; "
            "give some trees a weight above 0, such as their probability"
        )


def _bytes(path: Path) -> bytes:
    """Content of a file, unpacked, without byte order mark.

    Raises:
        TreeFormatError: if it cannot be opened, unpacked or decoded.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise TreeFormatError(
            f"expected a file of trees at {path}, found no file; check the path of the trees"
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a path that holds a NUL
        raise TreeFormatError(
            f"{path}: expected a file of trees, it cannot be read: {error}; name a file that you may read"
        ) from None
    if data.startswith(b"\x1f\x8b"):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise TreeFormatError(
                f"{path}: expected a whole gzip file, got a damaged one ({error}); copy or download it again"
            ) from None
    data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        if not data.isascii():
            data.decode()
    except UnicodeDecodeError as error:
        where = place(data, error.start, str(path))
        raise TreeFormatError(f"{where}: expected UTF-8 text, got byte {data[error.start]:#04x}") from None
    return data


def _detect(data: bytes, source: str, replicates: tuple[int, ...] | None) -> _TreeFile:
    """Trees of a file, in the format that its beginning shows."""
    beginning = data[:4096].lstrip()
    if beginning.startswith(b"#taxa"):
        return _replicate_table(data, source, replicates)
    if replicates is not None:
        raise ValueError(f"expected replicates only for a table that has them; {source} is none")
    if beginning[:6].upper() == b"#NEXUS":
        nexus = read_nexus(data, source)
        return _TreeFile(nexus.taxa, nexus.labels, nexus.text, nexus.weights)
    if beginning.startswith(b"probability\t"):
        return _probability_table(data, source)
    if beginning[:1] in (b"(", b"["):
        text = TreeText.from_newick(data, source)
        taxa = found_taxa(text)
        return _TreeFile(taxa, {name: name for name in taxa}, text, None)
    raise TreeFormatError(
        f"{source}: expected Newick ('(' first), NEXUS ('#NEXUS' first) or a table of topologies ('#taxa' or"
        f" 'probability' first), got {beginning[:20].decode(errors='replace')!r}"
    )


def _replicate_table(data: bytes, source: str, replicates: tuple[int, ...] | None) -> _TreeFile:
    """Trees of a table of bootstrap replicates; weights are counts."""
    first, _, _ = data.partition(b"\n")
    taxa = tuple(first.decode().rstrip("\r").split("\t")[1:])
    columns, text = _table(data, len(first) + 1, ("replicate", "count", "topology"), source)
    replicate = _numbers(columns[0], "replicate", text)
    weights = _numbers(columns[1], "count", text)
    labels = {str(number): name for number, name in enumerate(taxa)}
    if replicates is None:
        return _TreeFile(taxa, labels, text, weights)
    known = np.unique(replicate)
    unknown = sorted(set(replicates) - set(known.astype(int).tolist()))
    if unknown or not replicates:
        raise ValueError(
            f"{source}: expected replicates among {known.astype(int).tolist()}, got {list(replicates)}"
        )
    kept = np.flatnonzero(np.isin(replicate, replicates))
    return _TreeFile(taxa, labels, TreeText(data, text.starts[kept], text.ends[kept], source), weights[kept])


def _probability_table(data: bytes, source: str) -> _TreeFile:
    """Trees of a table of a posterior; weights are probabilities."""
    columns, text = _table(data, 0, ("probability", "topology"), source)
    taxa = found_taxa(text)
    return _TreeFile(taxa, {name: name for name in taxa}, text, _numbers(columns[0], "probability", text))


def _table(
    data: bytes, start: int, header: tuple[str, ...], source: str
) -> tuple[list[list[bytes]], TreeText]:
    """Columns of a table but the last, and where the trees of the last column are."""
    lines = data[start:].split(b"\n")
    if tuple(lines[0].decode().split()) != header:
        raise TreeFormatError(
            f"{place(data, start, source)}: expected columns {', '.join(header)}, got {lines[0].decode()!r}"
        )
    rows, starts, ends = [], [], []
    position = start + len(lines[0]) + 1
    for line in lines[1:]:
        if line.strip():
            *cells, tree = line.rstrip().split(b"\t")
            if len(cells) != len(header) - 1:
                raise TreeFormatError(
                    f"{place(data, position, source)}: expected {len(header)} columns"
                    f" ({', '.join(header)}), got {len(cells) + 1}"
                )
            rows.append(cells)
            ends.append(position + len(line.rstrip().rstrip(b";")))
            starts.append(position + len(line.rstrip()) - len(tree))
        position += len(line) + 1
    if not rows:
        raise TreeFormatError(f"{source}: expected a table with topologies, found none")
    text = TreeText(data, np.array(starts, np.int64), np.array(ends, np.int64), source)
    return [list(column) for column in zip(*rows, strict=True)], text


def _numbers(column: list[bytes], name: str, text: TreeText) -> Float64[np.ndarray, " tree"]:
    """A column of non-negative finite numbers."""
    values = np.empty(len(column))
    for row, cell in enumerate(column):
        try:
            values[row] = float(cell)
        except ValueError:
            values[row] = np.nan
    bad = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
    if len(bad):
        where = place(text.data, int(text.starts[bad[0]]), text.source)
        cell = column[bad[0]].decode(errors="replace")
        raise TreeFormatError(f"{where}: expected a number >= 0 as {name}, got {cell!r}")
    return values
