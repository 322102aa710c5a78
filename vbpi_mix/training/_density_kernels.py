# mypy: disable-error-code="no-untyped-def"
"""Compiled kernels of the normal densities of a model's coordinates; see `vbpi_mix.training.model_density`.

With L = diag(s) N, u = L^-1 (z - m) comes by forward substitution in N, w = L'^-1 u by backward substitution.
"""

import math

import numpy as np
from numba import njit

from vbpi_mix.training._kernels import EPSILON, FIRST_DECAY, SECOND_DECAY


@njit(cache=True, nogil=True)
def draw(table, generator_of_tree, denominators, noise, coordinates, log_density, standardised):
    """Coordinates made from noise, and their densities.

    Args:
        table: Of `ModelDensity` [component, coordinate, coordinate + 1].
        generator_of_tree: Position among the denominators of the component to draw each model from [tree].
        denominators: Components whose densities are wanted [denominator].
        noise: Standard normal numbers x [tree, coordinate].
        coordinates: Filled with z [tree, coordinate].
        log_density: Filled with log q_d(z) [tree, denominator].
        standardised: Filled with u under every denominator [tree, denominator, coordinate].
    """
    num_trees, size = noise.shape
    for tree in range(num_trees):
        own = table[denominators[generator_of_tree[tree]]]
        for i in range(size):
            total = noise[tree, i]
            for j in range(i):
                total += own[i, j + 1] * noise[tree, j]
            coordinates[tree, i] = own[i, 0] + math.exp(own[i, i + 1]) * total
    constant = 0.5 * size * math.log(2.0 * math.pi)
    for d in range(denominators.shape[0]):
        own = table[denominators[d]]
        for tree in range(num_trees):
            total = -constant
            for i in range(size):
                u = (coordinates[tree, i] - own[i, 0]) * math.exp(-own[i, i + 1])
                for j in range(i):
                    u -= own[i, j + 1] * standardised[tree, d, j]
                standardised[tree, d, i] = u
                total -= 0.5 * u * u + own[i, i + 1]
            log_density[tree, d] = total


@njit(cache=True, nogil=True)
def add_gradient(
    table, generator_of_tree, denominators, noise, standardised, d_joint, d_path, d_score, slope, touched
):
    """Derivatives by the table; see `vbpi_mix.training.model_density.gradient`.

    Args:
        table: Of `ModelDensity` [component, coordinate, coordinate + 1].
        generator_of_tree: Of `draw` [tree].
        denominators: Of `draw` [denominator].
        noise: Of `draw` [tree, coordinate].
        standardised: Of `draw` [tree, denominator, coordinate].
        d_joint: Derivative by z through the joint density [tree, coordinate].
        d_path: Coefficient of the derivative of log q_d(z) through z [tree, denominator].
        d_score: Coefficient of the direct derivative of log q_d(z) [tree, denominator].
        slope: Added to [component, coordinate, coordinate + 1].
        touched: Set to True for components that have derivatives [component].
    """
    num_trees, size = noise.shape
    w, through, scale = np.empty(size), np.empty(size), np.empty(size)
    for tree in range(num_trees):
        through[:] = d_joint[tree]
        for d in range(denominators.shape[0]):
            own = table[denominators[d]]
            for i in range(size):
                scale[i] = math.exp(own[i, i + 1])
            for i in range(size - 1, -1, -1):
                w[i] = standardised[tree, d, i]
                for k in range(i + 1, size):
                    w[i] -= own[k, i + 1] * (w[k] * scale[k])
                w[i] /= scale[i]
            for i in range(size):
                through[i] -= d_path[tree, d] * w[i]
            score = d_score[tree, d]
            if score != 0.0:
                touched[denominators[d]] = True
                _add(score, w, standardised[tree, d], own, scale, slope[denominators[d]])
                for i in range(size):
                    slope[denominators[d], i, i + 1] -= score
        generator = denominators[generator_of_tree[tree]]
        touched[generator] = True
        own = table[generator]
        for i in range(size):
            scale[i] = math.exp(own[i, i + 1])
        _add(1.0, through, noise[tree], own, scale, slope[generator])


@njit(nogil=True)
def _add(weight, by_mean, direction, own, scale, slope):
    """Add what comes of a derivative by the mean, and of its outer product with `direction` by L."""
    for i in range(by_mean.shape[0]):
        by_scaled = weight * by_mean[i] * scale[i]
        slope[i, 0] += weight * by_mean[i]
        along = direction[i]
        for j in range(i):
            along += own[i, j + 1] * direction[j]
            slope[i, j + 1] += by_scaled * direction[j]
        slope[i, i + 1] += by_scaled * along


@njit(cache=True, nogil=True)
def ascend(rate, table, slope, moments, num_updates, touched):
    """One step of Adam uphill, of the components that are touched.

    Args:
        rate: Learning rate.
        table: Updated [component, coordinate, coordinate + 1].
        slope: Gradient [component, coordinate, coordinate + 1].
        moments: Adam's two moments, updated [component, coordinate, coordinate + 1, 2].
        num_updates: Updates of every component, updated [component].
        touched: Which components move [component].
    """
    for a in range(table.shape[0]):
        if not touched[a]:
            continue
        num_updates[a] += 1
        first_share = 1.0 - FIRST_DECAY ** float(num_updates[a])
        second_share = 1.0 - SECOND_DECAY ** float(num_updates[a])
        for i in range(table.shape[1]):
            for j in range(table.shape[2]):
                own = slope[a, i, j]
                first = FIRST_DECAY * moments[a, i, j, 0] + (1.0 - FIRST_DECAY) * own
                second = SECOND_DECAY * moments[a, i, j, 1] + (1.0 - SECOND_DECAY) * own * own
                moments[a, i, j, 0], moments[a, i, j, 1] = first, second
                step = first / first_share / (math.sqrt(second / second_share) + EPSILON)
                table[a, i, j] += rate * step
