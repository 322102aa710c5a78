"""Free parameters of a substitution model on an unconstrained scale, their prior, and derivatives back.

The coordinates z of a tree's model, in this order, each present where the model leaves it free:

- **exchangeabilities**: the K classes of exchangeabilities that the family tells apart, one value each, are
  points of a simplex; K - 1 coordinates. K80 and HKY have two classes, transversions and transitions, so that
  kappa is the ratio of the second to the first; TN has transversions, AG, CT; SYM and GTR have six.
- **frequencies**: a point of a simplex; three coordinates.
- **shape** of the gamma distribution of rates: its logarithm.
- **invariable**: the probability p of invariable sites: its logit.

A point of a simplex with K corners is ``softmax(V z)``, where the K - 1 columns of V are orthonormal and
orthogonal to the vector of ones (Helmert's contrasts): isometric log-ratio coordinates (Egozcue et al. 2003).
No corner is singled out, z = 0 is the centre, and a density that is round about it treats all corners alike.
With a_i = log(p_i / p_K) the determinant of dp/da is prod_i p_i and that of da/dz is sqrt(K), so that a
Dirichlet(c, ..., c) density becomes ``log Gamma(K c) - K log Gamma(c) + c sum_i log p_i + log(K) / 2``, with
the gradient ``c V^T (1 - K p)``.

Priors, by default those of MrBayes: Dirichlet(1, ..., 1) on classes of exchangeabilities and on frequencies
(for kappa this is Beta(1, 1) on kappa / (1 + kappa); MrBayes has no TN, for which this is its analogue),
Exponential(1) on the shape, Uniform(0, 1) on the probability of invariable sites.

Rates have the mean one with the invariable sites counted: a category of gamma rate g has the rate ``g / (1 -
p)`` and the weight ``(1 - p) / C``.
"""

import math
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float64

from vbpi_mix.likelihood import _parameter_kernel
from vbpi_mix.likelihood.model_names import CLASSES, ModelSpec
from vbpi_mix.likelihood.models import EXCHANGEABILITIES, NUCLEOTIDES, ModelParameters, SubstitutionModel
from vbpi_mix.patterns import SitePatterns

Coordinates: TypeAlias = Float64[np.ndarray, "tree coordinate"]
"""Free parameters of every tree's model on the unconstrained scale."""

_TOLERANCE = 1e-13
_MAX_ROUNDS = 1000


@dataclass(frozen=True)
class ModelPriors:
    """Prior densities of a model's free parameters; the defaults are those of MrBayes.

    Attributes:
        exchangeabilities: Concentration of the symmetric Dirichlet distribution of their classes.
        frequencies: Concentration of the symmetric Dirichlet distribution of the frequencies.
        shape_rate: Rate of the exponential distribution of the gamma shape.
    """

    exchangeabilities: float = 1.0
    frequencies: float = 1.0
    shape_rate: float = 1.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not (value > 0.0 and math.isfinite(value)):
                raise ValueError(f"{name} of a prior must be positive and finite, got {value}.")


class DrawnModels(NamedTuple):
    """Models of some trees, and what their derivatives need.

    Attributes:
        parameters: Of every tree's model.
        gamma: Gamma rates of mean one, and their derivatives by the shape.
    """

    parameters: ModelParameters
    gamma: Float64[np.ndarray, "2 tree category"]


@dataclass(frozen=True, eq=False)
class ModelTransform:
    """The map from coordinates of free parameters to a model, for batches of trees.

    Attributes:
        spec: The model.
        priors: Priors of its free parameters.
        frequencies: Frequencies where they are not estimated; else the starting ones.
    """

    spec: ModelSpec
    priors: ModelPriors
    frequencies: Float64[np.ndarray, "4"]

    @property
    def num_coordinates(self) -> int:
        """Number of free parameters."""
        return self._parts[-1].stop

    @property
    def num_categories(self) -> int:
        """Number of rate categories, invariable sites not counted."""
        return self.spec.num_categories

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Names of what `named_parameters` reports, after MrBayes."""
        spec, names = self.spec, []
        if spec.exchangeabilities is None:
            num_classes = max(CLASSES[spec.family]) + 1
            names += {2: ["kappa"], 3: ["kappa(A<->G)", "kappa(C<->T)"]}.get(
                num_classes, [f"r({x[0]}<->{x[1]})" for x in EXCHANGEABILITIES]
            )
        if spec.frequencies == "estimated":
            names += [f"pi({x})" for x in NUCLEOTIDES]
        if self._has_shape():
            names.append("alpha")
        if self._has_invariable():
            names.append("pinvar")
        return tuple(names)

    def parameters(self, coordinates: Coordinates) -> ModelParameters:
        """Model of every tree.

        Args:
            coordinates: Free parameters on the unconstrained scale.
        """
        return self.models(coordinates).parameters

    def models(self, coordinates: Coordinates) -> DrawnModels:
        """Model of every tree, with what `pull_back` needs.

        Args:
            coordinates: Free parameters on the unconstrained scale.
        """
        num_trees, num_categories = len(coordinates), self.num_categories
        models = DrawnModels(
            ModelParameters.empty(num_trees, num_categories), np.empty((2, num_trees, num_categories))
        )
        sizes, classes, fixed, _ = self._arrays
        _parameter_kernel.forward(
            np.ascontiguousarray(coordinates), sizes, classes, fixed, *models.parameters, models.gamma
        )
        return models

    def log_prior(self, coordinates: Coordinates) -> Float64[np.ndarray, "tree"]:
        """Log prior density of the coordinates in nats, Jacobian included.

        Args:
            coordinates: Free parameters on the unconstrained scale.
        """
        return self.log_prior_and_gradient(coordinates)[0]

    def log_prior_and_gradient(
        self, coordinates: Coordinates
    ) -> tuple[Float64[np.ndarray, "tree"], Coordinates]:
        """Log prior density of the coordinates in nats, Jacobian included, and its derivatives by them.

        Args:
            coordinates: Free parameters on the unconstrained scale.
        """
        log_density, gradient = np.empty(len(coordinates)), np.empty(coordinates.shape)
        sizes, _, _, priors = self._arrays
        _parameter_kernel.fill_prior(np.ascontiguousarray(coordinates), sizes, priors, log_density, gradient)
        return log_density, gradient

    def log_jacobian(self, coordinates: Coordinates) -> Float64[np.ndarray, "tree"]:
        """What `log_prior` exceeds the log prior density of the parameters themselves by, in nats.

        Densities on a simplex are of all its points but one, as the Dirichlet's is.

        Args:
            coordinates: Free parameters on the unconstrained scale.
        """
        total = np.zeros(coordinates.shape[0])
        rates, frequencies, shape, invariable = (coordinates[:, part] for part in self._parts)
        for part in (rates, frequencies):
            if part.shape[1]:
                total += np.log(_simplex(part)).sum(1) + 0.5 * math.log(part.shape[1] + 1)
        total += shape.sum(1)
        return total - (np.logaddexp(0.0, invariable) + np.logaddexp(0.0, -invariable)).sum(1)

    def pull_back(
        self, coordinates: Coordinates, models: DrawnModels, derivatives: ModelParameters
    ) -> Coordinates:
        """Derivatives by the coordinates, from those by the parameters of the models.

        Args:
            coordinates: Free parameters on the unconstrained scale.
            models: What `models` returned for them.
            derivatives: Of any function by the model's parameters, as a likelihood returns them.
        """
        gradient = np.empty(coordinates.shape)
        sizes, classes, _, _ = self._arrays
        _parameter_kernel.backward(
            np.ascontiguousarray(coordinates),
            sizes,
            classes,
            models.parameters.invariable,
            models.gamma,
            *derivatives,
            gradient,
        )
        return gradient

    def named_parameters(self, coordinates: Coordinates) -> Float64[np.ndarray, "tree reported"]:
        """Free parameters on the scale that people report, in the order of `parameter_names`.

        Exchangeabilities sum to one, as in MrBayes; kappa is relative to transversions.

        Args:
            coordinates: Free parameters on the unconstrained scale.
        """
        rates, frequencies, shape, invariable = (coordinates[:, part] for part in self._parts)
        parts = []
        if rates.shape[1]:
            simplex = _simplex(rates)
            parts.append(simplex if simplex.shape[1] == 6 else simplex[:, 1:] / simplex[:, :1])
        if frequencies.shape[1]:
            parts.append(_simplex(frequencies))
        parts += [np.exp(shape), _logistic(invariable)]
        return np.concatenate(parts, 1)

    def start(self) -> Float64[np.ndarray, "coordinate"]:
        """Coordinates to start from: equal exchangeabilities, `frequencies`, shape one, p of one tenth."""
        start = np.zeros(self.num_coordinates)
        _, at_frequencies, _, at_invariable = self._parts
        if at_frequencies.stop > at_frequencies.start:
            start[at_frequencies] = np.log(self.frequencies) @ _contrasts(4)
        start[at_invariable] = -math.log(9.0)
        return start

    def model(self) -> SubstitutionModel:
        """The model of which nothing is free, for a likelihood of one model.

        Raises:
            ValueError: The model has free parameters.
        """
        if self.num_coordinates:
            raise ValueError(f"{self.spec.name} has free parameters: {', '.join(self.parameter_names)}.")
        one = self.parameters(np.empty((1, 0)))
        rates, weights = one.category_rates[0], one.category_weights[0]
        if one.invariable[0] > 0.0:
            rates = np.concatenate(([0.0], rates))
            weights = np.concatenate((one.invariable, weights))
        return SubstitutionModel(one.frequencies[0], one.exchangeabilities[0], rates, weights)

    def _has_shape(self) -> bool:
        return self.spec.num_categories > 1 and self.spec.shape is None

    def _has_invariable(self) -> bool:
        return self.spec.has_invariable and self.spec.invariable is None

    @cached_property
    def _parts(self) -> tuple[slice, slice, slice, slice]:
        """Where the coordinates of each kind are."""
        spec = self.spec
        sizes = (
            max(CLASSES[spec.family]) if spec.exchangeabilities is None else 0,
            3 if spec.frequencies == "estimated" else 0,
            int(self._has_shape()),
            int(self._has_invariable()),
        )
        ends = np.cumsum((0, *sizes)).tolist()
        first, second, third, fourth = (slice(a, b) for a, b in pairwise(ends))
        return first, second, third, fourth

    @cached_property
    def _arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """What the compiled kernel wants: sizes of the parts, classes, fixed values, priors."""
        spec, priors = self.spec, self.priors
        exchangeabilities = np.ones(6) if spec.exchangeabilities is None else spec.exchangeabilities
        return (
            np.array([part.stop - part.start for part in self._parts]),
            np.array(CLASSES[spec.family]),
            np.concatenate(
                (self.frequencies, exchangeabilities, [spec.shape or 1.0], [spec.invariable or 0.0])
            ).astype(np.float64),
            np.array([priors.exchangeabilities, priors.frequencies, priors.shape_rate], np.float64),
        )


def make_transform(
    spec: ModelSpec, patterns: SitePatterns, priors: ModelPriors | None = None
) -> ModelTransform:
    """The map of a model's free parameters, with frequencies from the data where the model wants them.

    Args:
        spec: The model, as of `vbpi_mix.likelihood.model_names.parse_model`.
        patterns: Data that empirical, or starting, frequencies come from.
        priors: Priors of the free parameters; those of MrBayes if None.
    """
    match spec.frequencies:
        case "equal":
            frequencies = np.full(4, 0.25)
        case "empirical" | "estimated":
            frequencies = empirical_frequencies(patterns)
        case values:
            frequencies = np.array(values)
    return ModelTransform(spec, ModelPriors() if priors is None else priors, frequencies)


def empirical_frequencies(patterns: SitePatterns) -> Float64[np.ndarray, "4"]:
    """Frequencies of the nucleotides in an alignment; an ambiguity counts for each in proportion to them.

    They are the fixed point of that rule, by repetition. Missing data do not count. A nucleotide that the
    data do not have gets the frequency of half an observation, as frequencies must be positive.

    Args:
        patterns: The data.
    """
    counts = np.zeros(16)
    np.add.at(counts, patterns.states, np.broadcast_to(patterns.weights, patterns.states.shape))
    counts[[0, 15]] = 0.0
    bits = (np.arange(16)[:, None] >> np.arange(4) & 1).astype(np.float64)
    frequencies = np.full(4, 0.25)
    if counts.sum() == 0.0:
        return frequencies
    for _ in range(_MAX_ROUNDS):
        shares = bits * frequencies
        totals = counts @ (shares / np.maximum(shares.sum(1, keepdims=True), 1e-300))
        before, frequencies = frequencies, totals / totals.sum()
        if np.abs(frequencies - before).max() < _TOLERANCE:
            break
    positive = np.maximum(frequencies, 0.5 / counts.sum())
    return positive / positive.sum()


@cache
def _contrasts(size: int) -> np.ndarray:
    """Helmert's contrasts: orthonormal columns, orthogonal to the vector of ones [size, size - 1]."""
    columns = np.zeros((size, max(size - 1, 0)))
    for k in range(1, size):
        columns[:k, k - 1] = 1.0
        columns[k, k - 1] = -k
        columns[:, k - 1] /= math.sqrt(k * (k + 1))
    columns.setflags(write=False)
    return columns


def _simplex(coordinates: np.ndarray) -> np.ndarray:
    """Points of a simplex [tree, K] from isometric log-ratio coordinates [tree, K - 1]."""
    logits = coordinates @ _contrasts(coordinates.shape[1] + 1).T
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def _logistic(logits: np.ndarray) -> np.ndarray:
    return 0.5 * (1.0 + np.tanh(0.5 * logits))
