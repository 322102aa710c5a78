"""Drawing from a trained mixture, with importance weights."""

import numpy as np
from scipy.special import logsumexp

from vbpi_mix.errors import NonFiniteError
from vbpi_mix.likelihood.base import TreeLikelihood
from vbpi_mix.likelihood.priors import ExponentialBranchPrior, log_topology_prior
from vbpi_mix.results.draws import PosteriorDraws
from vbpi_mix.training.mixture import Mixture, Sampler
from vbpi_mix.trees.topology import unique_topologies

BATCH = 1000
"""Trees of one batch, about: large enough that Python costs nothing, small enough for little memory."""


def draw_posterior(
    mixture: Mixture,
    likelihood: TreeLikelihood,
    branch_prior: ExponentialBranchPrior,
    draws_per_component: int,
    generator: np.random.Generator,
) -> PosteriorDraws:
    """Importance draws from a mixture, the same number from every component.

    Costs one likelihood and A densities a draw.

    Args:
        mixture: What is drawn from.
        likelihood: Likelihood of the data.
        branch_prior: Prior of branch lengths; that of topologies is uniform.
        draws_per_component: Draws from each component.
        generator: Source of all random numbers.

    Raises:
        NonFiniteError: A draw has no finite weight.
    """
    num_components, num_taxa = mixture.num_components, mixture.support.num_taxa
    num_edges, num_draws = 2 * num_taxa - 3, num_components * draws_per_component
    children = np.empty((num_draws, num_taxa - 2, 2), np.int32)
    branch_lengths = np.empty((num_draws, num_edges))
    log_joint = np.empty(num_draws)
    log_topology = np.empty(num_draws)
    log_density = np.empty((num_draws, num_components))
    all_components = np.arange(num_components, dtype=np.int32)
    component = np.tile(all_components, draws_per_component)
    sampler = Sampler(mixture, 0, num_components)
    size = num_components * max(1, BATCH // num_components)
    for start in range(0, num_draws, size):
        batch = slice(start, min(start + size, num_draws))
        num_trees = batch.stop - batch.start
        if num_trees != len(sampler.log_lengths):
            sampler = Sampler(mixture, num_trees, num_components)
        particles = sampler.draw(
            component[batch],
            all_components,
            generator.random((num_trees, num_taxa - 1)),
            generator.standard_normal((num_trees, num_edges)),
        )
        children[batch] = particles.topologies.children
        branch_lengths[batch] = particles.branch_lengths
        log_joint[batch] = likelihood.value(
            particles.topologies.children, particles.branch_lengths
        ) + branch_prior.log_density(particles.log_lengths)
        log_topology[batch] = logsumexp(particles.log_topology, axis=1) - np.log(num_components)
        log_density[batch] = particles.log_topology + particles.log_branches
    log_total = logsumexp(log_density, axis=1)
    log_weights = log_joint + log_topology_prior(num_taxa) - (log_total - np.log(num_components))
    num_bad = np.count_nonzero(~np.isfinite(log_weights))
    if num_bad:
        raise NonFiniteError(
            f"expected finite importance weights, got {num_bad} of {num_draws} that are not, of component(s) "
            f"{np.unique(component[~np.isfinite(log_weights)]).tolist()}: the mixture is not trained well; "
            "train longer or with lower rates"
        )
    distinct, index, _ = unique_topologies(children)
    log_q = np.empty(len(distinct))
    log_q[index] = log_topology
    return PosteriorDraws(
        taxa=mixture.support.taxa,
        topologies=distinct,
        log_q=log_q,
        topology_index=index,
        branch_lengths=branch_lengths,
        log_weights=log_weights,
        component=component,
        responsibilities=np.exp(log_density - log_total[:, None]),
    )
