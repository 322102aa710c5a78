"""Taxa without data in the support: kept out of the making of trees, then put on every branch.

The data say nothing about where such a taxon belongs: every branch of every tree is about as probable as it
is long. So the heaviest topologies get it on each of their branches in turn, and where they are too many the
others get it on a random one; the support recombines them.
"""

import numpy as np

from vbpi_mix._nucleotides import MISSING
from vbpi_mix.alignment import Alignment
from vbpi_mix.trees.grafting import graft_leaf
from vbpi_mix.trees.newick import LabelTable, TreeText, newick_texts, parse_batch
from vbpi_mix.trees.samples import TreeSample

MIN_TAXA = 4
"""Fewest taxa that trees are made of: taxa without data make up for those that lack."""

MAX_GRAFTED = 20_000
"""Topologies of the support beyond which the lighter ones get a taxon on one branch only."""


def taxa_without_data(alignment: Alignment) -> list[str]:
    """Names of the taxa whose sequences are missing altogether."""
    is_empty = (alignment.states == MISSING).all(axis=1)
    return [taxon for taxon, empty in zip(alignment.taxa, is_empty, strict=True) if empty]


def without_empty_taxa(alignment: Alignment) -> Alignment:
    """The alignment of the taxa that have data, and of as many others as make it `MIN_TAXA`."""
    empty = taxa_without_data(alignment)
    num_kept = max(0, MIN_TAXA - (alignment.num_taxa - len(empty)))
    left_out = set(empty[num_kept:])
    if not left_out:
        return alignment
    kept = [i for i, taxon in enumerate(alignment.taxa) if taxon not in left_out]
    return Alignment(tuple(alignment.taxa[i] for i in kept), alignment.states[kept], alignment.source)


def graft_taxa(sample: TreeSample, taxa: tuple[str, ...], generator: np.random.Generator) -> TreeSample:
    """A sample with all taxa from one that lacks some.

    Args:
        sample: Topologies, the heaviest first. Each shares its weight among those made of it.
        taxa: All taxa, in the order wanted.
        generator: Source of random branches.
    """
    lacking = [taxon for taxon in taxa if taxon not in sample.taxa]
    children, weights, order = sample.children, sample.weights, list(sample.taxa)
    for taxon in lacking:
        num_edges = 2 * len(order) - 3
        num_full = max(0, MAX_GRAFTED - len(children)) // (num_edges - 1)
        copies = np.where(np.arange(len(children)) < num_full, num_edges, 1)
        tree_index = np.repeat(np.arange(len(children)), copies)
        edge = generator.integers(0, num_edges, len(tree_index))
        is_full = copies[tree_index] == num_edges
        edge[is_full] = np.tile(np.arange(num_edges), is_full.sum() // num_edges)
        children, weights = graft_leaf(children, tree_index, edge), (weights / copies)[tree_index]
        order.insert(-1, taxon)
    heaviest_first = np.argsort(-weights, kind="stable")
    source = sample.source + (f"; {', '.join(lacking)} without data on every branch" if lacking else "")
    return TreeSample(
        taxa, _reordered(children, order, taxa)[heaviest_first], weights[heaviest_first], source
    )


def _reordered(children: np.ndarray, order: list[str], taxa: tuple[str, ...]) -> np.ndarray:
    """Topologies whose leaves are numbered as in `order`, numbered as in `taxa`."""
    if tuple(order) == taxa:
        return children
    labels = [str(taxa.index(taxon)) for taxon in order]
    text = TreeText.from_newick("\n".join(newick_texts(children, None, labels)).encode(), "grafted trees")
    numbers = LabelTable.from_labels(taxa, {str(i): i for i in range(len(taxa))})
    return parse_batch(text, numbers)[0]
