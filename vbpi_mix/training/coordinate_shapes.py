"""Skewed shapes for the densities of a model's coordinates, fitted to weighted draws.

Where the data say little of a rate, its posterior falls off exponentially on the logarithmic scale on one
side, as a branch's does. So the shapes are those of branch lengths (`vbpi_mix.branches.densities`), in either
direction, shifted and scaled to the mean zero and the variance one. What is left is one number, the skew, and
the direction; both are chosen from a grid by the weighted log density of binned draws.
"""

from functools import cache
from typing import TypeAlias

import numpy as np
from jaxtyping import Float64

from vbpi_mix.branches.densities import inverse, log_density, transform

GRID = np.linspace(-1.4, 2.0, 18)
"""Skews to choose from, from about none to the logarithm of an exponential variable and beyond."""

FARTHEST = 40.0
"""Standard deviations beyond which densities and noise are taken as those there: no draw comes near."""

_NUM_BINS = 400
_WIDEST = 12.0
_NUM_NODES = 200

Shapes: TypeAlias = Float64[np.ndarray, "... 4"]
"""Location, log scale, skew, and direction (1 or -1) of a coordinate's shape."""


def warp(noise: Float64[np.ndarray, "*batch"], shapes: Shapes) -> Float64[np.ndarray, "*batch"]:
    """Standardised coordinates made from standard normal noise."""
    location, log_scale, skew, direction = np.moveaxis(shapes, -1, 0)
    return direction * transform(direction * noise, location, log_scale, skew)


def unwarp(values: Float64[np.ndarray, "*batch"], shapes: Shapes) -> Float64[np.ndarray, "*batch"]:
    """The noise that `warp` makes these values of."""
    location, log_scale, skew, direction = np.moveaxis(shapes, -1, 0)
    return direction * _near(inverse(_near(direction * values), location, log_scale, skew))


def log_densities(values: Float64[np.ndarray, "*batch"], shapes: Shapes) -> Float64[np.ndarray, "*batch"]:
    """Log density of standardised coordinates, each on its own, in nats."""
    location, log_scale, skew, direction = np.moveaxis(shapes, -1, 0)
    return log_density(_near(direction * values), location, log_scale, skew)


def fit_shapes(
    values: Float64[np.ndarray, "draw coordinate"], weights: Float64[np.ndarray, "draw"]
) -> Float64[np.ndarray, "coordinate 4"]:
    """For every coordinate the shape of the grid under which weighted draws are most probable.

    Args:
        values: Draws of about mean zero and variance one.
        weights: Their weights, not normalised.
    """
    shapes, table = _candidates()
    edges = np.linspace(-_WIDEST, _WIDEST, _NUM_BINS + 1)
    inside = np.clip(values, edges[0], edges[-1])
    binned = [np.histogram(column, edges, weights=weights)[0] for column in inside.T]
    return shapes[(np.array(binned) @ table.T).argmax(1)]


@cache
def _candidates() -> tuple[np.ndarray, np.ndarray]:
    """Shapes of the grid in both directions [candidate, 4], and their log densities in bins."""
    nodes, masses = np.polynomial.hermite_e.hermegauss(_NUM_NODES)
    masses = masses / masses.sum()
    plain = transform(nodes, np.zeros((len(GRID), 1)), np.zeros((len(GRID), 1)), GRID[:, None])
    mean = plain @ masses
    sd = np.sqrt((plain - mean[:, None]) ** 2 @ masses)
    one = np.column_stack((-mean / sd, -np.log(sd), GRID, np.ones(len(GRID))))
    other = one * [1.0, 1.0, 1.0, -1.0]
    shapes = np.concatenate((one, other))
    width = 2.0 * _WIDEST / _NUM_BINS
    centres = np.linspace(-_WIDEST + 0.5 * width, _WIDEST - 0.5 * width, _NUM_BINS)
    return shapes, log_densities(np.tile(centres, (len(shapes), 1)), shapes[:, None])


def _near(values: np.ndarray) -> np.ndarray:
    return np.clip(values, -FARTHEST, FARTHEST)
