"""Elementary functions for compiled kernels, in a form that LLVM vectorises inside loops."""

import math

import numpy as np
from numba import njit

_LOG2_E = 1.0 / math.log(2.0)
# ln 2 in two parts, the first short enough that its product with an exponent is exact.
_LN2_HIGH = float.fromhex("0x1.62e42fee00000p-1")
_LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")
_TAYLOR = tuple(1.0 / math.factorial(k) for k in range(13))


@njit(nogil=True, inline="always")
def _reduce(x: float) -> tuple[float, float, float]:
    """Scale (a power of 2), f and p with exp(x) = scale (1 + p f), |f| <= log(2) / 2, for |x| <= 700."""
    power = np.rint(x * _LOG2_E)
    f = (x - power * _LN2_HIGH) - power * _LN2_LOW
    # Estrin's scheme: products that do not wait for each other, where Horner's would be one chain.
    f2 = f * f
    f4 = f2 * f2
    low = (1.0 + f * _TAYLOR[2]) + f2 * (_TAYLOR[3] + f * _TAYLOR[4])
    middle = (_TAYLOR[5] + f * _TAYLOR[6]) + f2 * (_TAYLOR[7] + f * _TAYLOR[8])
    high = (_TAYLOR[9] + f * _TAYLOR[10]) + f2 * (_TAYLOR[11] + f * _TAYLOR[12])
    p = low + f4 * (middle + f4 * high)
    bits = (np.int64(np.int32(power)) + np.int64(1023)) << np.int64(52)
    return np.int64(bits).view(np.float64), f, p


@njit(nogil=True, fastmath={"contract"})
def exp(x: float) -> float:
    """Exponential of x to about 3e-16 relative; clips x to [-700, 700], nan stays nan."""
    x = -700.0 if x < -700.0 else x
    x = 700.0 if x > 700.0 else x
    scale, f, p = _reduce(x)
    return (p * f + 1.0) * scale


@njit(nogil=True, inline="always")
def exp_and_complement(x: float) -> tuple[float, float]:
    """exp(-x) and 1 - exp(-x) for x >= 0, both to about 4e-16 relative; clips x to 700, nan stays nan."""
    x = 700.0 if x > 700.0 else x
    scale, f, p = _reduce(-x)
    return scale + scale * (p * f), (1.0 - scale) - scale * (p * f)


@njit(cache=True, nogil=True)
def exponentials(values: np.ndarray, out: np.ndarray) -> None:
    """Write exp of a vector to out. Everything that must agree to the last bit goes through this loop."""
    for i in range(out.shape[0]):
        out[i] = exp(values[i])


_MANTISSA_BITS = np.int64((1 << 52) - 1)
_ROOT_HALF_BITS = np.int64(0x3FE6A09E667F3BCD)
_ARTANH = tuple(1.0 / k for k in range(3, 23, 2))


@njit(nogil=True, inline="always")
def _twice_artanh(s: float) -> float:
    """2 artanh(s) for |s| < 0.172."""
    z = s * s
    z2 = z * z
    z4 = z2 * z2
    low = (_ARTANH[0] + z * _ARTANH[1]) + z2 * (_ARTANH[2] + z * _ARTANH[3])
    middle = (_ARTANH[4] + z * _ARTANH[5]) + z2 * (_ARTANH[6] + z * _ARTANH[7])
    p = low + z4 * (middle + z4 * (_ARTANH[8] + z * _ARTANH[9]))
    return 2.0 * (s + s * (z * p))


@njit(nogil=True, inline="always")
def _split(x: float) -> tuple[np.int64, float]:
    """Integer k and m in [sqrt(1/2), sqrt(2)) with x = 2^k m, for normal positive x."""
    above = np.float64(x).view(np.int64) - _ROOT_HALF_BITS
    return above >> np.int64(52), np.int64((above & _MANTISSA_BITS) + _ROOT_HALF_BITS).view(np.float64)


@njit(nogil=True, fastmath={"contract"}, error_model="numpy")
def log(x: float) -> float:
    """Logarithm of a normal positive number x to about 3e-16 relative or absolute; nan stays nan.

    With x = 2^k m, m in [sqrt(1/2), sqrt(2)), and s = (m - 1) / (m + 1), log x = k log 2 + 2 artanh(s).
    """
    k, m = _split(x)
    value = np.float64(np.int32(k)) * math.log(2.0) + _twice_artanh((m - 1.0) / (m + 1.0))
    return value if x == x else x


@njit(nogil=True, inline="always")
def minus_log(v: float, u: float) -> float:
    """-log(v) of normal v in (0, 1], given u = 1 - v, to about 5e-16 relative; nan stays nan.

    Near 1 the distance from 1 is given more precisely than v holds it.
    """
    k, m = _split(v)
    s = (u if k == 0 else 1.0 - m) / (m + 1.0)
    value = _twice_artanh(s) - np.float64(np.int32(k)) * math.log(2.0)
    return value if v == v else v
