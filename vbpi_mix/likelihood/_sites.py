# mypy: disable-error-code="no-untyped-def"
"""From the likelihoods of a block's site patterns to a sum of logarithms; shared by the compiled kernels."""

from typing import Any

from numba import njit, types
from numba.extending import overload

from vbpi_mix.likelihood._simd import (
    Vector,
    constant,
    horizontal_sum,
    load,
    log,
    num_lanes,
    store,
    to_float64,
)

_LN2 = 0.6931471805599453


@njit(forceinline=True)
def _terms(weight, likelihood, exponent):
    return weight * (log(likelihood) + exponent * constant(likelihood, _LN2))


def _weighted_log(weight: Any, likelihood: Any, exponent: Any) -> Any:
    """Weighted log-likelihoods in float64; two patterns may be added into one number."""
    raise NotImplementedError("only compiled code may call this")


@overload(_weighted_log)
def _typed_weighted_log(weight, likelihood, exponent):
    if not isinstance(likelihood, Vector):
        return None
    if likelihood.element == types.float64:
        return lambda weight, likelihood, exponent: _terms(weight, likelihood, exponent)

    def narrow(weight, likelihood, exponent):
        return _terms(to_float64(weight, 0), to_float64(likelihood, 0), to_float64(exponent, 0)) + _terms(
            to_float64(weight, 1), to_float64(likelihood, 1), to_float64(exponent, 1)
        )

    return narrow


@njit(nogil=True)
def add_log_likelihood(first_pattern, weights, sites, block):
    """Weighted sum of the log-likelihoods of a block's patterns; replaces likelihoods by weight / likelihood.

    Args:
        first_pattern: Position of the block's first pattern in the flat memory of `weights`.
        weights: Pattern weights.
        sites: Site likelihoods f, and exponents k such that 2**k f is the true one [SITE_ROWS, block].
        block: Number of patterns.
    """
    lanes = num_lanes(sites)
    weight, likelihood = load(weights, first_pattern), load(sites, 0)
    total = _weighted_log(weight, likelihood, load(sites, block))
    store(sites, 0, weight / likelihood)
    for k in range(lanes, block, lanes):
        weight, likelihood = load(weights, first_pattern + k), load(sites, k)
        total = total + _weighted_log(weight, likelihood, load(sites, block + k))
        store(sites, k, weight / likelihood)
    return horizontal_sum(total)
