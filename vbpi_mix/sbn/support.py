"""The support of a subsplit Bayesian network: which subsplits may occur, and tables to look them up.

A *split* of the taxa is numbered 0 .. num_splits-1: split t < n cuts off taxon t, the others follow. Every
split has two *clades*: 2s, the side without the last taxon (for split n-1: the last taxon itself), and its
complement 2s + 1. So a clade's complement is ``clade ^ 1``, and its split ``clade >> 1``.

An internal node of an unrooted topology has three clades around it, a *tripartition*. It holds three
subsplits: number 3t + k splits the complement of the k-th clade of tripartition t into the other two
clades. A *PCSP* is a pair (sister clade, subsplit); its *parent* is (sister, focal), focal being the clade
that the subsplit splits.

*Parameters* are numbered 0 .. P-1: first one for every rootsplit (rootsplit = split, since every branch of
a tree roots it somewhere), then the PCSPs, those of a parent side by side. Parent 0 is the root.

The support holds every rootsplit and PCSP of every rooting of every topology it was built from. It also
holds all topologies that recombine them, which is why a few thousand trees can stand for millions.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Int32, UInt64

from vbpi_mix.errors import OutOfSupportError
from vbpi_mix.sbn import _support_kernels as kernels
from vbpi_mix.shapes import Topologies
from vbpi_mix.trees.topology import clade_masks

ABSENT = -1


class TopologyIndex(NamedTuple):
    """Topologies, looked up in a support.

    Attributes:
        children: [tree, internal, 2].
        parameter_index: Parameters of every directed branch [tree, slot, 3]; see
            `vbpi_mix.sbn._support_kernels`.
        root_index: Parameter of the rootsplit on every branch [tree, edge].
        feature_index: Rows of the branch-length table [tree, edge, 3]: split, PSP below, PSP above.
    """

    children: np.ndarray
    parameter_index: np.ndarray
    root_index: np.ndarray
    feature_index: np.ndarray

    @classmethod
    def empty(cls, num_trees: int, num_taxa: int) -> "TopologyIndex":
        """Uninitialised arrays for a batch of topologies."""
        num_edges = 2 * num_taxa - 3
        return cls(
            np.empty((num_trees, num_taxa - 2, 2), np.int32),
            np.empty((num_trees, 2 * num_edges, 3), np.int32),
            np.empty((num_trees, num_edges), np.int32),
            np.empty((num_trees, num_edges, 3), np.int32),
        )

    def select(self, trees: np.ndarray) -> "TopologyIndex":
        """The same for some of the trees (indices or a mask)."""
        return TopologyIndex(*(part[trees] for part in self))


@dataclass(frozen=True, eq=False)
class Support:
    """Rootsplits and PCSPs of a subsplit Bayesian network, as integer tables.

    Attributes:
        taxa: Taxon names.
        masks: Taxa of clade 2s of every split [split, word], 64 taxa a word.
        tripartitions: Clades around each possible internal node, ascending [tripartition, 3].
        parent_start: First parameter of every parent, and P at the end [parent + 1].
        parent_clades: (sister, focal) of every parent [parent, 2]; -1 for the root.
        parameter_subsplit: Subsplit of every parameter [parameter]; -1 for rootsplits.
        tables: All of this and the look-up tables in the form that the kernels take.
    """

    taxa: tuple[str, ...]
    masks: UInt64[np.ndarray, "split word"]
    tripartitions: Int32[np.ndarray, "tripartition 3"]
    parent_start: Int32[np.ndarray, "parents_and_one"]
    parent_clades: Int32[np.ndarray, "parent 2"]
    parameter_subsplit: Int32[np.ndarray, "parameter"]
    tables: kernels.SupportTables
    _split_of_mask: dict[bytes, int] = field(repr=False)
    _tripartition_hash: tuple[np.ndarray, np.ndarray] = field(repr=False)

    @property
    def num_taxa(self) -> int:
        """Number of taxa, n."""
        return len(self.taxa)

    @property
    def num_splits(self) -> int:
        """Number of splits, which is also the number of rootsplits."""
        return self.masks.shape[0]

    @property
    def num_subsplits(self) -> int:
        """Number of subsplits, which is also the number of primary subsplit pairs."""
        return 3 * self.tripartitions.shape[0]

    @property
    def num_parents(self) -> int:
        """Number of parents, the root included."""
        return self.parent_start.shape[0] - 1

    @property
    def num_parameters(self) -> int:
        """Number of parameters: rootsplits and PCSPs."""
        return self.parameter_subsplit.shape[0]

    def splits_of(self, children: Topologies) -> Int32[np.ndarray, "tree edge"]:
        """Split of every branch of topologies; -1 where the support does not hold it."""
        masks = clade_masks(children)
        num_trees, num_edges = masks.shape[:2]
        rows, inverse = np.unique(_as_bytes(masks), return_inverse=True)
        return self._splits_of_rows(rows)[inverse].reshape(num_trees, num_edges)

    def splits_of_masks(self, masks: UInt64[np.ndarray, "other word"]) -> Int32[np.ndarray, "other"]:
        """Split of every mask, as another support has them; -1 where this one does not hold it."""
        return self._splits_of_rows(_as_bytes(masks))

    def _splits_of_rows(self, rows: np.ndarray) -> np.ndarray:
        """Split of every mask, each one opaque value."""
        return np.array([self._split_of_mask.get(row.tobytes(), ABSENT) for row in rows], np.int32)

    def tripartitions_of(self, children: Topologies, split: np.ndarray) -> Int32[np.ndarray, "tree internal"]:
        """Tripartition of every internal node, given the branches' splits; -1 where the support has none."""
        clades = np.empty((*children.shape[:2], 3), np.int32)
        kernels.node_tripartitions(children, split, clades)
        return self.tripartitions_of_clades(clades.reshape(-1, 3)).reshape(children.shape[:2])

    def tripartitions_of_clades(self, clades: Int32[np.ndarray, "other 3"]) -> Int32[np.ndarray, "other"]:
        """Tripartition of every three clades, ascending; -1 where the support has none, or knows no clade."""
        keys = _tripartition_keys(clades, self.num_splits)
        keys[clades[:, 0] < 0] = 0  # clades 0 and 0 are never neighbours: a key that is absent
        found = np.empty(len(keys), np.int32)
        kernels.find_hashes(keys, *self._tripartition_hash, found)
        return found

    def index(self, children: Topologies, with_psp: bool = True) -> TopologyIndex:
        """Topologies looked up in the support. Those outside get parameters of probability 0, not an error.

        Args:
            children: The topologies, canonical or not.
            with_psp: Whether branch features include primary subsplit pairs; without, those columns hold
                the dummy.
        """
        num_trees = children.shape[0]
        split = self.splits_of(children)
        tripartition = self.tripartitions_of(children, split)
        index = TopologyIndex.empty(num_trees, self.num_taxa)
        index.children[:] = children
        kernels.index_topologies(self.tables, index.children, split, tripartition, with_psp, *index[1:])
        return index


def _as_bytes(masks: np.ndarray) -> np.ndarray:
    """The rows of masks [..., word] as one opaque value each."""
    rows = np.ascontiguousarray(masks).reshape(-1, masks.shape[-1])
    return rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()


def _tripartition_keys(clades: np.ndarray, num_splits: int) -> np.ndarray:
    """A distinct non-negative number for every tripartition: two of its clades settle the third."""
    return clades[..., 0].astype(np.int64) * (2 * num_splits) + clades[..., 1]


def _hash_table(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Open-addressing table from distinct keys to their positions."""
    size = 1 << max(4, int(np.ceil(np.log2(2 * len(keys) + 1))))
    table_key = np.full(size, -1, np.int64)
    table_value = np.full(size, -1, np.int32)
    kernels.build_hash(keys.astype(np.int64), np.arange(len(keys), dtype=np.int32), table_key, table_value)
    return table_key, table_value


def build_support(children: Topologies, taxa: tuple[str, ...]) -> Support:
    """The support holding every rooting of every given topology.

    Args:
        children: Topologies, repetitions allowed; time and memory grow with their number, so pass distinct
            ones.
        taxa: Names of the taxa.

    Raises:
        OutOfSupportError: No topology was given.
        ValueError: The topologies have another number of taxa than `taxa`, or fewer than four.
    """
    num_taxa = len(taxa)
    if children.shape[0] == 0:
        raise OutOfSupportError(
            "a support needs at least one topology, got none: pass a file with trees in it"
        )
    if children.shape[1] != num_taxa - 2 or num_taxa < 4:
        raise ValueError(f"expected topologies of {num_taxa} >= 4 taxa, got {children.shape[1] + 2} taxa")
    masks, split = _number_splits(children, num_taxa)
    num_splits = masks.shape[0]
    clades = np.empty((*children.shape[:2], 3), np.int32)
    kernels.node_tripartitions(children, split, clades)
    keys, first, inverse = np.unique(
        _tripartition_keys(clades, num_splits).ravel(), return_index=True, return_inverse=True
    )
    tripartitions = np.ascontiguousarray(clades.reshape(-1, 3)[first])
    tripartition = inverse.astype(np.int32).reshape(children.shape[:2])
    num_subsplits = 3 * tripartitions.shape[0]

    pairs = np.empty(children.shape[0] * 9 * children.shape[1], np.int64)
    num_pairs = kernels.pcsp_keys(children, split, tripartition, tripartitions, num_subsplits, pairs)
    pairs = np.unique(pairs[:num_pairs])
    focal = (tripartitions ^ 1).ravel()  # of subsplit 3t + k
    sister = np.concatenate(
        [pairs // num_subsplits, focal ^ 1]
    )  # the rest, where the root lies on the focal branch
    subsplit = np.concatenate([pairs % num_subsplits, np.arange(num_subsplits)])
    parent_key = sister * (2 * num_splits) + focal[subsplit]
    order = np.lexsort((subsplit, parent_key))
    sister, subsplit, parent_key = sister[order], subsplit[order], parent_key[order]
    parent_keys, start, pcsp_parent = np.unique(parent_key, return_index=True, return_inverse=True)

    parent_start = np.concatenate([[0], num_splits + start, [num_splits + len(order)]]).astype(np.int32)
    parent_clades = np.concatenate([[[-1, -1]], np.stack(np.divmod(parent_keys, 2 * num_splits), 1)]).astype(
        np.int32
    )
    parameter_parent = np.concatenate([np.zeros(num_splits, int), 1 + pcsp_parent]).astype(np.int32)
    parameter_subsplit = np.concatenate([np.full(num_splits, -1), subsplit]).astype(np.int32)

    is_root_pcsp = sister == focal[subsplit] ^ 1
    subsplit_root_parameter = np.empty(num_subsplits, np.int32)
    subsplit_root_parameter[subsplit[is_root_pcsp]] = num_splits + np.flatnonzero(is_root_pcsp)
    table_key, table_position = _hash_table(sister * num_subsplits + subsplit)
    tables = kernels.SupportTables(
        num_taxa=num_taxa,
        parent_start=parent_start,
        parameter_parent=parameter_parent,
        parameter_subsplit=parameter_subsplit,
        root_child_parent=_root_child_parents(num_taxa, num_splits, parent_keys),
        subsplit_child_parent=_subsplit_child_parents(tripartitions, num_taxa, num_splits, parent_keys),
        subsplit_root_parameter=subsplit_root_parameter,
        tripartitions=tripartitions,
        clade_min_leaf=_smallest_leaves(masks, num_taxa),
        hash_key=table_key,
        hash_value=np.where(table_position >= 0, table_position + num_splits, -1).astype(np.int32),
    )
    return Support(
        taxa=taxa,
        masks=masks,
        tripartitions=tripartitions,
        parent_start=parent_start,
        parent_clades=parent_clades,
        parameter_subsplit=parameter_subsplit,
        tables=tables,
        _split_of_mask={row.tobytes(): s for s, row in enumerate(masks)},
        _tripartition_hash=_hash_table(keys),
    )


def _number_splits(children: np.ndarray, num_taxa: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks of all splits [split, word], and the split of every branch [tree, edge]."""
    masks = clade_masks(children)
    num_trees, num_edges, words = masks.shape
    pendant = masks[0, :num_taxa]
    rows, inverse = np.unique(_as_bytes(masks[:, num_taxa:]), return_inverse=True)
    inner = rows.view(np.uint64).reshape(len(rows), words) if len(rows) else np.empty((0, words), np.uint64)
    split = np.empty((num_trees, num_edges), np.int32)
    split[:, :num_taxa] = np.arange(num_taxa)
    split[:, num_taxa:] = num_taxa + inverse.reshape(num_trees, num_edges - num_taxa)
    return np.concatenate([pendant, inner]), split


def _find_parent(
    sister: np.ndarray, focal: np.ndarray, num_taxa: int, num_splits: int, keys: np.ndarray
) -> np.ndarray:
    """Number of the parent (sister, focal); -1 where the focal clade is a single taxon."""
    parent = 1 + np.searchsorted(keys, sister.astype(np.int64) * (2 * num_splits) + focal)
    is_single = (focal < 2 * num_taxa) & (focal % 2 == 0)
    return np.where(is_single, ABSENT, parent).astype(np.int32)


def _root_child_parents(num_taxa: int, num_splits: int, keys: np.ndarray) -> np.ndarray:
    """Parents opened by every rootsplit [split, 2]: focal clade 2s, then focal clade 2s + 1."""
    low = 2 * np.arange(num_splits)
    return np.stack(
        [
            _find_parent(low + 1, low, num_taxa, num_splits, keys),
            _find_parent(low, low + 1, num_taxa, num_splits, keys),
        ],
        1,
    )


def _subsplit_child_parents(
    tripartitions: np.ndarray, num_taxa: int, num_splits: int, keys: np.ndarray
) -> np.ndarray:
    """Parents opened by every subsplit [subsplit, 2]: its smaller clade focal, then its larger."""
    out = np.empty((len(tripartitions), 3, 2), np.int32)
    for k in range(3):
        a, b = tripartitions[:, [j for j in range(3) if j != k]].T
        out[:, k, 0] = _find_parent(b, a, num_taxa, num_splits, keys)
        out[:, k, 1] = _find_parent(a, b, num_taxa, num_splits, keys)
    return out.reshape(-1, 2)


def _smallest_leaves(masks: np.ndarray, num_taxa: int) -> Int[np.ndarray, "clade"]:
    """Smallest taxon of every clade [clade]."""
    bits = np.unpackbits(np.ascontiguousarray(masks).view(np.uint8), axis=1, bitorder="little")[:, :num_taxa]
    out = np.empty(2 * len(masks), np.int32)
    out[0::2] = bits.argmax(1)
    out[1::2] = (1 - bits).argmax(1)
    return out
