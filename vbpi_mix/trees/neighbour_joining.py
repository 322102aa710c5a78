"""Neighbour joining, and bootstrap trees made by it: rough trees of an alignment within seconds.

Neighbour joining (Saitou & Nei 1987) joins, again and again, the two of k clusters that minimise
Q_ij = (k - 2) d_ij - sum_l d_il - sum_l d_jl. Where the distances are sums of branch lengths along a tree
with positive inner branches, that tree comes out exactly. Distances of sequences are Jukes-Cantor ones,
d = -3/4 log(1 - 4/3 p) with p the part of the sites at which two sequences differ.

A bootstrap replicate (Felsenstein 1985) draws as many sites as there are, with replacement: multinomial
weights for the patterns.
"""

import numpy as np
from jaxtyping import Float64, Int32, Int64

from vbpi_mix._nucleotides import MISSING
from vbpi_mix.patterns import SitePatterns
from vbpi_mix.shapes import Topologies
from vbpi_mix.trees import _joining_kernels as kernels

MAX_DISTANCE = 3.0
"""Largest distance, in expected substitutions per site: sequences that differ more tell no more than that."""

TIE_BREAK = 1e-7
"""Size of the random numbers that settle which of equally near taxa are joined, against distances of 1."""


def jc69_distances(
    patterns: SitePatterns, weights: Int64[np.ndarray, "pattern"] | None = None
) -> Float64[np.ndarray, "taxon taxon"]:
    """Jukes-Cantor distances of all pairs of taxa, in expected substitutions per site.

    Two taxa are compared at the sites where neither is missing, and differ where their sets of nucleotides
    are disjoint. A pair without such a site gets the mean of what its two taxa are apart from others.

    Args:
        patterns: The data.
        weights: Sites that show each pattern, other than those of `patterns`.
    """
    if weights is None:
        weights = np.rint(patterns.weights).astype(np.int64)
    num_taxa = patterns.num_taxa
    different = np.empty((num_taxa, num_taxa), np.int64)
    compared = np.empty((num_taxa, num_taxa), np.int64)
    kernels.count_differences(patterns.states, weights, MISSING, different, compared)
    is_known = compared > 0
    share = different / np.maximum(compared, 1)
    rest = np.maximum(1 - 4 / 3 * share, np.exp(-4 / 3 * MAX_DISTANCE))
    distances = np.where(is_known, -0.75 * np.log(rest), 0.0)
    if is_known.sum() < num_taxa * (num_taxa - 1):
        _fill_unknown(distances, is_known)
    return distances


def _fill_unknown(distances: np.ndarray, is_known: np.ndarray) -> None:
    """Set the distances of pairs that cannot be compared to the mean of both taxa's mean known distances."""
    num_known = is_known.sum(1)
    mean = distances.sum() / max(1, num_known.sum())
    row_means = np.where(num_known > 0, distances.sum(1) / np.maximum(num_known, 1), mean)
    filled = 0.5 * (row_means[:, None] + row_means[None, :])
    np.fill_diagonal(filled, 0.0)
    np.copyto(distances, filled, where=~is_known)


def neighbour_joining(
    distances: Float64[np.ndarray, "taxon taxon"],
) -> tuple[Int32[np.ndarray, "internal 2"], Float64[np.ndarray, " edge"]]:
    """The neighbour-joining tree of symmetric distances.

    Returns:
        Its canonical topology, and its branch lengths in the distances' unit, which may be negative.

    Raises:
        ValueError: Fewer than three taxa, or a distance is not finite.
    """
    num_taxa = len(distances)
    if num_taxa < 3 or not np.isfinite(distances).all():
        raise ValueError(f"expected finite distances of at least 3 taxa, got {num_taxa} taxa: {distances}")
    children, lengths = np.empty((num_taxa - 2, 2), np.int32), np.empty(2 * num_taxa - 3)
    kernels.join_neighbours(distances.copy(), children, lengths, np.empty(2 * num_taxa - 2, np.int32))
    return children, lengths


def bootstrap_topologies(
    patterns: SitePatterns, num_replicates: int, generator: np.random.Generator
) -> Topologies:
    """Neighbour-joining topologies of bootstrap replicates, canonical, repetitions and all.

    Taxa that are equally near in a replicate, such as those of identical sequences, are joined in random
    order.

    Args:
        patterns: The data, of at least three taxa.
        num_replicates: Number of replicates.
        generator: Source of the random numbers.
    """
    num_taxa, num_sites = patterns.num_taxa, round(patterns.num_sites)
    result = np.empty((num_replicates, num_taxa - 2, 2), np.int32)
    for replicate in range(num_replicates):
        weights = generator.multinomial(num_sites, patterns.weights / patterns.weights.sum())
        distances = jc69_distances(patterns, weights)
        noise = TIE_BREAK * generator.random((num_taxa, num_taxa))
        result[replicate], _ = neighbour_joining(distances + noise + noise.T)
    return result
