"""Trees for the support without any other program: neighbour joining, then interchanges scored by likelihood.

Neighbour joining on bootstrap replicates alone spans the posterior badly: nearly every replicate has a
topology of its own, and the subsplits of the most likely topologies are often in none. So the replicates'
topologies are where climbs start (`support_search`), and the support is made of all topologies met within
`MAX_LOSS` nats of the best.

The work is limited. Where an alignment is too large for the limit, the replicates' topologies are kept too.
"""

import numpy as np

from vbpi_mix.alignment import Alignment
from vbpi_mix.likelihood.base import make_likelihood
from vbpi_mix.likelihood.models import jc69
from vbpi_mix.patterns import SitePatterns, compress
from vbpi_mix.shapes import Topologies
from vbpi_mix.training.support_search import GoodTopologies, TopologySearch
from vbpi_mix.trees.neighbour_joining import bootstrap_topologies, jc69_distances, neighbour_joining
from vbpi_mix.trees.samples import TreeSample
from vbpi_mix.trees.topology import unique_topologies

NUM_REPLICATES = 120
"""Bootstrap replicates, each the start of a climb."""

NUM_EXPANSIONS = 50
"""Best topologies whose neighbours are looked at after the climbs."""

MAX_LOSS = 20.0
"""Nats below the best log-likelihood within which a topology joins the support."""

TEMPERED_BY = 0.3
"""Power of the likelihood ratio to the best topology that weighs a topology."""

MAX_WORK = 5e9
"""Most evaluations of trees times taxa times patterns: about a minute."""

START_LENGTH = 0.03
"""Length of all branches where a climb starts, in expected substitutions per site."""


def joined_trees(alignment: Alignment, seed: int, threads: int = 1) -> TreeSample:
    """Topologies of high likelihood under JC69, found from neighbour-joining trees of bootstrap replicates.

    Args:
        alignment: At least four taxa, each with data.
        seed: Seed of the replicates; the same seed gives the same trees.
        threads: Threads of the likelihood; the trees do not depend on them.

    Returns:
        The distinct topologies, weighted by their tempered likelihoods, the best at 1.
    """
    patterns = compress(alignment).merge_relabelled()
    generator = np.random.default_rng(seed)
    starts, _, counts = unique_topologies(bootstrap_topologies(patterns, NUM_REPLICATES, generator))
    starts = starts[np.argsort(-counts, kind="stable")]
    good, is_cut = _search(patterns, starts, threads)
    children, weights = good.children, np.exp(TEMPERED_BY * (good.log_likelihoods - good.log_likelihoods[0]))
    if is_cut:
        children, _, _ = unique_topologies(np.concatenate([children, starts]))
        rest = np.full(len(children) - len(weights), np.exp(-TEMPERED_BY * MAX_LOSS))
        weights = np.concatenate([weights, rest])
    source = (
        f"built-in neighbour joining: {NUM_REPLICATES} bootstrap replicates, {good.num_evaluated:,} "
        f"evaluations of interchanges under JC, seed {seed}"
    )
    return TreeSample(alignment.taxa, children, weights, source)


def _search(patterns: SitePatterns, starts: Topologies, threads: int) -> tuple[GoodTopologies, bool]:
    """Good topologies around the neighbour-joining tree and some others; whether the work was cut short."""
    likelihood = make_likelihood(patterns, jc69(), threads=threads)
    max_evaluations = int(MAX_WORK / (patterns.num_taxa * patterns.num_patterns))
    search = TopologySearch(likelihood, patterns.num_sites, max_evaluations)
    search.climb(*neighbour_joining(jc69_distances(patterns)))
    for start in starts:
        if search.is_over:
            break
        search.climb(start, np.full(2 * patterns.num_taxa - 3, START_LENGTH))
    for _ in range(NUM_EXPANSIONS):
        if not search.expand_best():
            break
    return search.good(MAX_LOSS), search.is_over
