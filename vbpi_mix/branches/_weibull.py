"""Compiled functions of one branch's skewed density, in the notation of `vbpi_mix.branches.densities`.

`shape`, `hazard`, `minus_log_complement` and `step_of_surprise` have no branches or calls, so that loops over
them vectorise.
"""

import math

from numba import njit

from vbpi_mix._elementary import exp, exp_and_complement, log, minus_log
from vbpi_mix.branches import densities

SLOPE = densities.SLOPE
LOG_2 = math.log(2.0)
LOG_CONSTANT = math.log(SLOPE) + math.log(LOG_2)
"""log(C log 2), which is log(alpha c) + h - G0 + L(G0) for any h."""
_FAR = 36.0
_SQRT_HALF = math.sqrt(0.5)
_ROOT_TWO_PI = math.sqrt(2.0 * math.pi)
# Beyond this, the tail of the normal distribution is too small for double precision.
_LAST_TAIL = 37.0


# Not inline="always": that would give these functions the caller's licence to reorder.
@njit(nogil=True, inline="always")
def hazard(x: float) -> tuple[float, float, float, float]:
    """G = exp(x), exp(-G), 1 - exp(-G) and -log(1 - exp(-G)), the last also where exp(x) is clipped."""
    G = exp(x)
    u, v = exp_and_complement(G)
    return G, u, v, minus_log_complement(x, u, v)


@njit(nogil=True, inline="always")
def minus_log_complement(x: float, u: float, v: float) -> float:
    """-log(1 - exp(-G)) given x = log G, u = exp(-G) and v = 1 - u."""
    return -x if x < -_FAR else minus_log(v, u)


@njit(nogil=True, inline="always")
def shape(skew: float) -> tuple[float, float, float]:
    """G0 = exp(-skew), L(G0) and d log alpha / dh = C / c."""
    G0, u, v, L0 = hazard(-skew)
    return G0, L0, G0 * u / (v * L0)


@njit(nogil=True)
def surprise_of_noise(noise: float) -> float:
    """E = -log Phi(noise)."""
    tail = 0.5 * math.erfc(abs(noise) * _SQRT_HALF)
    return -math.log1p(-tail) if noise > 0.0 else -math.log(tail)


@njit(nogil=True, inline="always")
def step_of_surprise(surprise: float, skew: float) -> float:
    """What, times scale, is y - location."""
    _, L0, d_log_alpha = shape(skew)
    t = surprise * L0 / LOG_2
    u, v = exp_and_complement(t)
    x = -t if t > _FAR else log(minus_log(v, u))
    return (x + skew) * d_log_alpha / SLOPE


@njit(nogil=True, error_model="numpy")
def noise_of_step(step: float, skew: float) -> float:
    """Noise that `surprise_of_noise` and `step_of_surprise` make this step of."""
    _, L0, d_log_alpha = shape(skew)
    _, _, _, minus_l = hazard(step * SLOPE / d_log_alpha - skew)
    surprise = LOG_2 / L0 * minus_l
    if surprise > LOG_2:
        return -_distance_of_tail(-surprise)
    return _distance_of_tail(math.log(-math.expm1(-surprise)))


@njit(nogil=True, error_model="numpy")
def _distance_of_tail(log_tail: float) -> float:
    """Where the normal distribution's upper tail is exp(log_tail), at most one half.

    Two steps of Halley's method from the approximation 26.2.23 of Abramowitz & Stegun (1964), which errs by
    less than 5e-4 and is right in the limit.
    """
    s = math.sqrt(-2.0 * log_tail)
    z = s - (2.515517 + s * (0.802853 + s * 0.010328)) / (
        1.0 + s * (1.432788 + s * (0.189269 + s * 0.001308))
    )
    for _ in range(2):
        if z < _LAST_TAIL:
            tail = 0.5 * math.erfc(z * _SQRT_HALF)
            excess = math.log(tail) - log_tail
            slope = math.exp(-0.5 * z * z) / (_ROOT_TWO_PI * tail)
        else:
            w = 1.0 / (z * z)
            slope = z / (1.0 - w * (1.0 - w * (3.0 - w * (15.0 - 105.0 * w))))
            excess = -0.5 * z * z - math.log(_ROOT_TWO_PI * slope) - log_tail
        z += 2.0 * excess / (2.0 * slope + excess * (slope - z))
    return z
