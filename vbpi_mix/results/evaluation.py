"""Bounds and estimates of the log marginal likelihood from importance draws.

All of them are functions of the log weights f [component, particle] of `PosteriorDraws`, the mixture over
all A components in the denominator. With the log inside the component average (Kviman et al. 2022;
Hotti et al. 2024),

    L_K = (1/A) sum_a  log (1/K) sum_k exp f_ak,        E[L_1] <= E[L_K] <= log p(Y),

and the pooled estimate log (1/(AK)) sum_{a,k} exp f_ak is a bound as well, and by Jensen's inequality a
tighter one.

The literature evaluates the K = 1000 bound 100 times and reports mean and standard deviation, giving
*every* component 1000 samples: A components cost A times the likelihood evaluations and get a standard
deviation smaller by sqrt(A) for free. `equal_cost_particles` splits 1000 evaluations evenly over the
components instead, so that mixtures of different size compare at equal cost; it is the default of the
command line.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int
from scipy.special import logsumexp

LITERATURE_PARTICLES = 1000
"""Samples of the bound that the literature reports as the marginal log-likelihood."""


@dataclass(frozen=True)
class MarginalLogLikelihood:
    """Estimates of log p(Y), in nats.

    Attributes:
        mean: Mean over the repeats of the bound with the log inside the component average.
        std: Its standard deviation over the repeats (divisor repeats - 1); 0 where there is one repeat.
        num_repeats: Number of repeats, of disjoint draws.
        particles_per_component: Draws of every component in one repeat.
        evaluations_per_repeat: Likelihood evaluations in one repeat, over all components.
        pooled: Log of the mean weight over all draws.
        standard_error: Standard error of ``pooled`` by the delta method.
    """

    mean: float
    std: float
    num_repeats: int
    particles_per_component: int
    evaluations_per_repeat: int
    pooled: float
    standard_error: float


def equal_cost_particles(num_components: int, num_evaluations: int = LITERATURE_PARTICLES) -> int:
    """Draws of each component that make ``num_evaluations`` likelihood evaluations in all, rounded down."""
    return max(1, num_evaluations // num_components)


def bounds(
    log_weights: Float64[np.ndarray, "component draw"], num_particles: int
) -> Float64[np.ndarray, "repeat"]:
    """Repeats of the K-sample bound, (1/A) sum_a log (1/K) sum_k exp f_ak, in nats.

    Args:
        log_weights: Log weights f, in nats.
        num_particles: K, draws of every component in one repeat.

    Returns:
        One bound for each of the draw // K disjoint batches; draws that fill no batch are left out.

    Raises:
        ValueError: K is not between 1 and the number of draws of a component.
    """
    num_components, num_draws = log_weights.shape
    if not 1 <= num_particles <= num_draws:
        raise ValueError(
            f"expected between 1 and {num_draws} particles (the draws of a component), got {num_particles}"
        )
    num_repeats = num_draws // num_particles
    batches = log_weights[:, : num_repeats * num_particles].reshape(
        num_components, num_repeats, num_particles
    )
    return (logsumexp(batches, axis=2) - np.log(num_particles)).mean(axis=0)


def lower_bound(log_weights: Float64[np.ndarray, "component draw"], num_particles: int) -> float:
    """Mean of the K-sample bound over all disjoint batches, in nats: LB-1 with K = 1, LB-10 with K = 10."""
    return float(bounds(log_weights, num_particles).mean())


def pooled_estimate(log_weights: Float64[np.ndarray, "component draw"]) -> tuple[float, float]:
    """Log of the mean weight over all draws, and its standard error by the delta method, in nats.

    With w = exp f and the draws stratified by component, the mean of the weights has variance
    (1/A^2) sum_a var_a(w) / n; dividing its square root by the mean gives the standard error of the log.
    Trust it only where the Pareto k-hat is below 0.7: a heavier tail has no variance to speak of.
    """
    num_components, num_draws = log_weights.shape
    shift = log_weights.max()
    weights = np.exp(log_weights - shift)
    mean = weights.mean()
    variance = (
        weights.var(axis=1, ddof=1).sum() / (num_draws * num_components**2) if num_draws > 1 else np.inf
    )
    return float(shift + np.log(mean)), float(np.sqrt(variance) / mean)


def marginal_log_likelihood(
    log_weights: Float64[np.ndarray, "component draw"], particles_per_component: int
) -> MarginalLogLikelihood:
    """Estimates of log p(Y) by repeated bounds, as the literature reports it, and by pooling all draws.

    Args:
        log_weights: Log weights f, in nats.
        particles_per_component: Draws of every component in one repeat: ``LITERATURE_PARTICLES`` is the
            literature's protocol, ``equal_cost_particles(A)`` the one that compares mixtures at equal cost.

    Returns:
        The estimates; there are as many repeats as disjoint batches.

    Raises:
        ValueError: A component has fewer draws than one repeat needs.
    """
    repeats = bounds(log_weights, particles_per_component)
    pooled, standard_error = pooled_estimate(log_weights)
    return MarginalLogLikelihood(
        mean=float(repeats.mean()),
        std=float(repeats.std(ddof=1)) if len(repeats) > 1 else 0.0,
        num_repeats=len(repeats),
        particles_per_component=particles_per_component,
        evaluations_per_repeat=particles_per_component * len(log_weights),
        pooled=pooled,
        standard_error=standard_error,
    )


def jensen_shannon_divergence(
    responsibilities: Float64[np.ndarray, "draw component"], component: Int[np.ndarray, "draw"]
) -> float:
    """Estimate of the Jensen-Shannon divergence of the components, in nats: between 0 and log A.

    (1/A) sum_a E_{q_a}[log q_a - log q], which is MISELBO minus the mean of the components' own ELBOs
    (Kviman et al. 2022), from stratified draws: q_a / q = A r_a, r_a the responsibility of the component
    that made the draw.

    Args:
        responsibilities: Posterior probability of each component given the draw.
        component: Component that each draw came from.
    """
    num_components = responsibilities.shape[1]
    return float(np.mean(np.log(num_components * responsibilities[np.arange(len(component)), component])))
