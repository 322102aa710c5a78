r"""Correlated branch lengths: in a trained mixture they are independent given the topology.

Training makes every log branch length from standard normal noise of its own. In the posterior, branches that
meet in an internal node are correlated: often the others are shorter where one is longer. Here the noise x of
all branches is jointly Gaussian, with standard normal margins, so that the margins of the branch lengths stay
as trained. The three branches around a node have the correlations of the node's *tripartition* (its
three clades), shared by all topologies that have it; given the branch between them, the two sides of a tree
are independent. Such a distribution is a decomposable Gaussian graphical model (Lauritzen 1996, chapter 5):
its cliques are the internal nodes, its separators the inner branches, so with R_c the 3 x 3 correlation
matrix of a node and x_c its noise

    log q(x) = sum_e log N(x_e; 0, 1)
               - (1/2) sum_c [log det R_c + x_c' (R_c^-1 - I) x_c].

Draws come node by node from the top, each in closed form given the branch above.

The correlations are estimated from importance draws: weighted moments of the noise, with the weights
truncated, shrunk towards independence where a tripartition has few effective draws. No likelihood is
needed.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float64, Int32

from vbpi_mix.results import _correlation_kernels as kernels
from vbpi_mix.results.draws import PosteriorDraws
from vbpi_mix.sbn.support import Support, TopologyIndex
from vbpi_mix.training.mixture import Mixture

INDEPENDENT_DRAWS = 30.0
"""Weight of independence in the estimate, in effective draws of a tripartition."""


@dataclass(frozen=True)
class Correlations:
    """Correlations of the noise of the three branches around every tripartition.

    Attributes:
        values: Correlation of the pair of branches other than the k-th, in the order of the tripartition's
            clades, under every component [component, tripartition, 3].
    """

    values: Float64[np.ndarray, "component tripartition 3"]

    def __post_init__(self) -> None:
        a, b, c = np.moveaxis(self.values, -1, 0)
        determinant = 1.0 + 2.0 * a * b * c - a * a - b * b - c * c
        if not (np.all(np.abs(self.values) < 1.0) and np.all(determinant > 0.0)):
            raise ValueError("expected correlations of positive definite matrices, got others")

    @classmethod
    def none(cls, num_components: int, support: Support) -> "Correlations":
        """Independent branches."""
        return cls(np.zeros((num_components, len(support.tripartitions), 3)))

    @cached_property
    def are_none(self) -> bool:
        """Whether all branches are independent."""
        return not self.values.any()

    @cached_property
    def precision(self) -> Float64[np.ndarray, "component tripartition 7"]:
        """R^-1 - I (three diagonal entries, then those of the pairs other than k) and log det R."""
        out = np.empty((*self.values.shape[:2], 7))
        kernels.precision_and_determinant(self.values.reshape(-1, 3), out.reshape(-1, 7))
        return out


def estimate_correlations(
    mixture: Mixture, draws: PosteriorDraws, index: TopologyIndex, weights: Float64[np.ndarray, "draw"]
) -> Correlations:
    """Correlations of the noise under the posterior, from weighted draws.

    With n = (sum w)^2 / sum w^2 over the draws of a tripartition, the estimate is n / (n + n0) times the
    weighted correlation of the noise; n0 is `INDEPENDENT_DRAWS`.

    Args:
        mixture: Defines the noise that gives a branch length, for every component.
        draws: Draws from it.
        index: Their distinct topologies, looked up in the support.
        weights: Weights of the draws, with any factor; those of component a are multiplied by its
            responsibility.
    """
    support = mixture.support
    split = index.root_index  # a rootsplit's parameter has its split's number
    tripartition = support.tripartitions_of(draws.topologies, split)
    around = branches_around(support, draws.topologies, split, tripartition)
    log_lengths = np.log(draws.branch_lengths)
    values = np.empty((mixture.num_components, len(support.tripartitions), 3))
    for a in range(mixture.num_components):
        moments = np.zeros((len(support.tripartitions), 8))
        kernels.add_moments(
            mixture.branches.table[a],
            index.feature_index,
            draws.topology_index,
            log_lengths,
            mixture.branches.is_skewed,
            weights * draws.responsibilities[:, a],
            tripartition,
            around,
            np.empty(log_lengths.shape[1]),
            moments,
        )
        values[a] = _shrunk(moments)
    return Correlations(values)


def branches_around(
    support: Support,
    children: Int32[np.ndarray, "tree internal 2"],
    split: Int32[np.ndarray, "tree edge"],
    tripartition: Int32[np.ndarray, "tree internal"],
) -> Int32[np.ndarray, "tree internal 3"]:
    """Branches around every internal node, in the order of its tripartition's clades."""
    around = np.empty((*tripartition.shape, 3), np.int32)
    kernels.branches_around(children, split, tripartition, support.tripartitions, around)
    return around


def _shrunk(moments: Float64[np.ndarray, "tripartition 8"]) -> Float64[np.ndarray, "tripartition 3"]:
    """Correlations from the sums of `kernels.add_moments`, shrunk; 0 where no draw has any weight."""
    squares, products, total, total_of_squares = np.split(moments, [3, 6, 7], axis=1)
    deviation = np.sqrt(squares)
    scale = np.stack([deviation[:, b] * deviation[:, c] for b, c in ((1, 2), (0, 2), (0, 1))], axis=1)
    is_seen = (total > 0.0) & (scale > 0.0)
    correlation = np.divide(products, scale, out=np.zeros_like(products), where=is_seen)
    effective = np.divide(total**2, total_of_squares, out=np.zeros_like(total), where=total > 0.0)
    return correlation * (effective / (effective + INDEPENDENT_DRAWS))
