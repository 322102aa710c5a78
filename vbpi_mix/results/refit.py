"""Refitting the subsplit networks of a trained mixture to its own importance-corrected draws.

Training follows a noisy gradient; expectation-maximisation on weighted topologies goes straight to the
networks that minimise KL(corrected || q), in about a second. Two candidates are made, because neither is
always the better:

- *averaged*: from the topologies' corrected probabilities, starting at the tables that average over rootings;
- *trained*: from truncated importance weights (Ionides 2008) mixed with a little of the old q, starting at
  the trained tables: it moves less and keeps the tails, for mixtures whose weights are too uneven for the
  first.

Component a of a mixture is fitted to draws weighted by its responsibility q_a / sum_c q_c for them: one
step of expectation-maximisation for the mixture, the branch lengths kept. Both candidates and the mixture
as trained then draw anew, and the highest ten-sample bound wins: so the refit is judged on draws it has not
seen.
"""

from collections.abc import Callable
from enum import Enum

import numpy as np
from jaxtyping import Float64
from scipy.special import logsumexp

from vbpi_mix.results.correction import correct
from vbpi_mix.results.draws import PosteriorDraws
from vbpi_mix.results.evaluation import lower_bound
from vbpi_mix.sbn.em import fit_network, rooting_averaged_logits
from vbpi_mix.sbn.network import SubsplitNetworks
from vbpi_mix.sbn.support import TopologyIndex
from vbpi_mix.training.mixture import Mixture

OLD_SHARE = 0.05
"""Share of the old q in the weights of the candidate *trained*."""

PRIOR_STRENGTH = 1e-3
"""Weight of the old tables as prior counts: every parent keeps its old choices where the draws say little."""

MAX_STEPS = 60
"""Most EM steps of a candidate."""

MAX_WORK = 400_000
"""Most topologies times EM steps of a candidate, a few seconds of work; six steps are done in any case."""

NEGLIGIBLE = 1e-3
"""Weight of the least probable topologies that are left out of a fit, all together."""


class RefitChoice(Enum):
    """Which mixture had the highest bound on fresh draws."""

    UNCHANGED = "unchanged"
    AVERAGED = "averaged"
    TRAINED = "trained"


def refit_mixture(
    mixture: Mixture, draws: PosteriorDraws, redraw: Callable[[Mixture], PosteriorDraws]
) -> tuple[Mixture, RefitChoice]:
    """The mixture with networks refitted to corrected draws, if that raises its ten-sample bound.

    Args:
        mixture: The mixture as trained; not changed.
        draws: Draws from it.
        redraw: Function that draws anew from a mixture: at least ten draws a component, to judge by.

    Returns:
        The mixture of the highest bound, with the branch parameters of the given one, and which it is.
    """
    index = mixture.support.index(draws.topologies, mixture.with_psp)
    candidates = {
        RefitChoice.UNCHANGED: mixture,
        RefitChoice.AVERAGED: _averaged(mixture, draws, index),
        RefitChoice.TRAINED: _continued(mixture, draws, index),
    }
    bounds = {}
    for choice, candidate in candidates.items():
        fresh = redraw(candidate)
        bounds[choice] = lower_bound(fresh.by_component(fresh.log_weights), 10)
    best = max(bounds, key=lambda choice: bounds[choice])
    return candidates[best], best


def truncated_log_weights(log_weights: Float64[np.ndarray, "draw"]) -> Float64[np.ndarray, "draw"]:
    """Log weights cut off at the mean weight times the square root of their number (Ionides 2008)."""
    log_mean = logsumexp(log_weights) - np.log(len(log_weights))
    return np.minimum(log_weights, log_mean + 0.5 * np.log(len(log_weights)))


def _averaged(mixture: Mixture, draws: PosteriorDraws, index: TopologyIndex) -> Mixture:
    """Fit to the corrected posterior from rooting-averaged tables."""
    per_component = _topology_weights(draws, correct(draws).draw_weights)
    starts = [
        rooting_averaged_logits(mixture.support, index, np.ascontiguousarray(weights))
        for weights in per_component
    ]
    return _fitted(mixture, index, per_component, starts)


def _continued(mixture: Mixture, draws: PosteriorDraws, index: TopologyIndex) -> Mixture:
    """Fit to truncated weights and a little of the old q from the trained tables."""
    log_weights = truncated_log_weights(draws.log_weights)
    weights = (1 - OLD_SHARE) * np.exp(log_weights - logsumexp(log_weights)) + OLD_SHARE / draws.num_draws
    return _fitted(mixture, index, _topology_weights(draws, weights), list(mixture.networks.logits))


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
        max_steps = max(6, min(MAX_STEPS, MAX_WORK // len(kept)))
        logits[a] = fit_network(
            mixture.support,
            index.select(kept),
            own[kept],
            start,
            prior_counts=prior_counts,
            max_steps=max_steps,
        ).logits
    return Mixture(SubsplitNetworks.from_logits(mixture.support, logits), mixture.branches)


def _heaviest(weights: Float64[np.ndarray, "unique"]) -> np.ndarray:
    """Indices of the fewest topologies that hold all but a negligible share of the weight."""
    order = np.argsort(-weights, kind="stable")
    cumulated = np.cumsum(weights[order])
    num_kept = 1 + int(np.searchsorted(cumulated, (1 - NEGLIGIBLE) * cumulated[-1]))
    return order[:num_kept]
