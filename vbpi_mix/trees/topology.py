"""Unrooted binary topologies as integer arrays: the data model of the package.

A topology of n >= 3 taxa has n leaves, n - 2 internal nodes and 2n - 3 branches. It is stored as if it hung
from its last leaf:

- Nodes 0 .. n-1 are the leaves, numbered as the taxa. Nodes n .. 2n-3 are internal.
- ``children[i]`` holds the two children of internal node n + i. Children come before parents:
  ``children[i, j] < n + i``. The top node is the last one, 2n - 3; its third neighbour, above it, is leaf
  n - 1. So leaf n - 1 is nobody's child, and every other node but the top is the child of exactly one node.
- Branch e joins node e to its parent, for every node e but two: branch n - 1 joins leaf n - 1 to the top
  node, and there is no branch 2n - 3. So branches, like non-top nodes, are numbered 0 .. 2n-4, and branch
  e < n is the pendant branch of taxon e.

``children`` has shape [internal, 2], or [tree, internal, 2] for a batch, and dtype int32. Branch lengths have
shape [edge] or [tree, edge], dtype float64, in expected substitutions per site.

The *canonical* form orders the two children of a node by the smallest leaf below them, the smaller first, and
numbers internal nodes in post-order (first child's subtree, second child's subtree, node). Two topologies are
equal if and only if their canonical arrays are.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Float64, Int32, Int64, UInt64

from vbpi_mix.shapes import BranchLengths, Topologies
from vbpi_mix.trees import _kernels

CladeMasks: TypeAlias = UInt64[np.ndarray, "tree edge word"]
"""Taxa below every branch, 64 to a word: bit b of word w is taxon 64 w + b."""


@dataclass(frozen=True)
class Tree:
    """One unrooted binary tree.

    Attributes:
        taxa: names, in the order of the leaves' numbers.
        children: topology, [internal, 2].
        branch_lengths: expected substitutions per site, [edge], or None where only the topology is known.
    """

    taxa: tuple[str, ...]
    children: Int32[np.ndarray, "internal 2"]
    branch_lengths: Float64[np.ndarray, " edge"] | None = None

    def __post_init__(self) -> None:
        validate(self.children[None])
        if len(self.taxa) != len(self.children) + 2:
            raise ValueError(
                f"expected {len(self.children) + 2} taxa for {len(self.children)} internal nodes,"
                f" got {len(self.taxa)}"
            )
        if self.branch_lengths is not None and len(self.branch_lengths) != 2 * len(self.taxa) - 3:
            raise ValueError(
                f"expected {2 * len(self.taxa) - 3} branch lengths for {len(self.taxa)} taxa,"
                f" got {len(self.branch_lengths)}"
            )


def validate(children: Topologies) -> None:
    """Check that topologies follow the data model (canonical or not).

    Raises:
        ValueError: naming the first tree and node that breach it.
    """
    if children.shape[1] < 1:
        raise ValueError("expected topologies of at least 3 taxa (one internal node), got none")
    tree, row, kind = _kernels.first_fault(children)
    if kind == 0:
        return
    num_taxa = children.shape[1] + 2
    node, pair = num_taxa + row, children[tree, row].tolist()
    if kind == 1:
        expected = f"children below {node}, not negative and not {num_taxa - 1} (the last leaf)"
    else:
        expected = "children that no earlier node has (and two different ones)"
    raise ValueError(f"tree {tree}, node {node} of {num_taxa} taxa: expected {expected}, got {pair}")


def canonicalise(children: Topologies) -> Topologies:
    """Canonical forms of topologies, [tree, internal, 2]."""
    canonical = np.empty_like(children, order="C")
    _kernels.canonicalise_trees(children, canonical, _empty_nodes(children))
    return canonical


def canonicalise_with_lengths(
    children: Topologies, branch_lengths: BranchLengths
) -> tuple[Topologies, BranchLengths]:
    """Canonical forms of topologies, and their branch lengths moved to the branches' new numbers."""
    canonical, new_nodes = np.empty_like(children, order="C"), _empty_nodes(children)
    _kernels.canonicalise_trees(children, canonical, new_nodes)
    moved = np.empty_like(branch_lengths, order="C")
    _kernels.permute_branch_lengths(branch_lengths, new_nodes, moved)
    return canonical, moved


def _empty_nodes(children: np.ndarray) -> np.ndarray:
    return np.empty((len(children), 2 * children.shape[1] + 2), np.int32)


def parents(children: Topologies) -> Int32[np.ndarray, "tree edge"]:
    """Upper node of every branch, [tree, edge]: the parent of node e; for branch n-1, the top node 2n-3."""
    result = np.empty((len(children), 2 * children.shape[1] + 1), np.int32)
    _kernels.fill_parents(children, result)
    return result


def clade_masks(children: Topologies) -> CladeMasks:
    """Taxa below every branch, [tree, edge, word].

    Bit b of word w is taxon 64 w + b. Branch n-1, above the top node, has the mask of its leaf, {n-1}; no
    other mask contains taxon n-1.
    """
    num_taxa = children.shape[1] + 2
    result = np.zeros((len(children), 2 * num_taxa - 3, (num_taxa + 63) // 64), np.uint64)
    _kernels.fill_clade_masks(children, result)
    return result


def unique_topologies(
    children: Topologies,
) -> tuple[
    Int32[np.ndarray, "distinct internal 2"], Int64[np.ndarray, " tree"], Int64[np.ndarray, " distinct"]
]:
    """Distinct topologies in order of first appearance.

    Returns:
        The canonical topologies, [distinct, internal, 2]; for every input tree the index of its topology,
        [tree]; and how often each occurs, [distinct].
    """
    canonical = canonicalise(children)
    inverse, first = np.empty(len(children), np.int64), np.empty(len(children), np.int64)
    num_distinct = _kernels.group_rows(
        canonical.reshape(len(children), 2 * children.shape[1]), inverse, first
    )
    counts = np.bincount(inverse, minlength=num_distinct).astype(np.int64)
    return canonical[first[:num_distinct]], inverse, counts


def topologies_from_choices(choices: Int64[np.ndarray, "tree steps"]) -> Topologies:
    """Canonical topologies of n taxa made by stepwise addition, n - 3 steps after the first three leaves.

    Every topology comes from exactly one row of choices: step k, counted from 0, has 2k + 3 choices.

    Args:
        choices: branch that each step's leaf is put on, numbered in order of creation, 0 <= choice < 2k + 3.

    Raises:
        ValueError: if a choice is out of range.
    """
    num_branches = 2 * np.arange(choices.shape[1]) + 3
    if np.any((choices < 0) | (choices >= num_branches)):
        raise ValueError(f"expected choices from 0 to below {num_branches.tolist()}, got one outside")
    result = np.empty((len(choices), choices.shape[1] + 1, 2), np.int32)
    _kernels.add_leaves(choices, result)
    return result


def random_topologies(num_taxa: int, num_trees: int, rng: np.random.Generator) -> Topologies:
    """Canonical topologies drawn uniformly from the (2n-5)!! unrooted binary ones, [tree, internal, 2]."""
    if num_taxa < 3:
        raise ValueError(f"expected at least 3 taxa, got {num_taxa}")
    num_branches = 2 * np.arange(num_taxa - 3) + 3
    return topologies_from_choices(rng.integers(0, num_branches, (num_trees, num_taxa - 3)))


def nni_neighbours(children: Int32[np.ndarray, "internal 2"]) -> Topologies:
    """The 2(n-3) topologies one nearest-neighbour interchange away, canonical, [2(n-3), internal, 2].

    Each inner branch joins four subtrees, and either of the two other pairings of the four is a neighbour.
    """
    result = np.empty((2 * (len(children) - 1), len(children), 2), np.int32)
    _kernels.fill_nni_neighbours(children, result)
    return result
