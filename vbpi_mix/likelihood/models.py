"""Time-reversible substitution models of nucleotides, with rate categories.

A model has a rate matrix ``Q[x, y] = exchangeability[x, y] * frequency[y]`` (x != y) whose rows sum to
zero, and C categories of sites: a site is in category c with probability ``w_c`` and then evolves at rate
``r_c``, so that ``P_c(t) = exp(Q r_c t)``. Branch lengths are expected substitutions per site: Q is scaled
to one substitution per unit of time at stationarity, and the rates to a mean ``sum_c w_c r_c`` of one.
Invariable sites are a category of rate zero.

Reversibility makes ``diag(sqrt(f)) Q diag(1 / sqrt(f))`` symmetric, so its eigenvalues are real and its
eigenvectors orthonormal: ``Q = right diag(values) left`` with ``left`` the inverse of ``right``, both at
hand without a solve.
"""

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float64

NUCLEOTIDES = "ACGT"
EXCHANGEABILITIES = ("AC", "AG", "AT", "CG", "CT", "GT")
"""Order of a model's exchangeabilities: the upper triangle of the rate matrix, row by row."""

_UPPER = np.triu_indices(4, 1)
_SUM_TOLERANCE = 1e-6

Frequencies: TypeAlias = Float64[np.ndarray, "4"]
Categories: TypeAlias = Float64[np.ndarray, "category"]


class EigenSystem(NamedTuple):
    """Spectral decomposition ``Q = right @ diag(values) @ left`` of a rate matrix; left inverts right."""

    values: Float64[np.ndarray, "4"]
    right: Float64[np.ndarray, "4 4"]
    left: Float64[np.ndarray, "4 4"]


class ModelParameters(NamedTuple):
    """Parameters of a substitution model for each tree of a batch, or derivatives by them.

    Attributes:
        frequencies: Stationary probabilities of A, C, G, T; positive, sum to one.
        exchangeabilities: Relative, positive, in the order AC, AG, AT, CG, CT, GT; their common scale does
            not matter.
        category_rates: Rates of the categories, not negative. With a mean ``sum_c w_c r_c`` of one, branch
            lengths are expected substitutions per site.
        category_weights: Probabilities of the categories; positive, sum to one less `invariable`.
        invariable: Probability that a site cannot change.
    """

    frequencies: Float64[np.ndarray, "tree 4"]
    exchangeabilities: Float64[np.ndarray, "tree 6"]
    category_rates: Float64[np.ndarray, "tree category"]
    category_weights: Float64[np.ndarray, "tree category"]
    invariable: Float64[np.ndarray, "tree"]

    @classmethod
    def empty(cls, num_trees: int, num_categories: int) -> "ModelParameters":
        """Arrays of any content."""
        return cls(
            np.empty((num_trees, 4)),
            np.empty((num_trees, 6)),
            np.empty((num_trees, num_categories)),
            np.empty((num_trees, num_categories)),
            np.empty(num_trees),
        )


@dataclass(frozen=True, eq=False)
class SubstitutionModel:
    """A general time-reversible model of four states with rate categories.

    Attributes:
        frequencies: Stationary probabilities of A, C, G, T; positive, sum to one.
        exchangeabilities: Relative, positive, in the order AC, AG, AT, CG, CT, GT; their common scale does
            not matter.
        category_rates: Relative rates of the categories, not negative. On construction they are divided by
            their mean ``sum_c w_c r_c``.
        category_weights: Probabilities of the categories; positive, sum to one.

    Raises:
        ValueError: A parameter has the wrong shape, sign or sum.
    """

    frequencies: Frequencies
    exchangeabilities: Float64[np.ndarray, "6"]
    category_rates: Categories
    category_weights: Categories

    def __post_init__(self) -> None:
        _check_positive("frequencies", self.frequencies)
        _check_positive("exchangeabilities", self.exchangeabilities)
        _check_positive("category_weights", self.category_weights)
        if not (np.isfinite(self.category_rates).all() and (self.category_rates >= 0).all()):
            raise ValueError(f"category_rates must be finite and not negative, got {self.category_rates}.")
        frequencies = _normalised("frequencies", self.frequencies)
        weights = _normalised("category_weights", self.category_weights)
        if self.category_rates.shape != weights.shape:
            raise ValueError(
                f"There must be one rate for each of the {weights.size} category weights, "
                f"got {self.category_rates.size} rates."
            )
        mean_rate = float(weights @ self.category_rates)
        if mean_rate == 0.0:
            raise ValueError("At least one of category_rates must be positive, all are zero.")
        rates = self.category_rates / mean_rate
        for name, array in (
            ("frequencies", frequencies),
            ("category_weights", weights),
            ("category_rates", rates),
        ):
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    @property
    def num_categories(self) -> int:
        """Number of rate categories."""
        return int(self.category_rates.size)

    def parameters(self) -> ModelParameters:
        """The model as that of one tree; its categories of rate zero make up the invariable sites."""
        varies = self.category_rates > 0.0
        return ModelParameters(
            self.frequencies[None],
            self.exchangeabilities[None],
            self.category_rates[None, varies],
            self.category_weights[None, varies],
            self.category_weights[None, ~varies].sum(1),
        )

    @property
    def is_jc69(self) -> bool:
        """Whether the model is exactly that of Jukes and Cantor (1969), which has a kernel of its own."""
        return bool(
            self.num_categories == 1
            and (self.frequencies == 0.25).all()
            and (self.exchangeabilities == self.exchangeabilities[0]).all()
        )

    def rate_matrix(self) -> Float64[np.ndarray, "4 4"]:
        """Rate matrix Q: rows sum to zero, ``-sum_x f_x Q[x, x]`` is one substitution per unit time."""
        exchangeability = np.zeros((4, 4))
        exchangeability[_UPPER] = self.exchangeabilities
        rates = (exchangeability + exchangeability.T) * self.frequencies
        np.fill_diagonal(rates, -rates.sum(1))
        return rates / -(self.frequencies @ np.diag(rates))

    def eigen_system(self) -> EigenSystem:
        """Spectral decomposition of the rate matrix; eigenvalues ascend, the last is exactly zero."""
        root = np.sqrt(self.frequencies)
        symmetric = root[:, None] * self.rate_matrix() / root
        values, vectors = np.linalg.eigh((symmetric + symmetric.T) / 2)
        values[-1] = 0.0
        return EigenSystem(values, vectors / root[:, None], vectors.T * root)

    def transition_matrices(
        self, branch_lengths: Float64[np.ndarray, "*branches"]
    ) -> Float64[np.ndarray, "*branches category 4 4"]:
        """Transition matrices ``P_c(t) = exp(Q r_c t)``; rows sum to one, entries are probabilities.

        They are computed as ``I + right diag(expm1(values r_c t)) left``, which keeps the small
        probabilities of short branches accurate.

        Args:
            branch_lengths: Branch lengths t of any shape, in expected substitutions per site.
        """
        values, right, left = self.eigen_system()
        exponents = branch_lengths[..., None, None] * self.category_rates[:, None] * values
        change = (right * np.expm1(exponents)[..., None, :]) @ left
        return np.maximum(np.eye(4) + change, 0.0)


def jc69() -> SubstitutionModel:
    """Model of Jukes and Cantor (1969): equal frequencies, equal exchangeabilities, one category."""
    return SubstitutionModel(np.full(4, 0.25), np.ones(6), np.ones(1), np.ones(1))


def gtr(
    frequencies: Frequencies,
    exchangeabilities: Float64[np.ndarray, "6"],
    category_rates: Categories | None = None,
    category_weights: Categories | None = None,
) -> SubstitutionModel:
    """General time-reversible model (Tavaré 1986), of one category unless rates are given.

    Args:
        frequencies: Stationary probabilities of A, C, G, T.
        exchangeabilities: In the order AC, AG, AT, CG, CT, GT; any common scale.
        category_rates: Relative rates of the categories, for instance of `discrete_gamma_rates`; one
            category if None.
        category_weights: Probabilities of the categories; equal ones if None.
    """
    rates = np.ones(1) if category_rates is None else category_rates
    weights = np.full(rates.size, 1.0 / rates.size) if category_weights is None else category_weights
    return SubstitutionModel(frequencies, exchangeabilities, rates, weights)


def discrete_gamma_rates(shape: float, num_categories: int) -> Categories:
    """Mean rates of equally probable slices of a gamma distribution of mean one (Yang 1994, eq. 10).

    Slice c runs between the quantiles c / C and (c + 1) / C of Gamma(shape, rate = shape); its mean is C
    times the difference of Gamma(shape + 1, rate = shape) probabilities at its ends.

    Args:
        shape: Shape of the gamma distribution; small means rates that vary much.
        num_categories: Number C of slices.
    """
    from scipy.special import gammainc, gammaincinv

    if not (shape > 0 and np.isfinite(shape)):
        raise ValueError(f"The gamma shape must be positive and finite, got {shape}.")
    if num_categories < 1:
        raise ValueError(f"There must be at least one category, got {num_categories}.")
    inner = gammaincinv(shape, np.arange(1, num_categories) / num_categories)
    below = np.concatenate(([0.0], gammainc(shape + 1.0, inner), [1.0]))
    return np.diff(below) * num_categories


def _check_positive(name: str, values: np.ndarray) -> None:
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise ValueError(f"{name} must be finite and positive, got {values}.")


def _normalised(name: str, values: np.ndarray) -> np.ndarray:
    total = float(values.sum())
    if abs(total - 1.0) > _SUM_TOLERANCE:
        raise ValueError(f"{name} must sum to one, their sum is {total!r}: divide them by it.")
    return values / total
