"""Summaries of weighted trees: split frequencies, branch lengths, trees annotated with both, the consensus.

How splits are stored is said in `vbpi_mix.trees.splits`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int, Int32, Int64, UInt64

from vbpi_mix.shapes import BranchLengths, Topologies
from vbpi_mix.trees import _summary_kernels
from vbpi_mix.trees.splits import SplitIndex, find_masks, index_splits
from vbpi_mix.trees.topology import clade_masks

_SMALL = 40
"""Values of a split up to which a compiled loop sorts them."""


@dataclass(frozen=True)
class LengthSummary:
    """Branch lengths, in expected substitutions per site, over the trees that have the split.

    Attributes:
        mean: weighted means, [split].
        median: weighted medians, [split].
        sd: weighted standard deviations (root mean squared deviation from the mean), [split].
        interval: ends of the highest-density interval, [split, 2].
        ess: effective number of the trees that have the split, (sum w)^2 / sum w^2, [split].
    """

    mean: Float64[np.ndarray, " split"]
    median: Float64[np.ndarray, " split"]
    sd: Float64[np.ndarray, " split"]
    interval: Float64[np.ndarray, "split 2"]
    ess: Float64[np.ndarray, " split"]


@dataclass(frozen=True)
class SplitTable:
    """Splits of weighted trees, most frequent first, the pendant ones included.

    Attributes:
        masks: taxa on the side without the last taxon, 64 to a word, [split, word].
        sizes: number of taxa in the mask, [split].
        frequencies: weight of the trees with the split over the weight of all, [split].
        lengths: summary of the branch lengths; None where the trees have none.
    """

    masks: UInt64[np.ndarray, "split word"]
    sizes: Int64[np.ndarray, " split"]
    frequencies: Float64[np.ndarray, " split"]
    lengths: LengthSummary | None


@dataclass(frozen=True)
class ConsensusTree:
    """A consensus or other annotated tree, possibly with multifurcations, as if it hung from its last leaf.

    Nodes 0 .. n-1 are the leaves, the others are numbered so that children come before parents, and the last
    one is the root; leaf n-1 is a child of the root. Values of a node are those of the branch above it, NaN
    for the root.

    Attributes:
        taxa: names in the order of the leaves' numbers.
        parents: parent of every node, -1 for the root, [node].
        probabilities: frequency of the branch's split, [node].
        lengths: summary of the branch's length; None where the trees have none.
    """

    taxa: tuple[str, ...]
    parents: Int32[np.ndarray, " node"]
    probabilities: Float64[np.ndarray, " node"]
    lengths: LengthSummary | None


def highest_density_interval(
    values: Float64[np.ndarray, " draw"],
    weights: Float64[np.ndarray, " draw"] | None = None,
    mass: float = 0.95,
) -> tuple[float, float]:
    """Ends of the shortest interval between two values that holds at least this part of the weight.

    Of equally short intervals the lowest is returned.

    Args:
        values: draws, in any order and unit.
        weights: non-negative weights, not normalised; equal ones by default.
        mass: part of the weight, 0 < mass <= 1.

    Raises:
        ValueError: if an argument is out of range, or no draw has any weight.
    """
    weights = np.ones(len(values)) if weights is None else weights
    _check_weights(weights)
    _check_mass(mass)
    order = np.argsort(values, kind="stable")
    order = order[weights[order] > 0]
    result = np.empty((1, 2))
    _summary_kernels.shortest_intervals(
        values[order], weights[order], np.array([0, len(order)], np.int64), mass, result
    )
    return float(result[0, 0]), float(result[0, 1])


def split_table(
    children: Topologies,
    weights: Float64[np.ndarray, " tree"] | None = None,
    branch_lengths: BranchLengths | None = None,
    mass: float = 0.95,
) -> SplitTable:
    """Splits of weighted trees with their frequencies and, where given, branch lengths.

    Args:
        children: topologies, [tree, internal, 2].
        weights: non-negative weights of the trees, not normalised; equal ones by default. Trees of weight 0
            are left out.
        branch_lengths: expected substitutions per site, [tree, edge].
        mass: part of the weight in the highest-density intervals of the lengths, 0 < mass <= 1.

    Raises:
        ValueError: if an argument is out of range, or no tree has any weight.
    """
    weights = np.ones(len(children)) if weights is None else weights
    _check_weights(weights)
    _check_mass(mass)
    kept = np.flatnonzero(weights > 0)
    index, weights = index_splits(children[kept]), weights[kept]
    lengths = None
    if branch_lengths is not None:
        lengths = summarise_lengths(index, np.arange(len(kept)), weights, branch_lengths[kept], mass)
    return table_of_splits(index, index.frequencies(weights), lengths)


def table_of_splits(
    index: SplitIndex, frequencies: Float64[np.ndarray, " split"], lengths: LengthSummary | None
) -> SplitTable:
    """Table of the splits of an index whose frequencies are positive.

    Args:
        index: the splits.
        frequencies: frequency of each.
        lengths: summary of the branch lengths of each.
    """
    # Most frequent first, then small splits, then by mask: the order of the trees must not matter.
    sizes = index.sizes
    order = np.lexsort((*index.masks.T, sizes, -frequencies))
    order = order[frequencies[order] > 0]
    return SplitTable(
        index.masks[order],
        sizes[order],
        frequencies[order],
        None if lengths is None else _take(lengths, order),
    )


def summarise_lengths(
    index: SplitIndex,
    topology_index: Int[np.ndarray, " draw"],
    weights: Float64[np.ndarray, " draw"],
    branch_lengths: Float64[np.ndarray, "draw edge"],
    mass: float = 0.95,
) -> LengthSummary:
    """Summary of weighted branch lengths, split by split; NaN for splits without any weight.

    Args:
        index: splits of some topologies.
        topology_index: which of these each draw has.
        weights: non-negative weights of the draws, not normalised.
        branch_lengths: expected substitutions per site.
        mass: part of the weight in the highest-density intervals, 0 < mass <= 1.

    Raises:
        ValueError: if an argument is out of range, or no draw has any weight.
    """
    _check_weights(weights)
    _check_mass(mass)
    kept = np.flatnonzero(weights > 0)
    num_splits = len(index.masks)
    num_draws = np.bincount(topology_index[kept], minlength=len(index.of_branch)).astype(np.float64)
    offsets = np.concatenate([[0], np.cumsum(index.totals(num_draws))]).astype(np.int64)
    values, draw = np.empty(offsets[-1]), np.empty(offsets[-1], np.int32)
    _summary_kernels.gather_by_split(
        index.of_branch, topology_index, kept, branch_lengths, offsets, values, draw
    )
    _sort_groups(values, draw, offsets)
    columns, interval = np.full((4, num_splits), np.nan), np.full((num_splits, 2), np.nan)
    _summary_kernels.summarise_groups(values, draw, weights, offsets, mass, columns, interval)
    mean, median, sd, ess = columns
    return LengthSummary(mean, median, sd, interval, ess)


def _sort_groups(values: np.ndarray, draw: np.ndarray, offsets: np.ndarray) -> None:
    """Sort the values of every group, and the draws with them, in place."""
    _summary_kernels.sort_small_groups(values, draw, offsets, _SMALL)
    # numpy's sort is vectorised, and several times as fast as a compiled loop's.
    for group in np.flatnonzero(np.diff(offsets) > _SMALL):
        part = slice(offsets[group], offsets[group + 1])
        order = np.argsort(values[part])
        values[part], draw[part] = values[part][order], draw[part][order]


def _take(lengths: LengthSummary, index: np.ndarray) -> LengthSummary:
    """Rows of a summary; NaN where the index is negative."""
    blank = index < 0
    return LengthSummary(
        mean=np.where(blank, np.nan, lengths.mean[index]),
        median=np.where(blank, np.nan, lengths.median[index]),
        sd=np.where(blank, np.nan, lengths.sd[index]),
        interval=np.where(blank[:, None], np.nan, lengths.interval[index]),
        ess=np.where(blank, np.nan, lengths.ess[index]),
    )


def majority_rule_consensus(
    taxa: Sequence[str],
    children: Topologies,
    weights: Float64[np.ndarray, " tree"] | None = None,
    branch_lengths: BranchLengths | None = None,
    threshold: float = 0.5,
    mass: float = 0.95,
) -> ConsensusTree:
    """The tree of all splits with a frequency above the threshold; the arguments are those of `split_table`.

    Args:
        taxa: names in the order of the leaves' numbers.
        children: topologies, [tree, internal, 2].
        weights: non-negative weights of the trees, not normalised; equal ones by default.
        branch_lengths: expected substitutions per site, [tree, edge].
        threshold: frequency that a split must exceed, at least 0.5, so that all splits fit one tree.
        mass: part of the weight in the highest-density intervals of the lengths.

    Raises:
        ValueError: if an argument is out of range.
    """
    if len(taxa) != children.shape[1] + 2:
        raise ValueError(f"expected {children.shape[1] + 2} taxa, got {len(taxa)}")
    return consensus_of_splits(taxa, split_table(children, weights, branch_lengths, mass), threshold)


def consensus_of_splits(taxa: Sequence[str], table: SplitTable, threshold: float = 0.5) -> ConsensusTree:
    """The tree of all splits of a table with a frequency above the threshold.

    Args:
        taxa: names in the order of the leaves' numbers.
        table: splits, all pendant ones among them.
        threshold: frequency that a split must exceed, at least 0.5, so that all splits fit one tree.

    Raises:
        ValueError: if the threshold is out of range.
    """
    if not 0.5 <= threshold < 1:
        raise ValueError(f"expected a threshold from 0.5 to below 1, got {threshold}")
    # Rounding must not bring in a split of exactly the threshold's frequency: two of those may conflict.
    return _tree_of_rows(
        taxa, table, np.flatnonzero((table.frequencies > threshold * (1 + 1e-12)) & (table.sizes > 1))
    )


def annotated_topology(
    taxa: Sequence[str], table: SplitTable, topology: Int32[np.ndarray, "internal 2"]
) -> ConsensusTree:
    """A topology whose branches have the frequencies and lengths that a table gives their splits.

    Args:
        taxa: names in the order of the leaves' numbers.
        table: splits, all those of the topology among them.
        topology: the topology.
    """
    rows = find_masks(table.masks, clade_masks(topology[None])[0, len(taxa) :])
    assert np.all(rows >= 0), "the table lacks a split of the topology"
    return _tree_of_rows(taxa, table, np.sort(rows))


def _tree_of_rows(
    taxa: Sequence[str], table: SplitTable, chosen: Int64[np.ndarray, " found"]
) -> ConsensusTree:
    """The tree of all pendant splits of a table and of chosen inner ones, which fit one tree."""
    num_taxa = len(taxa)
    chosen = chosen[np.argsort(table.sizes[chosen], kind="stable")]
    inner = [_as_integer(mask) for mask in table.masks[chosen]]
    pendant = np.flatnonzero(table.sizes == 1)
    leaf_of = [_as_integer(mask).bit_length() - 1 for mask in table.masks[pendant]]
    row = np.full(num_taxa + len(inner) + 1, -1, np.int64)
    row[leaf_of] = pendant
    row[num_taxa:-1] = chosen
    root = num_taxa + len(inner)
    masks = [1 << leaf for leaf in range(num_taxa)] + inner
    parents = np.full(root + 1, -1, np.int32)
    for node, mask in enumerate(masks):
        above = (num_taxa + i for i, other in enumerate(inner) if mask & ~other == 0 and num_taxa + i > node)
        parents[node] = next(above, root)
    return ConsensusTree(
        tuple(taxa),
        parents,
        np.where(row < 0, np.nan, table.frequencies[row]),
        None if table.lengths is None else _take(table.lengths, row),
    )


def _as_integer(mask: np.ndarray) -> int:
    """Words of a mask as one Python integer."""
    return sum(int(word) << (64 * w) for w, word in enumerate(mask))


def _check_weights(weights: np.ndarray) -> None:
    if not (np.all(np.isfinite(weights)) and np.all(weights >= 0) and weights.sum() > 0):
        raise ValueError("expected finite weights >= 0 with a positive sum, got others")


def _check_mass(mass: float) -> None:
    if not 0 < mass <= 1:
        raise ValueError(f"expected a mass above 0 and at most 1, got {mass}")
