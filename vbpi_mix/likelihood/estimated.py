"""The likelihood of a model with free parameters, as a function of trees and the parameters' coordinates."""

from typing import TypeAlias

import numpy as np

from vbpi_mix.errors import NonFiniteError
from vbpi_mix.likelihood.base import LogLikelihoods, TreeLikelihood
from vbpi_mix.likelihood.compiled import CompiledPerTreeLikelihood
from vbpi_mix.likelihood.model_parameters import Coordinates, DrawnModels, ModelTransform
from vbpi_mix.patterns import SitePatterns
from vbpi_mix.shapes import BranchLengths, Topologies

_LARGEST = 20.0
"""Bound of coordinates: beyond it probabilities come near zero, and gamma rates take long to compute."""


class EstimatedModelLikelihood:
    """Log-likelihoods of trees each of which has a model of its own, given by coordinates.

    Attributes:
        transform: From coordinates to models, with their prior.
    """

    def __init__(
        self, patterns: SitePatterns, transform: ModelTransform, *, threads: int = 1, dtype: str = "float64"
    ) -> None:
        """Allocate, and start the helping threads.

        Args:
            patterns: Data at the leaves.
            transform: The model.
            threads: Number of threads; the result does not depend on it.
            dtype: Precision of the partials: float64 or float32.
        """
        self.transform = transform
        self._of_parameters = CompiledPerTreeLikelihood(
            patterns, transform.num_categories, threads=threads, dtype=dtype
        )

    def value(
        self, children: Topologies, branch_lengths: BranchLengths, coordinates: Coordinates
    ) -> LogLikelihoods:
        """Log-likelihood of every tree in nats: see `CompiledPerTreeLikelihood.value`.

        Args:
            children: Topologies, as defined in `vbpi_mix.trees.topology`.
            branch_lengths: Expected substitutions per site.
            coordinates: Free parameters of every tree's model.
        """
        return self._of_parameters.value(children, branch_lengths, self._models(coordinates).parameters)

    def value_and_gradients(
        self, children: Topologies, branch_lengths: BranchLengths, coordinates: Coordinates
    ) -> tuple[LogLikelihoods, BranchLengths, Coordinates]:
        """Log-likelihood of every tree, derivatives by its branch lengths and by its model's coordinates.

        Args:
            children: Topologies, as defined in `vbpi_mix.trees.topology`.
            branch_lengths: Expected substitutions per site.
            coordinates: Free parameters of every tree's model.
        """
        models = self._models(coordinates)
        value, by_length, by_parameters = self._of_parameters.value_and_gradients(
            children, branch_lengths, models.parameters
        )
        return value, by_length, self.transform.pull_back(coordinates, models, by_parameters)

    def _models(self, coordinates: Coordinates) -> DrawnModels:
        """Models of some coordinates.

        Raises:
            NonFiniteError: A coordinate is not finite, or so large that a probability is zero.
        """
        if not (np.isfinite(coordinates).all() and np.abs(coordinates).max(initial=0.0) < _LARGEST):
            tree = int(np.argmax(~(np.abs(coordinates).max(1) < _LARGEST)))
            raise NonFiniteError(
                f"Tree {tree}: the coordinates of its substitution model are {coordinates[tree].tolist()}; "
                f"each must be finite and within {_LARGEST:g} of zero"
            )
        return self.transform.models(coordinates)


AnyLikelihood: TypeAlias = TreeLikelihood | EstimatedModelLikelihood
"""Of a model without free parameters, or with."""
