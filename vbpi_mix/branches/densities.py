r"""Densities of log branch lengths: the lognormal and its skewed, sinh-arcsinh generalisation.

A log branch length y has location, log scale and skew, and is made from standard normal noise:

    y = loc + scale * sinh(asinh(noise) - skew),   scale = exp(log_scale).

Zero skew is y = loc + scale * noise, a lognormal branch length. The family is the sinh-arcsinh one (Jones &
Pewsey 2009) with unit tail weight. For z = (y - loc) / scale and t = asinh(z) the inverse is noise = sinh(t +
skew), and

    dz / dnoise = cosh(asinh(noise) - skew) / sqrt(1 + noise^2) = cosh(t) / cosh(t + skew),

so that

    log q(y) = log N(noise; 0, 1) + log cosh(t + skew) - log cosh(t) - log_scale.

Derivatives. Write e = noise, u = cosh(t + skew) = sqrt(1 + e^2) and r = cosh(t) = sqrt(1 + z^2). Then de/dt =
u, dt/dz = 1/r and de/dskew = u. The terms that depend on e alone, -e^2/2 + log u, have the derivative
-e + e/u^2 = -e^3/u^2 in e. Hence

    d log q / d skew = -e^3 / u,
    d log q / d z    = -e^3 / (u r) - z / r^2,
    d log q / d y    = (d log q / d z) / scale = -(d log q / d loc),
    d log q / d log_scale = -z (d log q / d z) - 1,

and for the path, at fixed noise,

    dy/dloc = 1,   dy/dlog_scale = y - loc,   dy/dskew = -scale * r.

With zero skew d log q / d z is -e^3 / (1 + e^2) - e / (1 + e^2) = -e, as it must be.

The functions work elementwise on arrays of numpy or torch that broadcast against each other, in their own
precision; in torch they are differentiable. `vbpi_mix.branches._kernels` computes the same, and the
derivatives, from a parameter table at the speed that training needs.

References:
    Jones & Pewsey (2009), Sinh-arcsinh distributions, Biometrika 96(4):761-780.
"""

import math
from typing import Any, TypeAlias

from array_api_compat import array_namespace

Array: TypeAlias = Any
"""A floating-point array of numpy or torch; those of one call must broadcast against each other."""


def transform(noise: Array, loc: Array, log_scale: Array, skew: Array) -> Array:
    """Log branch lengths y = loc + exp(log_scale) * sinh(asinh(noise) - skew).

    Args:
        noise: standard normal draws.
        loc: location of y, in log expected substitutions per site.
        log_scale: logarithm of the scale of y.
        skew: positive values lengthen the lower tail; zero is the lognormal.
    """
    xp = array_namespace(noise, loc, log_scale, skew)
    return loc + xp.exp(log_scale) * xp.sinh(xp.asinh(noise) - skew)


def inverse(log_lengths: Array, loc: Array, log_scale: Array, skew: Array) -> Array:
    """Noise that `transform` turns into these log branch lengths."""
    xp = array_namespace(log_lengths, loc, log_scale, skew)
    return xp.sinh(xp.asinh((log_lengths - loc) / xp.exp(log_scale)) + skew)


def log_density(log_lengths: Array, loc: Array, log_scale: Array, skew: Array) -> Array:
    """Normalised log density of y, in nats, with respect to dy (not to the branch length exp(y) itself).

    log q(y) = log N(noise; 0, 1) + log cosh(t + skew) - log cosh(t) - log_scale, with t = asinh((y - loc) /
    scale).
    """
    xp = array_namespace(log_lengths, loc, log_scale, skew)
    t = xp.asinh((log_lengths - loc) / xp.exp(log_scale))
    noise = xp.sinh(t + skew)
    # The constants of the two log cosh(x) = logaddexp(x, -x) - log 2 cancel.
    log_ratio = xp.logaddexp(t + skew, -t - skew) - xp.logaddexp(t, -t)
    return -0.5 * noise * noise - 0.5 * math.log(2.0 * math.pi) + log_ratio - log_scale
