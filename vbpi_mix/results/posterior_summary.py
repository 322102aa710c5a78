"""Summaries of a corrected posterior: splits with errors, credible sets, and single trees that stand for it.

Three trees are most probable in one sense each:

- ``ccd_map``: the mode of the conditional clade distribution (`vbpi_mix.trees.ccd`) of the corrected
  posterior, found exactly; it may be a topology that was never drawn.
- ``mcc``: of the topologies in the posterior, that of the largest product of split probabilities (maximum
  clade credibility); of equal ones the most probable.
- ``sbn_map``: of the topologies drawn, the most probable under the mixture q of subsplit Bayesian networks.
  q sums over rootings and components, so its mode has no recursion; but probabilities under it are exact, and
  an undrawn topology has at most what the drawn ones leave over. Where that is no more than this topology's
  probability, it is the mode of q for certain.

Branch lengths are those of all weighted draws that have the branch's split, whatever else their topology.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int, Int32, Int64

from vbpi_mix.results.correction import CorrectedPosterior
from vbpi_mix.results.draws import PosteriorDraws
from vbpi_mix.trees.nexus import most_probable_first
from vbpi_mix.trees.splits import find_masks
from vbpi_mix.trees.summaries import SplitTable, summarise_lengths, table_of_splits

LEVELS = (0.5, 0.9, 0.95, 0.99)
"""Probabilities of the credible sets."""


@dataclass(frozen=True)
class CredibleSet:
    """The fewest topologies that hold a probability.

    Attributes:
        level: The probability asked for.
        num_topologies: How many these are, the most probable ones.
        probability: Their posterior probability.
        ccd_probability: Their probability under the conditional clade distribution.
    """

    level: float
    num_topologies: int
    probability: float
    ccd_probability: float


@dataclass(frozen=True)
class SplitSummary:
    """Splits of a posterior.

    Attributes:
        table: Splits with corrected probabilities and branch lengths.
        standard_errors: Monte Carlo standard error of every probability.
    """

    table: SplitTable
    standard_errors: Float64[np.ndarray, "split"]


@dataclass(frozen=True)
class SbnMode:
    """The most probable topology drawn under the mixture of subsplit Bayesian networks.

    Attributes:
        topology: The topology, canonical.
        log_q: Its exact log probability under the mixture, in nats.
        is_certain: Whether no undrawn topology can be more probable.
    """

    topology: Int32[np.ndarray, "internal 2"]
    log_q: float
    is_certain: bool


def summarise_splits(draws: PosteriorDraws, corrected: CorrectedPosterior) -> SplitSummary:
    """Splits of a corrected posterior, their lengths and errors.

    With v the normalised weights of the draws and I whether a draw has the split, the standard error of its
    probability p is sqrt(sum v^2 (I - p)^2), by the delta method; where weights do not depend on the split
    that is sqrt(p (1 - p) / ESS). Rao-Blackwellised probabilities have smaller errors than this.

    Args:
        draws: Importance draws.
        corrected: The posterior corrected from them.
    """
    index, frequencies, weights = corrected.ccd.splits, corrected.ccd.frequencies, corrected.draw_weights
    squares = np.bincount(draws.topology_index, weights**2, minlength=len(draws.topologies))
    with_split = index.totals(squares)
    variance = with_split * (1 - frequencies) ** 2 + (squares.sum() - with_split) * frequencies**2
    table = table_of_splits(
        index, frequencies, summarise_lengths(index, draws.topology_index, weights, draws.branch_lengths)
    )
    errors = np.sqrt(np.maximum(variance, 0.0))
    return SplitSummary(table, errors[find_masks(index.masks, table.masks)])


def topology_order(corrected: CorrectedPosterior) -> Int64[np.ndarray, "found"]:
    """Indices of the topologies of positive probability, most probable first: that of the ``.trprobs``."""
    return most_probable_first(corrected.topologies, corrected.topology_probabilities)


def credible_sets(
    corrected: CorrectedPosterior, order: Int64[np.ndarray, "found"] | None = None
) -> tuple[CredibleSet, ...]:
    """The smallest sets of topologies that hold ``LEVELS`` of the posterior.

    Args:
        corrected: The posterior.
        order: What `topology_order` gives, if it is at hand.
    """
    order = topology_order(corrected) if order is None else order
    cumulated = np.cumsum(corrected.topology_probabilities[order])
    ccd = np.cumsum(np.exp(corrected.ccd.log_probabilities[order]))
    # The allowance is for the rounding of sums, so that 19 of 20 equal ones are 95%.
    nums = np.searchsorted(cumulated, np.array(LEVELS) * cumulated[-1] * (1 - 1e-12)) + 1
    return tuple(
        CredibleSet(level, num, float(min(1.0, cumulated[num - 1])), float(min(1.0, ccd[num - 1])))
        for level, num in zip(LEVELS, nums.tolist(), strict=True)
    )


def maximum_clade_credibility(
    corrected: CorrectedPosterior, order: Int64[np.ndarray, "found"] | None = None
) -> Int32[np.ndarray, "internal 2"]:
    """The topology of the posterior with the largest product of split probabilities.

    Args:
        corrected: The posterior.
        order: What `topology_order` gives, if it is at hand; of equal products the first of this counts.
    """
    order = topology_order(corrected) if order is None else order
    credibility = corrected.ccd.log_clade_credibilities[order]
    # Sums of logarithms in another order differ by rounding.
    return corrected.topologies[order[np.argmax(credibility >= credibility.max() - 1e-9)]]


def sbn_mode(draws: PosteriorDraws, corrected: CorrectedPosterior) -> SbnMode:
    """The most probable topology drawn under the mixture; see the module docstring.

    Args:
        draws: Importance draws.
        corrected: The posterior corrected from them.
    """
    # One whose posterior probability has underflowed to zero has no splits to show.
    is_possible = corrected.topology_probabilities[: len(draws.topologies)] > 0
    best = int(np.where(is_possible, draws.log_q, -np.inf).argmax())
    log_q = float(draws.log_q[best])
    is_mode = log_q == draws.log_q.max() and np.exp(log_q) >= 1.0 - corrected.drawn_mass
    return SbnMode(draws.topologies[best], log_q, bool(is_mode))


def halves(component: Int[np.ndarray, "draw"]) -> tuple[Int64[np.ndarray, "_"], Int64[np.ndarray, "_"]]:
    """Indices of every other draw of each component, and of the rest: two independent halves.

    Args:
        component: Component of each draw.
    """
    order = np.argsort(component, kind="stable")
    return np.sort(order[::2]), np.sort(order[1::2])
