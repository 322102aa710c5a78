"""Drawing from a trained mixture, with importance weights."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy.special import logsumexp

from vbpi_mix.branches import _kernels as branch_kernels
from vbpi_mix.errors import NonFiniteError
from vbpi_mix.likelihood.estimated import AnyLikelihood, EstimatedModelLikelihood
from vbpi_mix.likelihood.priors import ExponentialBranchPrior, log_topology_prior
from vbpi_mix.results import _correlation_kernels as correlation_kernels
from vbpi_mix.results.correction import UndrawnTopologies
from vbpi_mix.results.correlations import Correlations, branches_around, model_noise
from vbpi_mix.results.diagnostics import effective_sample_size
from vbpi_mix.results.draws import PosteriorDraws
from vbpi_mix.sbn._support_kernels import index_topologies
from vbpi_mix.sbn.network import draw_topologies
from vbpi_mix.sbn.support import TopologyIndex
from vbpi_mix.training.mixture import Mixture
from vbpi_mix.trees.topology import unique_topologies

BATCH = 1000
"""Trees of one batch, about: large enough that Python costs nothing, small enough for little memory."""

GROUP = 5
"""Batches between two looks at whether there are draws enough."""


def draw_posterior(
    mixture: Mixture,
    likelihood: AnyLikelihood,
    branch_prior: ExponentialBranchPrior,
    draws_per_component: int,
    generator: np.random.Generator,
    correlations: Correlations | None = None,
    threads: int = 1,
    enough_ess: float | None = None,
) -> PosteriorDraws:
    """Importance draws from a mixture, the same number from every component.

    Costs one likelihood and A densities a draw. The draws do not depend on the number of threads: every
    batch has random numbers of its own. Where fewer are enough, they are the first of them.

    Args:
        mixture: What is drawn from.
        likelihood: Likelihood of the data; under a model with free parameters where the mixture has them.
        branch_prior: Prior of branch lengths; that of topologies is uniform.
        draws_per_component: Draws from each component.
        generator: Source of all random numbers.
        correlations: Correlations of the branch lengths given the topology; None: they are independent.
        threads: Threads that propose trees; the likelihood has its own.
        enough_ess: Effective sample size at which to stop earlier, looked at every `GROUP` batches.

    Raises:
        NonFiniteError: A draw has no finite weight.
    """
    num_components, num_taxa = mixture.num_components, mixture.support.num_taxa
    num_draws = num_components * draws_per_component
    if correlations is None:
        correlations = Correlations.none(mixture)
    children = np.empty((num_draws, num_taxa - 2, 2), np.int32)
    log_lengths = np.empty((num_draws, 2 * num_taxa - 3))
    log_topology = np.empty((num_draws, num_components))
    log_branches = np.empty((num_draws, num_components))
    log_model = np.zeros((num_draws, num_components))
    coordinates = np.empty((num_draws, mixture.num_coordinates))
    component = np.tile(np.arange(num_components, dtype=np.int32), draws_per_component)
    size = num_components * max(1, BATCH // num_components)
    batches = [slice(start, min(start + size, num_draws)) for start in range(0, num_draws, size)]

    def propose(batch: slice, seed: np.ndarray) -> None:
        """Draw the trees of one batch, with their densities."""
        _propose(
            mixture,
            correlations,
            component[batch],
            np.random.default_rng(seed),
            children[batch],
            log_lengths[batch],
            log_topology[batch],
            log_branches[batch],
            log_model[batch],
            coordinates[batch],
        )

    transform = likelihood.transform if isinstance(likelihood, EstimatedModelLikelihood) else None

    seeds = generator.integers(2**63, size=(len(batches), 2))
    log_likelihood, log_prior, log_total, log_weights = np.empty((4, num_draws))
    drawn = slice(0, 0)
    with ThreadPoolExecutor(threads) as pool:
        for first in range(0, len(batches), GROUP):
            group = batches[first : first + GROUP]
            list(pool.map(propose, group, seeds[first : first + GROUP]))
            for batch in group:
                models = () if transform is None else (coordinates[batch],)
                log_likelihood[batch] = likelihood.value(children[batch], np.exp(log_lengths[batch]), *models)
            new, drawn = slice(drawn.stop, group[-1].stop), slice(0, group[-1].stop)
            log_prior[new] = branch_prior.log_density(log_lengths[new]) + log_topology_prior(num_taxa)
            if transform is not None:
                log_prior[new] += transform.log_prior(coordinates[new])
            log_total[new] = logsumexp(log_topology[new] + log_branches[new] + log_model[new], axis=1)
            log_weights[new] = (
                log_prior[new] + log_likelihood[new] - (log_total[new] - np.log(num_components))
            )
            if enough_ess is not None and effective_sample_size(log_weights[drawn]) >= enough_ess:
                break
    children, log_lengths, component = children[drawn], log_lengths[drawn], component[drawn]
    coordinates, log_topology = coordinates[drawn], log_topology[drawn]
    log_density = log_topology + log_branches[drawn] + log_model[drawn]
    log_likelihood, log_prior = log_likelihood[drawn], log_prior[drawn]
    log_total, log_weights = log_total[drawn], log_weights[drawn]
    branch_lengths = np.exp(log_lengths)
    # The prior is a density of log branch lengths, that of a trace of branch lengths; likewise of models.
    traces = {"LnL": log_likelihood, "LnPr": log_prior - log_lengths.sum(axis=1)}
    names: tuple[str, ...] = ()
    if transform is not None:
        names = transform.parameter_names
        traces["LnPr"] -= transform.log_jacobian(coordinates)
        traces |= zip(names, transform.named_parameters(coordinates).T, strict=True)
    num_bad = np.count_nonzero(~np.isfinite(log_weights))
    if num_bad:
        raise NonFiniteError(
            f"expected finite importance weights, got {num_bad} of {len(log_weights)} that are not, "
            f"of component(s) {np.unique(component[~np.isfinite(log_weights)]).tolist()}: the mixture is not "
            "trained well; train longer or with lower rates"
        )
    distinct, index, _ = unique_topologies(children)
    log_q = np.empty(len(distinct))
    log_q[index] = logsumexp(log_topology, axis=1) - np.log(num_components)
    return PosteriorDraws(
        taxa=mixture.support.taxa,
        topologies=distinct,
        log_q=log_q,
        topology_index=index,
        branch_lengths=branch_lengths,
        log_weights=log_weights,
        component=component,
        responsibilities=np.exp(log_density - log_total[:, None]),
        traces=traces,
        model_parameters=names,
        coordinates=coordinates if mixture.model is not None else None,
    )


def find_undrawn(
    mixture: Mixture, draws: PosteriorDraws, draws_per_component: int, generator: np.random.Generator
) -> UndrawnTopologies:
    """Topologies of a mixture that its importance draws lack, found by drawing topologies alone.

    Args:
        mixture: The mixture that the draws come from.
        draws: Importance draws.
        draws_per_component: Topologies to draw from each component; they cost no likelihood.
        generator: Source of all random numbers.
    """
    component = np.tile(np.arange(mixture.num_components, dtype=np.int32), draws_per_component)
    both = np.concatenate([draws.topologies, mixture.networks.sample(component, generator)])
    topologies = unique_topologies(both)[0][len(draws.topologies) :]  # in order of first appearance
    return UndrawnTopologies(topologies, mixture.networks.log_mixture_probability_of(topologies))


def _propose(
    mixture: Mixture,
    correlations: Correlations,
    component_of_tree: np.ndarray,
    generator: np.random.Generator,
    children: np.ndarray,
    log_lengths: np.ndarray,
    log_topology: np.ndarray,
    log_branches: np.ndarray,
    log_model: np.ndarray,
    coordinates: np.ndarray,
) -> None:
    """Draw trees from the given components and write them and their densities to the arrays that follow.

    Those are [tree, internal, 2], [tree, edge], three times [tree, component], and [tree, coordinate].
    """
    support, networks, branches = mixture.support, mixture.networks, mixture.branches
    num_trees, num_edges = log_lengths.shape
    drawn = draw_topologies(
        support, networks.q, component_of_tree, generator.random((num_trees, support.num_taxa - 1))
    )
    children[:] = drawn.children
    index = TopologyIndex.empty(num_trees, support.num_taxa)
    index.children[:] = drawn.children
    index_topologies(support.tables, *drawn, mixture.with_psp, *index[1:])
    log_topology[:] = networks.log_probability(index)
    noise = generator.standard_normal((num_trees, num_edges))
    of_model = np.empty((0, num_trees, num_edges))
    if mixture.model is not None:
        every = np.arange(mixture.num_components, dtype=np.int32)
        models = mixture.model.draw(component_of_tree, every, generator.standard_normal(coordinates.shape))
        coordinates[:], log_model[:] = models.coordinates, models.log_density
        of_model = np.stack(
            [
                model_noise(drawn.split, slopes, models.normal[:, a])
                for a, slopes in enumerate(correlations.slopes)
            ]
        )
    if not correlations.are_none:
        around = branches_around(support, *drawn)
        correlation_kernels.correlate(
            component_of_tree, drawn.tripartition, around, correlations.values, noise
        )
        correlation_kernels.add_shifts(
            component_of_tree, index.children, index.parameter_index, correlations.shifts, noise
        )
        if len(of_model):
            noise += of_model[component_of_tree, np.arange(num_trees)]
    work = branch_kernels.make_work(num_edges)
    branch_kernels.draw(
        branches.table, index.feature_index, component_of_tree, noise, branches.is_skewed, work, log_lengths
    )
    branch_kernels.log_density(
        branches.table, index.feature_index, log_lengths, np.arange(mixture.num_components, dtype=np.int32),
        branches.is_skewed, work, log_branches,
    )  # fmt: skip
    if not correlations.are_none:
        log_ratio = np.empty_like(log_branches)
        correlation_kernels.log_ratio(
            branches.table, index.feature_index, log_lengths, branches.is_skewed, drawn.tripartition, around,
            index.children, index.parameter_index, correlations.shifts, of_model, correlations.precision,
            work, log_ratio,
        )  # fmt: skip
        log_branches += log_ratio
