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
        objectives: What is maximised (see `fit_network`) at each accepted iterate, in nats, ascending.
    """

    logits: np.ndarray
    objectives: np.ndarray


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
    *,
    prior_counts: Float64[np.ndarray, "parameter"] | None = None,
    max_steps: int = 300,
    tolerance: float = 1e-6,
) -> EmFit:
    """Network of (locally) maximal sum_t w_t log q(tau_t) + sum_i c_i log q_i, the weights summing to one.

    Plain steps gain little each where rootings are ambiguous, so pairs of them are extrapolated: from x0,
    x1 = EM(x0), x2 = EM(x1) with r = x1 - x0 and v = x2 - x1 - r, the next start is EM(x0 - 2 a r + a^2 v),
    ``a = -|r| / |v|`` but at most -1, if the extrapolated point is no worse than x1, else x2 (SQUAREM,
    Varadhan & Roland 2008). Either is an EM step from a point at least as good as x1, so the objective never
    falls.

    Args:
        support: The network's support.
        index: The topologies, looked up in the support. Those outside it are left out.
        weights: Non-negative weights of the topologies; only their ratios matter.
        start: Logits to start from.
        prior_counts: c, counts added to the expected ones (a Dirichlet prior's), small against one; None:
            none.
        max_steps: Largest number of EM steps, the work of the fit.
        tolerance: Stop when an extrapolated pair of steps gains less than this, in nats.

    Raises:
        OutOfSupportError: No topology of positive weight lies inside the support.
        ValueError: Negative weights.
    """
    if np.any(weights < 0):
        raise ValueError("expected non-negative weights of topologies, got a negative one")
    prior = np.zeros(support.num_parameters) if prior_counts is None else prior_counts
    networks = SubsplitNetworks.from_logits(support, start[None].copy())
    inside = networks.log_probability(index)[:, 0] > -np.inf
    weights = np.where(inside, weights, 0.0)
    if not weights.sum() > 0:
        raise OutOfSupportError(
            "no weighted topology lies inside the support, so a network cannot be fitted to them"
        )
    weights = weights / weights.sum()

    def step(log_q: np.ndarray) -> tuple[float, np.ndarray]:
        """Objective at log_q, and log_q after one EM step."""
        networks.logits[0] = log_q
        networks.refresh()
        counts = np.zeros(support.num_parameters + 2)
        objective = expectation_step(
            networks.log_q[0], weights, *index[:3], support.tables.parameter_parent, False, counts
        )
        objective += float(prior @ networks.log_q[0, :-2])
        networks.logits[0] = logits_of_counts(support, counts[:-2] + prior)
        networks.refresh()
        return objective, networks.log_q[0, :-2].copy()

    objectives: list[float] = []
    x0 = networks.log_q[0, :-2].copy()
    for _ in range(0, max_steps, 3):
        objective, x1 = step(x0)
        if objectives and objective - objectives[-1] < tolerance:
            break
        objectives.append(objective)
        objective_of_x1, x2 = step(x1)
        r, v = x1 - x0, x2 - 2.0 * x1 + x0
        a = -max(1.0, float(np.linalg.norm(r)) / max(float(np.linalg.norm(v)), 1e-300))
        extrapolated = np.maximum(x0 - 2.0 * a * r + a * a * v, UNSEEN_LOGIT)
        objective_of_extrapolated, x3 = step(extrapolated)
        x0 = x3 if objective_of_extrapolated >= objective_of_x1 else x2
    return EmFit(x0, np.array(objectives))
