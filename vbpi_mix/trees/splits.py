"""The splits of many topologies, each numbered once.

A split is stored as the mask of its side without the last taxon, as the data model hangs trees from that
taxon; only the last taxon's own pendant branch has the mask of that taxon. So the split of a branch also
stands for the clade below it, and split n - 1 for that of all taxa but the last.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int32, Int64, UInt64

from vbpi_mix.shapes import Topologies
from vbpi_mix.trees._kernels import group_rows
from vbpi_mix.trees.topology import clade_masks

_BLOCK_WORDS = 1 << 24
"""Words of masks that are in memory at a time, about."""


@dataclass(frozen=True)
class SplitIndex:
    """The splits of some topologies: split t < n cuts off taxon t, the inner ones follow by size and mask.

    The numbers depend on which topologies there are, and not on their order.

    Attributes:
        masks: taxa on the side without the last taxon, 64 to a word, [split, word].
        of_branch: split of every branch, [tree, edge].
    """

    masks: UInt64[np.ndarray, "split word"]
    of_branch: Int32[np.ndarray, "tree edge"]

    @property
    def num_taxa(self) -> int:
        """Number of taxa, n."""
        return (self.of_branch.shape[1] + 3) // 2

    @property
    def sizes(self) -> Int64[np.ndarray, " split"]:
        """Number of taxa in every mask."""
        return mask_sizes(self.masks)

    def frequencies(self, weights: Float64[np.ndarray, " tree"]) -> Float64[np.ndarray, " split"]:
        """Weight of the topologies with each split over the weight of all."""
        totals = self.totals(weights)
        return np.minimum(totals / totals[0], 1.0)

    def totals(self, weights: Float64[np.ndarray, " _"]) -> Float64[np.ndarray, " split"]:
        """Summed weight of the first topologies, as many as there are weights, that have each split."""
        branches = self.of_branch[: len(weights)]
        return np.bincount(branches.ravel(), np.repeat(weights, branches.shape[1]), minlength=len(self.masks))


def mask_sizes(masks: UInt64[np.ndarray, "split word"]) -> Int64[np.ndarray, " split"]:
    """Number of taxa in every mask."""
    return np.unpackbits(np.ascontiguousarray(masks).view(np.uint8), axis=1).sum(axis=1, dtype=np.int64)


def index_splits(children: Topologies) -> SplitIndex:
    """Number the splits of topologies.

    Args:
        children: topologies, [tree, internal, 2]; one at least.
    """
    num_trees, num_taxa = len(children), children.shape[1] + 2
    num_edges = 2 * num_taxa - 3
    words = (num_taxa + 63) // 64
    size = max(1, _BLOCK_WORDS // (num_edges * words))
    pendant = clade_masks(children[:1])[0, :num_taxa]
    found = [np.empty((0, words), np.uint64)]
    of_branch = np.empty((num_trees, num_edges), np.int64)
    of_branch[:, :num_taxa] = np.arange(num_taxa)
    num_found = 0
    for start in range(0, num_trees, size):
        block = slice(start, start + size)
        inner = clade_masks(children[block])[:, num_taxa:]
        rows = inner.reshape(inner.shape[0] * inner.shape[1], words)
        number, first = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
        num_distinct = group_rows(rows, number, first)
        of_branch[block, num_taxa:] = number.reshape(inner.shape[:2]) + num_found
        found.append(rows[first[:num_distinct]])
        num_found += num_distinct
    rows = np.concatenate(found)
    number, first = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
    distinct = rows[first[: group_rows(rows, number, first)]]
    order = np.lexsort((*distinct.T, mask_sizes(distinct)))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    of_branch[:, num_taxa:] = num_taxa + rank[number[of_branch[:, num_taxa:]]]
    return SplitIndex(np.concatenate([pendant, distinct[order]]), of_branch.astype(np.int32))


def find_masks(
    masks: UInt64[np.ndarray, "split word"], wanted: UInt64[np.ndarray, "found word"]
) -> Int64[np.ndarray, " found"]:
    """Rows of distinct masks that equal those wanted; -1 where there is none."""
    rows = np.concatenate([masks, wanted])
    number, first = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
    group_rows(rows, number, first)
    row = number[len(masks) :]
    return np.where(row < len(masks), row, -1)
