# mypy: disable-error-code="no-untyped-def"
"""Compiled kernel of the map from coordinates to a model's parameters, its derivative, and the prior.

The definitions are those of `vbpi_mix.likelihood.model_parameters`. Helmert's contrasts V, an orthonormal
basis, have ``V[j, k - 1] = 1 / sqrt(k (k + 1))`` for j < k, ``V[k, k - 1] = -k / sqrt(k (k + 1))``, or zero.

Arguments that all functions share:

- coordinates: Free parameters of every tree's model [tree, coordinate];
- sizes: Numbers of coordinates of exchangeabilities, frequencies, shape and invariable sites [4].
"""

import math

import numpy as np
from numba import njit

from vbpi_mix.likelihood._gamma_kernel import fill_rates


@njit(nogil=True)
def _fill_simplex(coordinates, simplex):
    """Point of a simplex that has a corner more than coordinates; returns the sum of its logarithms."""
    size = coordinates.shape[0] + 1
    simplex[:size] = 0.0
    for k in range(1, size):
        step = coordinates[k - 1] / math.sqrt(k * (k + 1.0))
        for j in range(k):
            simplex[j] += step
        simplex[k] -= k * step
    largest = simplex[:size].max()
    total, sum_of_logs = 0.0, 0.0
    for k in range(size):
        sum_of_logs += simplex[k] - largest
        simplex[k] = math.exp(simplex[k] - largest)
        total += simplex[k]
    for k in range(size):
        simplex[k] /= total
    return sum_of_logs - size * math.log(total)


@njit(nogil=True)
def _pull_back(derivatives, coordinates, gradient):
    """``V^T`` times derivatives by the logarithms of corners."""
    before = derivatives[0]
    for k in range(1, coordinates + 1):
        gradient[k - 1] = (before - k * derivatives[k]) / math.sqrt(k * (k + 1.0))
        before += derivatives[k]


@njit(cache=True, nogil=True)
def forward(
    coordinates, sizes, classes, fixed, frequencies, exchangeabilities, rates, weights, invariable, gamma
):
    """Models of the trees.

    Args:
        coordinates: See above.
        sizes: See above.
        classes: Class of every exchangeability [6].
        fixed: What holds where it is not free: frequencies, exchangeabilities, shape, invariable sites [12].
        frequencies: Filled, unless they are free filled with the fixed ones [tree, 4]; likewise:
        exchangeabilities: [tree, 6].
        rates: Rates of the categories [tree, category].
        weights: Probabilities of the categories [tree, category].
        invariable: Probabilities of invariable sites [tree].
        gamma: Filled with gamma rates of mean one and their derivatives by the shape [2, tree, category].
    """
    num_trees, num_categories = rates.shape
    second, third, fourth = sizes[0], sizes[0] + sizes[1], sizes[0] + sizes[1] + sizes[2]
    corners = np.empty(6)
    shapes = np.full(num_trees, fixed[10])
    gamma[0] = 1.0
    gamma[1] = 0.0
    for tree in range(num_trees):
        own = coordinates[tree]
        if sizes[0] > 0:
            _fill_simplex(own[:second], corners)
            for k in range(6):
                exchangeabilities[tree, k] = corners[classes[k]]
        else:
            exchangeabilities[tree] = fixed[4:10]
        if sizes[1] > 0:
            _fill_simplex(own[second:third], frequencies[tree])
        else:
            frequencies[tree] = fixed[:4]
        if sizes[2] > 0:
            shapes[tree] = math.exp(own[third])
        invariable[tree] = fixed[11]
        if sizes[3] > 0:
            invariable[tree] = 0.5 * (1.0 + math.tanh(0.5 * own[fourth]))
    if num_categories > 1:
        fill_rates(shapes, gamma[0], gamma[1])
    for tree in range(num_trees):
        varying = 1.0 - invariable[tree]
        for c in range(num_categories):
            rates[tree, c] = gamma[0, tree, c] / varying
            weights[tree, c] = varying / num_categories


@njit(cache=True, nogil=True)
def backward(
    coordinates,
    sizes,
    classes,
    invariable,
    gamma,
    by_frequency,
    by_exchangeability,
    by_rate,
    by_weight,
    by_invariable,
    gradient,
):
    """From derivatives by parameters to those by coordinates.

    Args:
        coordinates: See above.
        sizes: See above.
        classes: Class of every exchangeability [6].
        invariable: Of `forward` [tree].
        gamma: Of `forward` [2, tree, category].
        by_frequency: Derivatives by frequencies [tree, 4]; and:
        by_exchangeability: [tree, 6].
        by_rate: [tree, category].
        by_weight: [tree, category].
        by_invariable: [tree].
        gradient: Filled with derivatives by the coordinates [tree, coordinate].
    """
    second, third, fourth = sizes[0], sizes[0] + sizes[1], sizes[0] + sizes[1] + sizes[2]
    corners, by_corner = np.empty(6), np.empty(6)
    for tree in range(coordinates.shape[0]):
        own, slope = coordinates[tree], gradient[tree]
        if sizes[0] > 0:
            by_corner[:] = 0.0
            for k in range(6):
                by_corner[classes[k]] += by_exchangeability[tree, k]
            _fill_simplex(own[:second], corners)
            _pull_back_simplex(corners, by_corner, sizes[0], slope)
        if sizes[1] > 0:
            by_corner[:4] = by_frequency[tree]
            _fill_simplex(own[second:third], corners)
            _pull_back_simplex(corners, by_corner, sizes[1], slope[second:])
        varying = 1.0 - invariable[tree]
        if sizes[2] > 0:
            by_shape = 0.0
            for c in range(by_rate.shape[1]):
                by_shape += by_rate[tree, c] * gamma[1, tree, c] / varying
            slope[third] = by_shape * math.exp(own[third])
        if sizes[3] > 0:
            total = by_invariable[tree]
            for c in range(by_rate.shape[1]):
                total -= by_weight[tree, c] / by_weight.shape[1]
                total += by_rate[tree, c] * gamma[0, tree, c] / varying**2
            slope[fourth] = total * invariable[tree] * varying


@njit(nogil=True)
def _pull_back_simplex(corners, derivatives, num_coordinates, gradient):
    """Derivatives by coordinates from those by the corners, which are replaced."""
    mean = 0.0
    for k in range(num_coordinates + 1):
        mean += corners[k] * derivatives[k]
    for k in range(num_coordinates + 1):
        derivatives[k] = corners[k] * (derivatives[k] - mean)
    _pull_back(derivatives, num_coordinates, gradient)


@njit(cache=True, nogil=True)
def fill_prior(coordinates, sizes, priors, log_density, gradient):
    """Log prior densities of coordinates, and their gradients.

    Args:
        coordinates: See above.
        sizes: See above.
        priors: Concentrations of exchangeabilities and of frequencies, rate of the shape [3].
        log_density: Filled with log densities in nats [tree].
        gradient: Filled with derivatives by the coordinates [tree, coordinate].
    """
    corners = np.empty(6)
    third, fourth = sizes[0] + sizes[1], sizes[0] + sizes[1] + sizes[2]
    for tree in range(coordinates.shape[0]):
        own, slope = coordinates[tree], gradient[tree]
        total = 0.0
        start = 0
        for part in range(2):
            stop = start + sizes[part]
            if stop > start:
                size, concentration = stop - start + 1, priors[part]
                total += concentration * _fill_simplex(own[start:stop], corners)
                total += math.lgamma(size * concentration) - size * math.lgamma(concentration)
                total += 0.5 * math.log(size)
                for k in range(size):
                    corners[k] = concentration * (1.0 - size * corners[k])
                _pull_back(corners, size - 1, slope[start:])
            start = stop
        if sizes[2] > 0:
            shape = math.exp(own[third])
            total += math.log(priors[2]) + own[third] - priors[2] * shape
            slope[third] = 1.0 - priors[2] * shape
        if sizes[3] > 0:
            logit = own[fourth]
            total -= abs(logit) + 2.0 * math.log1p(math.exp(-abs(logit)))
            slope[fourth] = -math.tanh(0.5 * logit)
        log_density[tree] = total
