"""Compiled functions of one branch's skewed density, in the notation of `vbpi_mix.branches.densities`.

All but `surprise_of_noise` have no branches or calls, so that loops over them vectorise.
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
_SMALLEST = 1e-300
_NUMERATOR = (
    3.51027443680574,
    24.139689782220174,
    40.236091263450454,
    30.670766683642217,
    7.916128633835796,
    0.6043282477806787,
    0.012246311288888723,
    4.307903724971637e-05,
)
_DENOMINATOR = (
    1.0,
    10.98747520499622,
    26.882613151838868,
    28.779722528290236,
    14.063098259881684,
    2.451406922011013,
    0.13696646504094054,
    0.00208842279420534,
    5.215661260484639e-06,
)


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


@njit(nogil=True, inline="always")
def surprise_of_step(step: float, skew: float) -> float:
    """The inverse of `step_of_surprise`."""
    _, L0, d_log_alpha = shape(skew)
    _, _, _, minus_l = hazard(step * SLOPE / d_log_alpha - skew)
    return LOG_2 / L0 * minus_l


@njit(nogil=True, inline="always")
def noise_of_surprise(surprise: float) -> float:
    """The inverse of `surprise_of_noise`: where the normal distribution function is exp(-surprise)."""
    surprise = _SMALLEST if surprise < _SMALLEST else surprise
    u, v = exp_and_complement(surprise)
    # Of the two tails the smaller one is held to full relative precision.
    is_left = surprise > LOG_2
    distance = _distance_of_tail(surprise if is_left else minus_log(v, u))
    return -distance if is_left else distance


@njit(nogil=True, inline="always")
def _distance_of_tail(minus_log_tail: float) -> float:
    """Where the normal distribution's upper tail has this surprise, at least log 2.

    With s = sqrt(-2 log tail), s less the distance is a rational function of s, fitted to it by least squares
    and weighted anew until the largest error was least: below 1e-11, absolute or relative, for distances up
    to 38. Further out, where no draw ever comes, it is below 1e-6 of the distance.
    """
    s = math.sqrt(2.0 * minus_log_tail)
    p, q = _NUMERATOR, _DENOMINATOR
    high = p[4] + s * (p[5] + s * (p[6] + s * p[7]))
    numerator = p[0] + s * (p[1] + s * (p[2] + s * (p[3] + s * high)))
    high = q[4] + s * (q[5] + s * (q[6] + s * (q[7] + s * q[8])))
    denominator = q[0] + s * (q[1] + s * (q[2] + s * (q[3] + s * high)))
    return s - numerator / denominator
