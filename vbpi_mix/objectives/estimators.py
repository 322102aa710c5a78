"""Which mixture components a training step samples, and which make up its mixture density.

Of A components, S are drawn uniformly without replacement (the set Phi); each draws K particles (Hotti et al.
2024).

=====  ===================  ===========  ===========  ========================================================
name   mixture density      likelihoods  densities    expectation of the bound over Phi
=====  ===================  ===========  ===========  ========================================================
A2A    all A, with S = A    A K          A^2 K        the mixture bound (for K = 1, MISELBO)
S2A    all A                S K          S A K        the same, at every S
S2S    the S of Phi         S K          S^2 K        for K = 1 at most the same, rising in S to it at S = A
=====  ===================  ===========  ===========  ========================================================

References:
    Hotti, Kviman, Molén, Elvira & Lagergren (2024), Efficient Mixture Learning in Black-Box Variational
    Inference.
"""

from dataclasses import dataclass
from enum import Enum

import numpy as np
from jaxtyping import Int64


class Estimator(Enum):
    """Estimator of the mixture bound."""

    A2A = "a2a"
    S2A = "s2a"
    S2S = "s2s"


@dataclass(frozen=True)
class ComponentChoice:
    """The components of one step.

    Attributes:
        sampled: Phi, the components that draw particles, in increasing order.
        denominators: the components of the mixture density, in increasing order.
        generator: position in ``denominators`` of each sampled component.
    """

    sampled: Int64[np.ndarray, " sampled"]
    denominators: Int64[np.ndarray, " denominator"]
    generator: Int64[np.ndarray, " sampled"]


def check_sizes(estimator: Estimator, num_components: int, num_sampled: int) -> None:
    """Refuse numbers of components that the estimator is not defined for.

    Raises:
        ValueError: unless 1 <= S <= A, and S = A for A2A.
    """
    if not 1 <= num_sampled <= num_components:
        raise ValueError(
            f"expected 1 <= S <= A sampled components, got S = {num_sampled} of A = {num_components}; "
            "components are drawn without replacement"
        )
    if estimator is Estimator.A2A and num_sampled != num_components:
        raise ValueError(
            f"the estimator a2a samples every component, expected S = A = {num_components}, got "
            f"S = {num_sampled}; use s2a for the same bound from fewer sampled components, or s2s"
        )


def choose_components(
    estimator: Estimator, num_components: int, num_sampled: int, rng: np.random.Generator
) -> ComponentChoice:
    """Components of one step: S drawn uniformly without replacement, and those of the mixture density.

    Where S = A there is nothing to draw and ``rng`` is left alone.

    Args:
        estimator: which components make up the mixture density.
        num_components: A.
        num_sampled: S.
        rng: generator of the stream for component choice.

    Raises:
        ValueError: see `check_sizes`.
    """
    check_sizes(estimator, num_components, num_sampled)
    everything = np.arange(num_components)
    if num_sampled == num_components:
        sampled = everything
    elif num_sampled == 1:  # the same in a fraction of the time
        sampled = np.array([rng.integers(num_components)])
    else:  # faster than rng.choice for the numbers of components that there are
        sampled = np.sort(rng.permutation(num_components)[:num_sampled])
    match estimator:
        case Estimator.A2A | Estimator.S2A:
            return ComponentChoice(sampled, everything, sampled)
        case Estimator.S2S:
            return ComponentChoice(sampled, sampled, np.arange(num_sampled))
        case _:
            raise TypeError(f"expected an Estimator, got {estimator!r}")
