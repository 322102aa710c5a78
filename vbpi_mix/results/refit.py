"""Refitting a trained mixture to its own importance-corrected draws, without any likelihood.

Training follows a noisy gradient, and leaves branch lengths independent given the topology, and of the
substitution model. Weighted draws mend both. Branch lengths get the correlations that the draws show, with
each other and with a model to estimate (`vbpi_mix.results.correlations`); the density of the latter gets the
mean, covariance and skewness of the draws. For the subsplit networks, expectation-maximisation on weighted
topologies goes straight to the networks that minimise KL(corrected || q). Two candidates are made, because
neither is always the better:

- *averaged*: from the topologies' corrected probabilities, starting at the tables that average over rootings;
- *trained*: from truncated importance weights (Ionides 2008) mixed with a little of the old q, starting at
  the trained tables: it moves less and keeps the tails, for mixtures whose weights are too uneven for the
  first.

Component a of a mixture is fitted to draws weighted by its responsibility q_a / sum_c q_c for them: one
step of expectation-maximisation for the mixture, the branch-length parameters kept. Both candidates are
fitted to one half of the draws and judged on the other by

    sum_i v_i log [q_new(tau_i, b_i) / q_old(tau_i, b_i)],       v the truncated weights, summing to 1,

an estimate of what the candidate takes off KL(posterior || q). With r the responsibilities the ratio is
sum_a r_a q_a,new(tau) / q_a,old(tau). The better candidate, if it gains anything, is fitted again to all.
"""

from enum import Enum

import numpy as np
from jaxtyping import Bool, Float64
from scipy.special import logsumexp

from vbpi_mix.results.correction import correct
from vbpi_mix.results.correlations import INDEPENDENT_DRAWS, Correlations, estimate_correlations
from vbpi_mix.results.draws import PosteriorDraws
from vbpi_mix.sbn.em import fit_network, rooting_averaged_logits
from vbpi_mix.sbn.network import SubsplitNetworks
from vbpi_mix.sbn.support import TopologyIndex
from vbpi_mix.training.coordinate_shapes import fit_shapes
from vbpi_mix.training.mixture import Mixture
from vbpi_mix.training.model_density import ModelDensity

OLD_SHARE = 0.05
"""Share of the old q in the weights of the candidate *trained*."""

PRIOR_STRENGTH = 1e-3
"""Weight of the old tables as prior counts: every parent keeps its old choices where the draws say little."""

MAX_STEPS = 60
"""Most EM steps of a candidate."""

MAX_WORK = 150_000
"""Most topologies times EM steps of a fit, over all components: about a second of work. Six steps are done in
any case, and the more topologies there are, the less further ones gain on held-out draws."""

NEGLIGIBLE = 1e-3
"""Weight of the least probable topologies that are left out of a fit, all together."""


class RefitChoice(Enum):
    """Which subsplit networks were nearest the posterior on held-out draws."""

    UNCHANGED = "unchanged"
    AVERAGED = "averaged"
    TRAINED = "trained"


def refit_mixture(mixture: Mixture, draws: PosteriorDraws) -> tuple[Mixture, Correlations, RefitChoice]:
    """The mixture with networks nearer the posterior, if such are found, and correlations of its branches.

    Args:
        mixture: The mixture that the draws come from; not changed.
        draws: Draws, at least two of every component.

    Returns:
        The mixture, with the branch parameters of the given one and the means and covariances that the draws
        show of a model to estimate; the correlations of branches that they show; and which networks the
        mixture has.
    """
    index = mixture.support.index(draws.topologies, mixture.with_psp)
    weights = _truncated_weights(draws.log_weights)
    if mixture.model is not None and draws.coordinates is not None:
        model = _fitted_model(mixture.model, draws, draws.coordinates, weights)
        mixture = Mixture(mixture.networks, mixture.branches, model)
    correlations = estimate_correlations(mixture, draws, index, weights)
    in_second_half = (np.arange(draws.num_draws) // draws.num_components) % 2 == 1
    first, first_index = _subset(draws, index, ~in_second_half)
    second, second_index = _subset(draws, index, in_second_half)
    gains = {
        choice: _gain(mixture, _fit(mixture, first, first_index, choice), second, second_index)
        for choice in RefitChoice
    }
    best = max(gains, key=lambda choice: gains[choice])
    return _fit(mixture, draws, index, best), correlations, best


def truncated_log_weights(log_weights: Float64[np.ndarray, "draw"]) -> Float64[np.ndarray, "draw"]:
    """Log weights cut off at the mean weight times the square root of their number (Ionides 2008)."""
    log_mean = logsumexp(log_weights) - np.log(len(log_weights))
    return np.minimum(log_weights, log_mean + 0.5 * np.log(len(log_weights)))


def _truncated_weights(log_weights: Float64[np.ndarray, "draw"]) -> Float64[np.ndarray, "draw"]:
    """Truncated weights, normalised."""
    truncated = truncated_log_weights(log_weights)
    return np.exp(truncated - logsumexp(truncated))


def _fitted_model(
    model: ModelDensity,
    draws: PosteriorDraws,
    coordinates: Float64[np.ndarray, "draw coordinate"],
    weights: Float64[np.ndarray, "draw"],
) -> ModelDensity:
    """Densities of the draws' models for every component, moments shrunk towards those of the mixture."""
    mean, factor = model.mean.copy(), model.factor()
    covariance = factor @ factor.transpose(0, 2, 1)
    for a in range(draws.num_components):
        own = weights * draws.responsibilities[:, a]
        total, total_of_squares = own.sum(), (own**2).sum()
        if total_of_squares > 0.0:
            share = 1.0 / (1.0 + INDEPENDENT_DRAWS * total_of_squares / total**2)
            own /= total
            own_mean = own @ coordinates
            centred = coordinates - own_mean
            covariance[a] += share * ((own[:, None] * centred).T @ centred - covariance[a])
            mean[a] += share * (own_mean - mean[a])
    fitted = ModelDensity.of_moments(mean, covariance)
    shapes = [
        fit_shapes(fitted.standardise(coordinates, a), weights * draws.responsibilities[:, a])
        for a in range(draws.num_components)
    ]
    return ModelDensity(fitted.table, np.stack(shapes))


def _subset(
    draws: PosteriorDraws, index: TopologyIndex, chosen: Bool[np.ndarray, "draw"]
) -> tuple[PosteriorDraws, TopologyIndex]:
    """Some of the draws, the same number of every component, and their topologies' index."""
    kept, position = np.unique(draws.topology_index[chosen], return_inverse=True)
    subset = PosteriorDraws(
        taxa=draws.taxa,
        topologies=draws.topologies[kept],
        log_q=draws.log_q[kept],
        topology_index=position,
        branch_lengths=draws.branch_lengths[chosen],
        log_weights=draws.log_weights[chosen],
        component=draws.component[chosen],
        responsibilities=draws.responsibilities[chosen],
    )
    return subset, index.select(kept)


def _gain(mixture: Mixture, candidate: Mixture, draws: PosteriorDraws, index: TopologyIndex) -> float:
    """Nats that a candidate takes off KL(posterior || mixture), estimated from draws of the mixture."""
    change = candidate.networks.log_probability(index) - mixture.networks.log_probability(index)
    with np.errstate(divide="ignore"):  # a component may have nothing to do with a draw
        log_ratio = logsumexp(change[draws.topology_index] + np.log(draws.responsibilities), axis=1)
    return float(_truncated_weights(draws.log_weights) @ log_ratio)


def _fit(mixture: Mixture, draws: PosteriorDraws, index: TopologyIndex, choice: RefitChoice) -> Mixture:
    """A candidate, fitted to draws, whose distinct topologies `index` has."""
    match choice:
        case RefitChoice.UNCHANGED:
            return mixture
        case RefitChoice.AVERAGED:
            per_component = _topology_weights(draws, correct(draws).draw_weights)
            starts = [
                rooting_averaged_logits(mixture.support, index, np.ascontiguousarray(weights))
                for weights in per_component
            ]
        case RefitChoice.TRAINED:
            weights = _truncated_weights(draws.log_weights)
            weights = (1 - OLD_SHARE) * weights + OLD_SHARE / len(weights)
            per_component = _topology_weights(draws, weights)
            starts = list(mixture.networks.logits)
    return _fitted(mixture, index, per_component, starts)


def _topology_weights(
    draws: PosteriorDraws, weights: Float64[np.ndarray, "draw"]
) -> Float64[np.ndarray, "component unique"]:
    """Weights of the distinct topologies for every component: draws' weights times responsibilities."""
    return np.stack(
        [
            np.bincount(
                draws.topology_index, weights * draws.responsibilities[:, a], minlength=len(draws.topologies)
            )
            for a in range(draws.num_components)
        ]
    )


def _fitted(
    mixture: Mixture,
    index: TopologyIndex,
    weights: Float64[np.ndarray, "component unique"],
    starts: list[np.ndarray],
) -> Mixture:
    """The mixture with the network of every component fitted to its topology weights."""
    logits = np.empty_like(mixture.networks.logits)
    for a, (own, start) in enumerate(zip(weights, starts, strict=True)):
        kept = _heaviest(own)
        prior_counts = PRIOR_STRENGTH * mixture.networks.q[a, :-2]
        max_steps = max(6, min(MAX_STEPS, MAX_WORK // (len(kept) * len(weights))))
        logits[a] = fit_network(
            mixture.support,
            index.select(kept),
            own[kept],
            start,
            prior_counts=prior_counts,
            max_steps=max_steps,
        ).logits
    return Mixture(SubsplitNetworks.from_logits(mixture.support, logits), mixture.branches, mixture.model)


def _heaviest(weights: Float64[np.ndarray, "unique"]) -> np.ndarray:
    """Indices of the fewest topologies that hold all but a negligible share of the weight."""
    order = np.argsort(-weights, kind="stable")
    cumulated = np.cumsum(weights[order])
    num_kept = 1 + int(np.searchsorted(cumulated, (1 - NEGLIGIBLE) * cumulated[-1]))
    return order[:num_kept]
