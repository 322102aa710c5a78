"""Conditional clade distributions of weighted unrooted topologies (Larget 2013, *Systematic Biology* 62:501).

Hung from a leaf, a topology is a rooted tree of the other taxa: its clades C split into pairs of clades. With
f(C) the posterior probability of a clade and f(C1, C2) that of a subsplit,

    P(tau) = prod over internal nodes of  f(C1, C2) / f(C).

Seen without the root, f(C) is the probability of a branch's split, and f(C1, C2) that of the three clades
around a node (its tripartition), so that

    P(tau) = prod over nodes f(tripartition) / prod over inner branches f(split),

in which no leaf is special: the distribution does not depend on the leaf that trees hang from. It holds all
topologies that recombine the given subsplits, has the given splits' and tripartitions' frequencies, and
differs from the subsplit Bayesian networks of `vbpi_mix.sbn` in that these condition on the sister clade too
and sum over rootings.

Recursions over clades, from small to large, with c = f(C1, C2) / f(C), give exactly its entropy
(Lewis et al. 2016, *Systematic Biology* 65:1009), the number of topologies in it, and its most probable one:

    H(C) = sum c (H(C1) + H(C2) - log c),   N(C) = sum N(C1) N(C2),   M(C) = max c M(C1) M(C2).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int32

from vbpi_mix.shapes import Topologies
from vbpi_mix.trees import _ccd_kernels
from vbpi_mix.trees._kernels import group_rows
from vbpi_mix.trees.splits import SplitIndex, index_splits
from vbpi_mix.trees.topology import canonicalise


@dataclass(frozen=True)
class ConditionalCladeDistribution:
    """A conditional clade distribution, and what the recursions find of it; all logarithms in nats.

    Attributes:
        splits: splits of the topologies that it was made from.
        frequencies: probability of each split.
        log_probabilities: log probability under the distribution of each of those topologies.
        entropy: entropy of the distribution.
        log_num_topologies: log of the number of topologies with a positive probability.
        map_topology: most probable topology, canonical; it need not be one of those.
        map_log_probability: its log probability.
    """

    splits: SplitIndex
    frequencies: Float64[np.ndarray, " split"]
    log_probabilities: Float64[np.ndarray, " tree"]
    entropy: float
    log_num_topologies: float
    map_topology: Int32[np.ndarray, "internal 2"]
    map_log_probability: float

    @property
    def log_clade_credibilities(self) -> Float64[np.ndarray, " tree"]:
        """Log of the product of each topology's split probabilities."""
        with np.errstate(divide="ignore"):
            return np.log(self.frequencies)[self.splits.of_branch].sum(axis=1)


def conditional_clade_distribution(
    children: Topologies, weights: Float64[np.ndarray, " tree"]
) -> ConditionalCladeDistribution:
    """The conditional clade distribution of weighted topologies.

    Args:
        children: topologies, [tree, internal, 2].
        weights: non-negative weights with a positive sum, not normalised.

    Raises:
        ValueError: if the weights are others.
    """
    if not (np.all(np.isfinite(weights)) and np.all(weights >= 0) and weights.sum() > 0):
        raise ValueError("expected finite weights >= 0 with a positive sum, got others")
    index = index_splits(children)
    num_trees, num_internal = children.shape[:2]
    num_taxa, num_splits = num_internal + 2, len(index.masks)
    of_node = np.empty((num_trees, num_internal, 3), np.int32)
    _ccd_kernels.fill_subsplits(children, index.of_branch, of_node)
    rows = of_node.reshape(num_trees * num_internal, 3)
    number, first = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
    subsplits = rows[first[: group_rows(rows, number, first)]]
    totals = np.bincount(number, np.repeat(weights, num_internal), minlength=len(subsplits))
    sizes = index.sizes
    sizes[num_taxa - 1] = num_taxa - 1  # as a clade it is all taxa but the last
    with np.errstate(divide="ignore", invalid="ignore"):
        of_split = index.totals(weights)
        log_conditional = np.log(totals) - np.log(of_split[subsplits[:, 0]])
    log_conditional[totals == 0] = -np.inf
    # Small parents first; then in an order that does not depend on that of the trees, which settles ties.
    order = np.lexsort((subsplits[:, 1], subsplits[:, 0], sizes[subsplits[:, 0]]))
    entropy = np.zeros(num_splits)
    log_count, log_best = np.full(num_splits, -np.inf), np.full(num_splits, -np.inf)
    log_count[: num_taxa - 1] = log_best[: num_taxa - 1] = 0.0
    best = np.full(num_splits, -1, np.int64)
    ordered = subsplits[order]
    _ccd_kernels.recurse(ordered, log_conditional[order], entropy, log_count, log_best, best)
    whole = num_taxa - 1
    return ConditionalCladeDistribution(
        splits=index,
        frequencies=index.frequencies(weights),
        log_probabilities=log_conditional[number].reshape(num_trees, num_internal).sum(axis=1),
        entropy=float(entropy[whole]),
        log_num_topologies=float(log_count[whole]),
        map_topology=_topology(ordered, best, sizes, num_taxa),
        map_log_probability=float(log_best[whole]),
    )


def _topology(
    subsplits: np.ndarray, best: np.ndarray, sizes: np.ndarray, num_taxa: int
) -> Int32[np.ndarray, "internal 2"]:
    """Canonical topology that the best subsplits make of the clade of all taxa but the last."""
    chosen, pending = [], [num_taxa - 1]
    while pending:
        parent, first, second = (int(x) for x in subsplits[best[pending.pop()]])
        chosen.append((parent, first, second))
        pending += [part for part in (first, second) if part >= num_taxa]
    chosen.sort(key=lambda row: int(sizes[row[0]]))
    node_of = {row[0]: num_taxa + i for i, row in enumerate(chosen)}
    nodes = [[node_of.get(part, part) for part in row[1:]] for row in chosen]
    return canonicalise(np.array(nodes, np.int32)[None])[0]
