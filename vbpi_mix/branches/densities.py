r"""Densities of log branch lengths: the lognormal, and a skewed one that holds the shapes of posteriors.

A branch on which the data put about a substitutions has a posterior like a Gamma(a + 1): log b falls off
exponentially to the left, with slope a + 1 (1 where there are none), and double exponentially to the right.
Lognormals, and other transforms of normal noise with tails like its own, lack the left tail, and the weights
of short branches then have infinite variance. The skewed density here is that of the logarithm of an
exponentiated Weibull variable (Mudholkar & Srivastava 1993), which has both tails, approximates log-gamma
densities of any shape to about 1e-4 nats, and has a density and a quantile function in closed form.

With L(x) = -log(1 - exp(-x)), an involution, Phi the normal distribution function, and standard normal noise,

    E = -log Phi(noise),   G = L(E / alpha),   x = log G,   y = loc + (x - h) / k,

so that F(y) = (1 - exp(-G))^alpha with G = exp(h + k (y - loc)): at the left q(y) ~ exp(alpha k y). The three
parameters are h = -skew, and location and log scale, standardised by the conditions y = loc and dy/dnoise =
scale at noise 0. With G0 = exp(h) these give

    alpha = log 2 / L(G0),   k = c / scale,   c = C L(G0) (exp(G0) - 1) / G0,   C = 2 phi(0) / log 2,

and then, with l = log(1 - exp(-G)),

    log q(y) = log k + log alpha + (alpha - 1) l - G + x.

Derivatives. d log alpha / dh = C / c, and r = d log c / dh = G0 / (1 - exp(-G0)) - 1 - C / c. With

    D = d log q / dx = 1 - G + (alpha - 1) G / (exp(G) - 1)

follow

    d log q / dy         = k D = -(d log q / d loc),
    d log q / d log_scale = -1 - (x - h) D,
    d log q / dh         = r + (C / c) (1 + alpha l) + (1 + r (x - h)) D,

and for the path, at fixed noise, from dx/dlog alpha = -l (exp(G) - 1) / G,

    dy/dloc = 1,   dy/dlog_scale = y - loc,   dy/dh = ((C / c) (-l) (exp(G) - 1) / G - 1) / k - r (y - loc).

The functions work elementwise on arrays of numpy or torch that broadcast against each other, in their own
precision; in torch they are differentiable in all but the noise. `vbpi_mix.branches._kernels` computes the
same, and the derivatives, from a parameter table at the speed that training needs.

References:
    Mudholkar & Srivastava (1993), Exponentiated Weibull family for analyzing bathtub failure-rate data, IEEE
    Transactions on Reliability 42(2):299-302.
"""

import math
from types import ModuleType
from typing import Any, TypeAlias

from array_api_compat import array_namespace, is_torch_array

Array: TypeAlias = Any
"""A floating-point array of numpy or torch; those of one call must broadcast against each other."""

SLOPE = 2.0 / math.sqrt(2.0 * math.pi) / math.log(2.0)
"""C: minus the logarithmic derivative of -log Phi at 0."""

_FAR = 36.0
"""Where exp(-_FAR) is added to 1, nothing is left of it in double precision."""


def transform(noise: Array, loc: Array, log_scale: Array, skew: Array | None = None) -> Array:
    """Log branch lengths made from standard normal noise.

    Args:
        noise: standard normal draws.
        loc: median of y, in log expected substitutions per site.
        log_scale: logarithm of dy/dnoise at the median.
        skew: large values lengthen the lower tail; None is the lognormal.
    """
    xp = array_namespace(noise, loc, log_scale)
    scale = xp.exp(log_scale)
    if skew is None:
        return loc + scale * noise
    log_alpha, c = _shape(xp, skew)
    x = _log_involution(xp, _minus_log_normal_cdf(noise) * xp.exp(-log_alpha))
    return loc + scale / c * (x + skew)


def inverse(log_lengths: Array, loc: Array, log_scale: Array, skew: Array | None = None) -> Array:
    """Noise that `transform` turns into these log branch lengths: numpy only where there is skew."""
    xp = array_namespace(log_lengths, loc, log_scale)
    z = (log_lengths - loc) / xp.exp(log_scale)
    if skew is None:
        return z
    from scipy.special import ndtri_exp

    log_alpha, c = _shape(xp, skew)
    return ndtri_exp(-xp.exp(log_alpha) * _involution_of_exp(xp, c * z - skew))


def log_density(log_lengths: Array, loc: Array, log_scale: Array, skew: Array | None = None) -> Array:
    """Normalised log density of y, in nats, with respect to dy (not to the branch length exp(y) itself)."""
    xp = array_namespace(log_lengths, loc, log_scale)
    z = (log_lengths - loc) / xp.exp(log_scale)
    if skew is None:
        return -0.5 * z * z - 0.5 * math.log(2.0 * math.pi) - log_scale
    log_alpha, c = _shape(xp, skew)
    x = c * z - skew
    minus_l = _involution_of_exp(xp, x)
    return xp.log(c) - log_scale + log_alpha - (xp.exp(log_alpha) - 1.0) * minus_l - xp.exp(x) + x


def _shape(xp: ModuleType, skew: Array) -> tuple[Array, Array]:
    """Log alpha and c."""
    G0 = xp.exp(-skew)
    L0 = _involution(xp, G0)
    return math.log(math.log(2.0)) - xp.log(L0), SLOPE * L0 * xp.expm1(G0) / G0


def _involution(xp: ModuleType, x: Array) -> Array:
    """L(x) = -log(1 - exp(-x)), for x > 0, of full relative precision."""
    is_small = x < math.log(2.0)
    one = xp.ones_like(x)
    small = -xp.log(-xp.expm1(-xp.where(is_small, x, one)))
    large = -xp.log1p(-xp.exp(-xp.where(is_small, one, x)))
    return xp.where(is_small, small, large)


def _involution_of_exp(xp: ModuleType, x: Array) -> Array:
    """L(exp(x)), also where exp(x) is too small to be held."""
    is_far = x < -_FAR
    return xp.where(is_far, -x, _involution(xp, xp.exp(xp.where(is_far, xp.zeros_like(x), x))))


def _log_involution(xp: ModuleType, t: Array) -> Array:
    """log L(t), also where L(t) is too small to be held."""
    is_far = t > _FAR
    return xp.where(is_far, -t, xp.log(_involution(xp, xp.where(is_far, xp.ones_like(t), t))))


def _minus_log_normal_cdf(noise: Array) -> Array:
    """-log Phi(noise), of full relative precision on the left and right."""
    if is_torch_array(noise):
        import torch

        return -torch.special.log_ndtr(noise)
    from scipy.special import log_ndtr

    return -log_ndtr(noise)
