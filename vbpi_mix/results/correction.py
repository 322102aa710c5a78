"""Importance correction: from draws of q to the posterior.

Weights with the mixture in the denominator turn draws of q into a consistent estimate of the posterior. Two
estimates of a topology's posterior probability follow (N draws, w = exp f):

- self-normalised: ``p(tau) = sum_{i: tau_i = tau} w_i / sum_i w_i``;
- Rao-Blackwellised: ``p(tau)`` proportional to ``q(tau) r(tau)``, r the mean weight of the topology's draws
  relative to that of all. Since E_q[w | tau] = p(tau, Y) / q(tau), only the weights are random; how often
  tau was drawn no longer matters.

In the second, the mean weight m of n draws is a noisy estimate of r, with relative variance c^2 / n, while
over topologies r itself scatters about 1, the better q is the less. So r is shrunk towards 1 by the best
linear (empirical Bayes) predictor,

    r = 1 + B (m - 1),        B = t^2 / (t^2 + c^2 / n),

c^2 the relative variance of weights within topologies, and t^2 the variance of r over topologies, both
estimated from the topologies with at least ``MIN_REPEATS`` draws. B tends to 1 with n, so the estimate stays
consistent. Topologies that q holds but that no draw has, if given, get r = 1.

It is normalised over the topologies that are known, and so leaves out what q holds elsewhere: its clade
probabilities are biased by up to that mass, towards the more probable topologies. Where most topologies are
drawn once it weights by q twice. `correct` therefore uses it only where the drawn topologies hold at least
``MIN_DRAWN_MASS`` of q.

Either way every draw gets a weight that is consistent with the topology probabilities,

    v_i proportional to p(tau_i) * w_i / sum_{j: tau_j = tau_i} w_j,

so that topology, clade and branch-length summaries and the resampled draws all describe one posterior.
"""

from dataclasses import dataclass
from enum import Enum
from functools import cached_property

import numpy as np
from jaxtyping import Float64, Int, Int32
from scipy.special import logsumexp

from vbpi_mix.results.draws import PosteriorDraws
from vbpi_mix.trees.ccd import ConditionalCladeDistribution, conditional_clade_distribution

MIN_DRAWN_MASS = 0.97
"""Least probability under q of the drawn topologies, for the Rao-Blackwellised estimate to be used.

Measured against reference posteriors (DS1, DS4, DS5; 300 to 100,000 draws): it is nearer in topology
probabilities throughout, but in split probabilities only from about this mass on; below it is up to twice
as far off.
"""


MIN_REPEATS = 20
"""Draws of a topology from which on it counts for the variances that decide about shrinking."""


class CorrectionMethod(Enum):
    """How the posterior probabilities of topologies were estimated."""

    SELF_NORMALISED = "self-normalised"
    RAO_BLACKWELLISED = "rao-blackwellised"


@dataclass(frozen=True)
class UndrawnTopologies:
    """Topologies that q holds and no importance draw has.

    Attributes:
        topologies: Distinct canonical topologies, none of them drawn.
        log_q: Exact log probability of each under the mixture, in nats.
    """

    topologies: Int32[np.ndarray, "undrawn internal 2"]
    log_q: Float64[np.ndarray, "undrawn"]


@dataclass(frozen=True)
class CorrectedPosterior:
    """An importance-corrected posterior.

    Attributes:
        method: How it was estimated.
        drawn_mass: Exact probability under q of the topologies drawn.
        topologies: Distinct canonical topologies: those of the draws in their order, then undrawn ones.
        log_topology_probabilities: Log posterior probability of each; normalised.
        log_draw_weights: Log weight of each draw; normalised. Within every drawn topology they sum to its
            probability over that of all drawn ones.
    """

    method: CorrectionMethod
    drawn_mass: float
    topologies: Int32[np.ndarray, "topology internal 2"]
    log_topology_probabilities: Float64[np.ndarray, "topology"]
    log_draw_weights: Float64[np.ndarray, "draw"]

    @property
    def topology_probabilities(self) -> Float64[np.ndarray, "topology"]:
        """Posterior probability of each topology; sums to 1."""
        return np.exp(self.log_topology_probabilities)

    @property
    def draw_weights(self) -> Float64[np.ndarray, "draw"]:
        """Weight of each draw; sums to 1."""
        return np.exp(self.log_draw_weights)

    @cached_property
    def ccd(self) -> ConditionalCladeDistribution:
        """Conditional clade distribution of the topologies."""
        return conditional_clade_distribution(self.topologies, self.topology_probabilities)


def choose_method(draws: PosteriorDraws) -> CorrectionMethod:
    """Rao-Blackwellised where the drawn topologies hold ``MIN_DRAWN_MASS`` of q, else self-normalised."""
    if np.exp(logsumexp(draws.log_q)) >= MIN_DRAWN_MASS:
        return CorrectionMethod.RAO_BLACKWELLISED
    return CorrectionMethod.SELF_NORMALISED


def correct(
    draws: PosteriorDraws,
    method: CorrectionMethod | None = None,
    log_weights: Float64[np.ndarray, "draw"] | None = None,
    undrawn: UndrawnTopologies | None = None,
) -> CorrectedPosterior:
    """Importance-corrected posterior over the topologies drawn, and others if given.

    Args:
        draws: Importance draws.
        method: The estimate to use; by default the one that `choose_method` names.
        log_weights: Other weights than the draws' own, with any constant added: Pareto-smoothed ones, for
            instance.
        undrawn: Further topologies; only the Rao-Blackwellised estimate gives them any probability.

    Returns:
        Probabilities of the topologies and weights of the draws, each summing to 1.
    """
    method = choose_method(draws) if method is None else method
    log_weights = draws.log_weights if log_weights is None else log_weights
    log_totals = log_sum_by_topology(log_weights, draws.topology_index, len(draws.topologies))
    topologies = draws.topologies
    match method:
        case CorrectionMethod.SELF_NORMALISED:
            log_probabilities = log_totals
        case CorrectionMethod.RAO_BLACKWELLISED:
            log_relative = log_weights - (logsumexp(log_weights) - np.log(draws.num_draws))
            log_probabilities = draws.log_q + np.log(_shrunk_ratios(log_relative, draws.topology_index))
            if undrawn is not None:
                topologies = np.concatenate([topologies, undrawn.topologies])
                log_probabilities = np.concatenate([log_probabilities, undrawn.log_q])
    log_probabilities = log_probabilities - logsumexp(log_probabilities)
    log_of_drawn = log_probabilities[: len(draws.topologies)]
    log_draw_weights = (log_of_drawn - log_totals)[draws.topology_index] + log_weights
    return CorrectedPosterior(
        method=method,
        drawn_mass=float(np.exp(logsumexp(draws.log_q))),
        topologies=topologies,
        log_topology_probabilities=log_probabilities,
        log_draw_weights=log_draw_weights - logsumexp(log_of_drawn),
    )


def _shrunk_ratios(
    log_relative: Float64[np.ndarray, "draw"], topology_index: Int[np.ndarray, "draw"]
) -> Float64[np.ndarray, "unique"]:
    """Posterior over proposal probability of each topology, shrunk towards 1; see the module docstring.

    Args:
        log_relative: Logs of the weights over their mean.
        topology_index: Topology of each draw.
    """
    counts = np.bincount(topology_index)
    means = np.exp(log_sum_by_topology(log_relative, topology_index, len(counts))) / counts
    squares = np.bincount(topology_index, (np.exp(log_relative) - means[topology_index]) ** 2)
    often = counts >= MIN_REPEATS
    tiny = np.finfo(np.float64).tiny
    if not often.any():
        return np.maximum(means, tiny)
    within = squares[often].sum() / (counts[often] - 1).sum()
    # Rare topologies tell less, each, but there are more of them: between equal weights and counts.
    importance = np.sqrt(counts[often])
    between = float(importance @ ((means[often] - 1) ** 2 - within / counts[often]) / importance.sum())
    between = max(between, tiny)
    return np.maximum(1 + between / (between + within / counts) * (means - 1), tiny)


def log_sum_by_topology(
    log_weights: Float64[np.ndarray, "draw"], topology_index: Int[np.ndarray, "draw"], num_topologies: int
) -> Float64[np.ndarray, "unique"]:
    """Log of the summed weights of each topology's draws; minus infinity for a topology without draws."""
    largest = np.full(num_topologies, -np.inf)
    np.maximum.at(largest, topology_index, log_weights)
    # Shifting each topology by its own largest weight keeps light ones from underflowing.
    sums = np.bincount(
        topology_index, weights=np.exp(log_weights - largest[topology_index]), minlength=num_topologies
    )
    with np.errstate(divide="ignore"):
        return largest + np.log(sums)


def importance_resample(
    log_weights: Float64[np.ndarray, "draw"],
    topology_index: Int[np.ndarray, "draw"],
    num_draws: int,
    rng: np.random.Generator,
) -> Int[np.ndarray, "resampled"]:
    """Indices of draws resampled with replacement in proportion to their weights, in random order.

    Systematic resampling (Kitagawa 1996): one uniform number places an evenly spaced comb over the cumulated
    weights, so that draw i is taken floor or ceiling of ``num_draws * weight_i`` times: unbiased, of lower
    variance than independent draws. The comb runs over the draws topology by topology, so the same holds for
    every topology's share. A draw of large weight is repeated: where the effective sample size is below
    ``num_draws``, the resampled draws carry no more information than that many independent ones.

    Args:
        log_weights: Log weights with any constant added; Pareto-smoothed ones trade a little bias for
            variance.
        topology_index: Topology of each draw.
        num_draws: How many indices to return.
        rng: Generator of the comb's offset and of the order.
    """
    order = np.argsort(topology_index, kind="stable")
    cumulated = np.cumsum(np.exp(log_weights[order] - log_weights.max()))
    comb = (np.arange(num_draws) + rng.random()) * (cumulated[-1] / num_draws)
    position = np.searchsorted(cumulated, comb, side="right")
    # Rounding may carry the last tooth past the end.
    return rng.permutation(order[np.minimum(position, len(order) - 1)])
