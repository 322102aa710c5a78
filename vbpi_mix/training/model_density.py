r"""Densities of the free parameters of a substitution model: one normal distribution for every component.

The coordinates z of `vbpi_mix.likelihood.model_parameters` have the mean m and the covariance L L', where

    L = diag(s) N,        N unit lower triangular,

so that a row of N says how a coordinate goes along with those before it, in units of its own scale s. A draw
is z = m + L x with standard normal noise x, and with u = L^-1 (z - m)

    log q(z) = -|u|^2 / 2 - sum_i log s_i - (C / 2) log 2 pi,
    d log q / dz = -L'^-1 u =: -w,    d log q / dm = w,    d log q / dL = w u' - diag(1 / L_ii).

After training the components of u may be skewed: then x stands for normal noise, of which each is made by a
shape of its own (`vbpi_mix.training.coordinate_shapes`) of mean zero and variance one.

What a training step needs is compiled (`vbpi_mix.training._density_kernels`). Adam follows the gradient as it
does for branch lengths.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int, Int32

from vbpi_mix.training import _density_kernels
from vbpi_mix.training.coordinate_shapes import Shapes, log_densities, unwarp, warp

INITIAL_LOG_SCALE = -2.0
"""Log of the standard deviation of every coordinate before training."""


class ModelDraws(NamedTuple):
    """Coordinates of the models of some trees, and their densities under some components.

    Attributes:
        coordinates: z.
        generator_of_tree: Position among the denominators of the component that generated each tree's model.
        denominators: Components of the densities, each once.
        log_density: log q_d(z) in nats.
        noise: x, that the generating components made z of.
        standardised: u under every component.
        normal: The normal noise that would give z under every component: u itself where nothing is skewed.
    """

    coordinates: Float64[np.ndarray, "tree coordinate"]
    generator_of_tree: Int[np.ndarray, "tree"]
    denominators: Int32[np.ndarray, "denominator"]
    log_density: Float64[np.ndarray, "tree denominator"]
    noise: Float64[np.ndarray, "tree coordinate"]
    standardised: Float64[np.ndarray, "tree denominator coordinate"]
    normal: Float64[np.ndarray, "tree denominator coordinate"]


@dataclass(frozen=True, eq=False)
class ModelDensity:
    """Densities of a model's coordinates under all components; training updates normal ones in place.

    Attributes:
        table: Of every coordinate its mean, then its row of N below the diagonal, with log s on the diagonal
            and zeros above it [component, coordinate, coordinate + 1].
        shapes: Of the standardised coordinates [component, coordinate, 4]; None: all are normal.
    """

    table: Float64[np.ndarray, "component coordinate coordinate_and_one"]
    shapes: Shapes | None = None

    def __post_init__(self) -> None:
        if np.triu(self.table[:, :, 1:], 1).any():
            raise ValueError("expected zeros above the diagonal of a model density's table, found others")

    @classmethod
    def initial(cls, num_components: int, mean: Float64[np.ndarray, "coordinate"]) -> "ModelDensity":
        """Densities at the start of training: about `mean`, independent and narrow.

        Args:
            num_components: A.
            mean: Where to start, one coordinate at least.
        """
        size = len(mean)
        table = np.zeros((num_components, size, size + 1))
        table[:, :, 0] = mean
        table[:, range(size), range(1, size + 1)] = INITIAL_LOG_SCALE
        return cls(table)

    @classmethod
    def of_moments(
        cls,
        mean: Float64[np.ndarray, "component coordinate"],
        covariance: Float64[np.ndarray, "component coordinate coordinate"],
    ) -> "ModelDensity":
        """Densities of these means and covariances, which must be positive definite."""
        factor = np.linalg.cholesky(covariance)
        scale = np.diagonal(factor, axis1=1, axis2=2)
        rows = factor / scale[:, :, None]
        at = np.arange(mean.shape[1])
        rows[:, at, at] = np.log(scale)
        return cls(np.concatenate((mean[:, :, None], rows), axis=2))

    @property
    def num_coordinates(self) -> int:
        """Number of free parameters, C."""
        return self.table.shape[1]

    @property
    def mean(self) -> Float64[np.ndarray, "component coordinate"]:
        """Means m, a view of the table."""
        return self.table[:, :, 0]

    @property
    def scale(self) -> Float64[np.ndarray, "component coordinate"]:
        """Scales s."""
        return np.exp(np.diagonal(self.table[:, :, 1:], axis1=1, axis2=2))

    def factor(self) -> Float64[np.ndarray, "component coordinate coordinate"]:
        """Lower triangular factors L of the covariances."""
        factor, scale = self.table[:, :, 1:].copy(), self.scale
        at = np.arange(self.num_coordinates)
        factor[:, at, at] = 1.0
        return factor * scale[:, :, None]

    def component(self, number: int) -> "ModelDensity":
        """A copy of one component."""
        assert self.shapes is None  # components are parted for training alone
        return ModelDensity(self.table[number : number + 1].copy())

    def standardise(
        self, coordinates: Float64[np.ndarray, "tree coordinate"], component: int
    ) -> Float64[np.ndarray, "tree coordinate"]:
        """Standardised coordinates u under a component."""
        inverse = np.linalg.inv(self.factor()[component])
        return (coordinates - self.mean[component]) @ inverse.T

    def normal_noise(
        self, coordinates: Float64[np.ndarray, "tree coordinate"], component: int
    ) -> Float64[np.ndarray, "tree coordinate"]:
        """The normal noise that gives these coordinates under a component."""
        standardised = self.standardise(coordinates, component)
        return standardised if self.shapes is None else unwarp(standardised, self.shapes[component])

    def draw(
        self,
        generator_of_tree: Int[np.ndarray, "tree"],
        denominators: Int32[np.ndarray, "denominator"],
        noise: Float64[np.ndarray, "tree coordinate"],
    ) -> ModelDraws:
        """Coordinates made from noise, and their densities under the components `denominators`.

        Args:
            generator_of_tree: Position among the denominators of the component to draw each model from.
            denominators: Components whose densities are wanted, each once.
            noise: Standard normal numbers x.
        """
        generator_of_tree = generator_of_tree.astype(np.int64, copy=False)
        if self.shapes is not None:
            return self._draw_skewed(generator_of_tree, denominators, noise, self.shapes[denominators])
        num_trees, size = noise.shape
        coordinates, log_density = np.empty(noise.shape), np.empty((num_trees, len(denominators)))
        standardised = np.empty((num_trees, len(denominators), size))
        _density_kernels.draw(
            self.table, generator_of_tree, denominators, noise, coordinates, log_density, standardised
        )
        return ModelDraws(
            coordinates, generator_of_tree, denominators, log_density, noise, standardised, standardised
        )

    def _draw_skewed(
        self,
        generator_of_tree: Int[np.ndarray, "tree"],
        denominators: Int32[np.ndarray, "denominator"],
        noise: Float64[np.ndarray, "tree coordinate"],
        shapes: Shapes,
    ) -> ModelDraws:
        """`draw` where the standardised coordinates have shapes, which are those of the denominators."""
        factor, mean = self.factor()[denominators], self.mean[denominators]
        own = warp(noise, shapes[generator_of_tree])
        coordinates = mean[generator_of_tree] + np.einsum("tij,tj->ti", factor[generator_of_tree], own)
        standardised = np.einsum("dij,tdj->tdi", np.linalg.inv(factor), coordinates[:, None] - mean)
        log_density = log_densities(standardised, shapes).sum(2) - np.log(self.scale[denominators]).sum(1)
        normal = unwarp(standardised, shapes)
        return ModelDraws(
            coordinates, generator_of_tree, denominators, log_density, noise, standardised, normal
        )


def gradient(
    density: ModelDensity,
    draws: ModelDraws,
    d_joint: Float64[np.ndarray, "tree coordinate"],
    d_path: Float64[np.ndarray, "tree denominator"],
    d_score: Float64[np.ndarray, "tree denominator"],
) -> tuple[Float64[np.ndarray, "component coordinate coordinate_and_one"], Bool[np.ndarray, "component"]]:
    """Derivatives by the table of the sum that `vbpi_mix.objectives.gradients` describes.

    Args:
        density: What the draws come from.
        draws: What `ModelDensity.draw` returned.
        d_joint: Derivative of the objective by z through the joint density.
        d_path: Coefficient of the derivative of log q_d(z) through z.
        d_score: Coefficient of the direct derivative of log q_d(z).

    Returns:
        The derivatives, and which components have any.
    """
    assert density.shapes is None  # training knows normal densities only
    slope, is_touched = np.zeros_like(density.table), np.zeros(len(density.table), np.bool_)
    _density_kernels.add_gradient(
        density.table,
        draws.generator_of_tree,
        draws.denominators,
        draws.noise,
        draws.standardised,
        d_joint,
        np.ascontiguousarray(d_path),
        np.ascontiguousarray(d_score),
        slope,
        is_touched,
    )
    return slope, is_touched


def ascend(
    rate: float,
    density: ModelDensity,
    slope: Float64[np.ndarray, "component coordinate coordinate_and_one"],
    moments: Float64[np.ndarray, "component coordinate coordinate_and_one 2"],
    num_updates: Int32[np.ndarray, "component"],
    touched: Bool[np.ndarray, "component"],
) -> None:
    """One step of Adam uphill, of the components that are `touched`; the others stay.

    Args:
        rate: Learning rate.
        density: Updated in place.
        slope: Gradient.
        moments: Adam's two moments, updated in place.
        num_updates: Updates of every component, updated in place.
        touched: Which components move.
    """
    _density_kernels.ascend(rate, density.table, slope, moments, num_updates, touched)
