"""Fitting a subsplit Bayesian network to weighted topologies by expectation-maximisation.

Maximises sum_t w_t log q(tau_t), which minimises KL(w || q). The expectation step spreads each topology
over its rootings, the maximisation step normalises the expected counts of every parent's children (Zhang &
Matsen 2018).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from vbpi_mix.errors import OutOfSupportError
from vbpi_mix.sbn._probability_kernels import expectation_step
from vbpi_mix.sbn.network import SubsplitNetworks
from vbpi_mix.sbn.support import Support, TopologyIndex

UNSEEN_LOGIT = -25.0
"""Logit of a child that no weighted topology uses, its parent's largest being 0: stays in the support."""


class EmFit(NamedTuple):
    """A fitted network.

    Attributes:
        logits: [parameter].
        log_likelihoods: sum_t w_t log q(tau_t) / sum_t w_t before every step, in nats, over topologies
            inside the support.
    """

    logits: np.ndarray
    log_likelihoods: np.ndarray


def rooting_averaged_logits(
    support: Support, index: TopologyIndex, weights: Float64[np.ndarray, "tree"]
) -> Float64[np.ndarray, "parameter"]:
    """Logits from parameter counts in which every rooting of a topology weighs the same."""
    counts = np.zeros(support.num_parameters + 2)
    log_q = np.zeros(support.num_parameters + 2)
    expectation_step(log_q, weights, *index[:3], support.tables.parameter_parent, True, counts)
    return logits_of_counts(support, counts[:-2])


def logits_of_counts(
    support: Support, counts: Float64[np.ndarray, "parameter"]
) -> Float64[np.ndarray, "parameter"]:
    """Logits of the maximum-likelihood network for expected counts; see `UNSEEN_LOGIT` for counts of zero."""
    largest = np.maximum.reduceat(counts, support.parent_start[:-1])[support.tables.parameter_parent]
    with np.errstate(divide="ignore", invalid="ignore"):
        logits = np.log(counts / largest)
    logits[largest == 0.0] = 0.0  # nothing is known of the parent: uniform
    return np.maximum(logits, UNSEEN_LOGIT)


def fit_network(
    support: Support,
    index: TopologyIndex,
    weights: Float64[np.ndarray, "tree"],
    start: Float64[np.ndarray, "parameter"],
    max_steps: int = 500,
    tolerance: float = 1e-6,
) -> EmFit:
    """Network of (locally) maximal sum_t w_t log q(tau_t), from the logits `start`.

    Args:
        support: The network's support.
        index: The topologies, looked up in the support. Those outside it are left out.
        weights: Non-negative weights of the topologies; only their ratios matter.
        start: Logits to start from.
        max_steps: Largest number of steps.
        tolerance: Stop when a step gains less than this many nats per unit of weight.

    Raises:
        OutOfSupportError: No topology of positive weight lies inside the support.
        ValueError: Negative weights.
    """
    if np.any(weights < 0):
        raise ValueError("expected non-negative weights of topologies, got a negative one")
    networks = SubsplitNetworks.from_logits(support, start[None].copy())
    inside = networks.log_probability(index)[:, 0] > -np.inf
    weights = np.where(inside, weights, 0.0)
    if not weights.sum() > 0:
        raise OutOfSupportError(
            "no weighted topology lies inside the support, so a network cannot be fitted to them"
        )
    weights = weights / weights.sum()
    log_likelihoods: list[float] = []
    for _ in range(max_steps):
        counts = np.zeros(support.num_parameters + 2)
        log_likelihoods.append(
            expectation_step(
                networks.log_q[0], weights, *index[:3], support.tables.parameter_parent, False, counts
            )
        )
        networks.logits[0] = logits_of_counts(support, counts[:-2])
        networks.refresh()
        if len(log_likelihoods) > 1 and log_likelihoods[-1] - log_likelihoods[-2] < tolerance:
            break
    return EmFit(networks.logits[0], np.array(log_likelihoods))
