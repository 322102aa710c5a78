"""How far importance draws can be trusted: Pareto k-hat, effective sample size, balance of the components.

The upper tail of the weights decides whether importance sampling works at all. Pareto-smoothed importance
sampling (PSIS; Vehtari, Simpson, Gelman, Yao & Gabry 2024, *JMLR* 25) fits a generalised Pareto
distribution to the largest weights; its shape k-hat below 0.7 means that estimates converge at a practical
rate, above 1 that the weights have no finite mean to converge to.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int
from scipy.special import logsumexp

from vbpi_mix.results.draws import PosteriorDraws

PARETO_K_GOOD = 0.7
"""Below this k-hat, importance-sampling estimates and their standard errors can be relied upon."""

MIN_ESS = 100.0
"""Effective sample size below which a posterior is too coarse to be relied upon."""

MIN_DRAWS = 25
"""A fifth of the draws is the tail of a small sample, and the fit needs five values."""


@dataclass(frozen=True)
class ComponentBalance:
    """What each component of a mixture contributes.

    Attributes:
        weight_share: Share of the total importance weight on the component's draws; sums to 1. Components
            of a well-trained mixture each have about 1/A.
        effective_sample_size: Effective sample size of the component's own draws, out of particle many.
        topology_entropy: Entropy of the component's distribution of topologies, in nats, by the frequencies
            of its draws: too small where most topologies were drawn once.
    """

    weight_share: Float64[np.ndarray, "component"]
    effective_sample_size: Float64[np.ndarray, "component"]
    topology_entropy: Float64[np.ndarray, "component"]


def pareto_smooth(log_weights: Float64[np.ndarray, "draw"]) -> tuple[Float64[np.ndarray, "draw"], float]:
    """Pareto-smoothed log weights and the tail's shape k-hat.

    Args:
        log_weights: Finite log weights, with any constant added.

    Returns:
        The smoothed log weights, normalised (their exponentials sum to 1), and k-hat; minus infinity where
        all weights of the tail are equal, as R's ``loo`` has it.

    Raises:
        ValueError: Fewer than 25 draws, or weights that are not finite.
    """
    if len(log_weights) < MIN_DRAWS or not np.all(np.isfinite(log_weights)):
        raise ValueError(
            f"expected at least {MIN_DRAWS} finite log weights for a Pareto fit, got {len(log_weights)} with "
            f"{np.count_nonzero(~np.isfinite(log_weights))} not finite"
        )
    order = np.argsort(log_weights, kind="stable")
    num_tail = _tail_length(len(log_weights))
    tail = order[-num_tail:]
    shift, cutoff = log_weights[tail[-1]], log_weights[order[-num_tail - 1]]
    if shift - log_weights[tail[0]] < 1e-12:
        return log_weights - logsumexp(log_weights), -np.inf
    exceedances = np.exp(log_weights[tail] - shift) - np.exp(cutoff - shift)
    shape, scale = _fit_generalised_pareto(exceedances[exceedances > 0.0])
    smoothed = log_weights.copy()
    with np.errstate(divide="ignore"):
        quantiles = np.log(_generalised_pareto_quantiles(num_tail, shape, scale) + np.exp(cutoff - shift))
    smoothed[tail] = np.minimum(quantiles, 0.0) + shift  # no weight above the largest
    return smoothed - logsumexp(smoothed), shape


def _fit_generalised_pareto(exceedances: Float64[np.ndarray, "tail"]) -> tuple[float, float]:
    """Shape and scale of a generalised Pareto distribution, from values above its threshold, ascending.

    The estimate of Zhang & Stephens (2009, *Technometrics* 51:316), a posterior mean over a grid of b =
    -shape / scale; the shape is then drawn towards 1/2 as by ten observations (Vehtari et al. 2024).
    """
    n = len(exceedances)
    num_points = 30 + int(np.sqrt(n))
    quartile = exceedances[int(n / 4 + 0.5) - 1]
    b = 1 / exceedances[-1] + (1 - np.sqrt(num_points / (np.arange(num_points) + 0.5))) / (3 * quartile)
    shapes = np.log1p(-b[:, None] * exceedances).mean(axis=1)
    log_profile = n * (np.log(-b / shapes) - shapes - 1)
    b_mean = float(np.exp(log_profile - logsumexp(log_profile)) @ b)
    shape = float(np.log1p(-b_mean * exceedances).mean())
    return (shape * n + 5) / (n + 10), -shape / b_mean


def _generalised_pareto_quantiles(num: int, shape: float, scale: float) -> Float64[np.ndarray, "tail"]:
    """Quantiles (i - 1/2) / num of a generalised Pareto distribution of any shape."""
    log_survival = np.log1p(-(np.arange(num) + 0.5) / num)
    if abs(shape) < 1e-12:
        return -scale * log_survival
    return scale * np.expm1(-shape * log_survival) / shape


def pareto_k(log_weights: Float64[np.ndarray, "draw"]) -> float:
    """Shape k-hat of the weights' upper tail, as in `pareto_smooth`: below 0.7 is good, above 1 useless."""
    return pareto_smooth(log_weights)[1]


def effective_sample_size(log_weights: Float64[np.ndarray, "draw"]) -> float:
    """Kish's effective sample size, (sum w)^2 / sum w^2: between 1 and the number of draws."""
    return float(np.exp(2 * logsumexp(log_weights) - logsumexp(2 * log_weights)))


def component_balance(draws: PosteriorDraws) -> ComponentBalance:
    """What each component of the mixture contributes to the draws."""
    log_weights = draws.by_component(draws.log_weights)
    log_shares = logsumexp(log_weights, axis=1) - logsumexp(log_weights)
    return ComponentBalance(
        weight_share=np.exp(log_shares),
        effective_sample_size=np.array([effective_sample_size(row) for row in log_weights]),
        topology_entropy=np.array(
            [
                _frequency_entropy(draws.topology_index[draws.component == a])
                for a in range(draws.num_components)
            ]
        ),
    )


@dataclass(frozen=True)
class Reliability:
    """How far importance draws can be trusted.

    Attributes:
        num_draws: Draws.
        ess: Effective sample size of them.
        pareto_k: Shape of the weights' upper tail; None where all weights are equal, or draws are too few.
    """

    num_draws: int
    ess: float
    pareto_k: float | None

    @classmethod
    def of(cls, draws: PosteriorDraws) -> "Reliability":
        """Reliability of some draws."""
        k = pareto_k(draws.log_weights) if draws.num_draws >= MIN_DRAWS else -np.inf
        return cls(draws.num_draws, effective_sample_size(draws.log_weights), k if np.isfinite(k) else None)

    @property
    def is_good(self) -> bool:
        """Whether the effective sample size is at least ``MIN_ESS``, and k-hat below ``PARETO_K_GOOD``."""
        return self.ess >= MIN_ESS and (self.pareto_k is None or self.pareto_k < PARETO_K_GOOD)

    def __str__(self) -> str:
        """Both diagnostics on a line, after a warning unless they are good."""
        k = "none" if self.pareto_k is None else f"{self.pareto_k:.2f}"
        text = f"effective sample size {self.ess:.1f} of {self.num_draws} draws, Pareto k-hat {k}"
        return text if self.is_good else f"WARNING: unreliable: {text}"


def topology_entropy(draws: PosteriorDraws) -> float:
    """Entropy of the mixture's topologies in nats, -E_q log q(tau), from the exact log q of the draws."""
    return float(-draws.log_q[draws.topology_index].mean())


def _frequency_entropy(values: Int[np.ndarray, "draw"]) -> float:
    """Entropy of the empirical distribution of some integers, in nats."""
    counts = np.unique(values, return_counts=True)[1]
    frequencies = counts / counts.sum()
    return float(-(frequencies * np.log(frequencies)).sum())


def _tail_length(num_draws: int) -> int:
    """Number of weights that the fit takes as the upper tail (Vehtari et al. 2024)."""
    return int(3 * num_draws**0.5) if num_draws > 225 else num_draws // 5
