# mypy: disable-error-code="no-untyped-def"
"""Compiled kernel of discrete gamma rates and their derivatives by the shape.

The regularised incomplete gamma function is ``P(a, x) = x^a exp(-x) / Gamma(a + 1) sum_n t_n`` with ``t_0 =
1`` and ``t_n = t_{n-1} x / (a + n)``, all of them positive; term by term,

    dP/da = x^a exp(-x) / Gamma(a + 1) sum_n t_n (log x - digamma(a + n + 1)).

The quantile q of probability p is found in ``y = log x``: ``log P(a, exp(y))`` is concave in y, as the
density of y is log-concave, so that Newton's method from a point to the left of the root stays to its left
and ascends to it. As ``P(a, x) <= x^a / Gamma(a + 1)``, ``y = (log p + log Gamma(a + 1)) / a`` is one.

With the quantiles q_i of i / C, slices of Gamma(a, rate = a) have the mean rates ``C (B_{i+1} - B_i)``, where
``B_i = P(a + 1, q_i) = i / C - g_i`` and ``g_i = q_i^a exp(-q_i) / Gamma(a + 1)`` (Yang 1994, eq. 10). Since
``dq/da = -(dP/da) q / (a g)``,

    d log g / da = log q - digamma(a + 1) - (1 - q / a) (dP/da) / g.
"""

import math

import numpy as np
from numba import njit

_EPSILON = 1e-17
_MAX_ITERATIONS = 200


@njit(cache=True, nogil=True)
def fill_rates(shapes, rates, slopes):
    """Mean rates of equally probable slices of gamma distributions of mean one, and derivatives by the shape.

    Args:
        shapes: Shapes of the distributions, positive and finite [tree].
        rates: Filled with rates [tree, category].
        slopes: Filled with their derivatives [tree, category].
    """
    num_categories = rates.shape[1]
    for tree in range(shapes.shape[0]):
        below, d_below = 0.0, 0.0
        for category in range(num_categories):
            above, d_above = 1.0, 0.0
            if category < num_categories - 1:
                above, d_above = _mean_below(shapes[tree], (category + 1.0) / num_categories)
            rates[tree, category] = max(num_categories * (above - below), 0.0)
            slopes[tree, category] = num_categories * (d_above - d_below)
            below, d_below = above, d_above


@njit(nogil=True)
def _mean_below(shape, probability):
    """``B`` of the quantile of a probability, and its derivative by the shape."""
    log_gamma = math.lgamma(shape + 1.0)
    log_probability = math.log(probability)
    y = (log_probability + log_gamma) / shape
    for _ in range(_MAX_ITERATIONS):
        x = math.exp(y)
        total, _ = _series(shape, x, y)
        excess = shape * y - x - log_gamma + math.log(total) - log_probability
        step = -excess * total / shape  # d log P / dy = x p(x) / P = shape / total
        y += step
        if abs(step) <= 1e-15 * max(abs(y), 1.0):
            break
    x = math.exp(y)
    _, weighted = _series(shape, x, y)
    g = math.exp(shape * y - x - log_gamma)
    slope = g * (y - digamma(shape + 1.0) - (1.0 - x / shape) * weighted)
    return probability - g, -slope


@njit(nogil=True)
def _series(shape, x, log_x):
    """``sum_n t_n``, and ``sum_n t_n (log x - digamma(shape + n + 1))``."""
    term, total = 1.0, 1.0
    excess = log_x - digamma(shape + 1.0)
    weighted = excess
    n = 0
    while term > _EPSILON * total or x > shape + n:
        n += 1
        term *= x / (shape + n)
        excess -= 1.0 / (shape + n)
        total += term
        weighted += term * excess
    return total, weighted


@njit(nogil=True)
def digamma(x):
    """Derivative of log Gamma for positive x: recurrence up to ten, then the asymptotic series."""
    total = 0.0
    while x < 10.0:
        total -= 1.0 / x
        x += 1.0
    z = 1.0 / (x * x)
    series = z * (
        1.0 / 12.0
        - z * (1.0 / 120.0 - z * (1.0 / 252.0 - z * (1.0 / 240.0 - z * (1.0 / 132.0 - z * 691.0 / 32760.0))))
    )
    return total + np.log(x) - 0.5 / x - series
