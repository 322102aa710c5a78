r"""Correlated branch lengths: in a trained mixture they are independent given the topology.

Training makes every log branch length from standard normal noise of its own. In the posterior, branches that
meet in an internal node are correlated: often the others are shorter where one is longer; and how long a
branch is may depend on more of the topology than the two nodes at its ends, which is all that its parameters
see. Here the noise of all branches is jointly Gaussian: a mean d that the topology sets, plus noise x with
standard normal margins, so that but for d the margins of the branch lengths stay as trained. The three
branches around a node have the correlations of the node's *tripartition* (its three clades), shared by all
topologies that have it; given the branch between them, the two sides of a tree are independent. Such a
distribution is a decomposable Gaussian graphical model (Lauritzen 1996, chapter 5): its cliques are the
internal nodes, its separators the inner branches, so with R_c the 3 x 3 correlation matrix of a node and x_c
its noise

    log q(x) = sum_e log N(x_e; 0, 1)
               - (1/2) sum_c [log det R_c + x_c' (R_c^-1 - I) x_c].

Draws come node by node from the top, each in closed form given the branch above.

The mean d_e of a branch is a sum over up to four PCSPs, two on each side of it. Rooted on branch e, the tree
splits the clade on a side in two, and each of the two again: such a second split, given the sister, is a
PCSP, and adds its *shift*. A branch thus learns of the nodes next to those at its ends.

Where the substitution model has free parameters, the normal noise u of their density (`vbpi_mix.training.
model_density`) adds ``slope[split] . u`` to the mean of a branch: with a small shape of gamma rates, say, all
branches are longer, those deep in the tree most.

All three are estimated from importance draws with truncated weights, and need no likelihood. Slopes and
shifts are ridge regressions of the noise, the correlations weighted moments of what these leave; all are
shrunk towards zero where a split, PCSP or tripartition has few effective draws, n = (sum w)^2 / sum w^2.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float64, Int, Int32

from vbpi_mix.branches._kernels import make_work
from vbpi_mix.results import _correlation_kernels as kernels
from vbpi_mix.results.draws import PosteriorDraws
from vbpi_mix.sbn.support import Support, TopologyIndex
from vbpi_mix.training.mixture import Mixture

INDEPENDENT_DRAWS = 30.0
"""Weight of zero in the estimates, in effective draws of a tripartition or PCSP."""

NEGLIGIBLE = 1e-100
"""Share of the largest weight below which a draw has none: its square could not be told from zero."""

MAX_SOLVER_STEPS = 100
"""Most steps of the regression's solver."""

SOLVER_TOLERANCE = 1e-5
"""Share of the squared residual, measured by the preconditioner, at which the solver stops."""


@dataclass(frozen=True)
class Correlations:
    """How the noise of branches depends on the topology and on that of the branches they meet.

    Attributes:
        values: Correlation of the pair of branches other than the k-th, in the order of the tripartition's
            clades, under every component [component, tripartition, 3].
        shifts: What every PCSP adds to the mean noise of the branch that parts its focal clade and sister
            from the rest [component, parameter + 2]; zero for rootsplits and the last two entries, which
            stand for no parameter.
        slopes: What the noise of each of the model's coordinates adds to the mean noise of the branches of a
            split [component, split, coordinate].
    """

    values: Float64[np.ndarray, "component tripartition 3"]
    shifts: Float64[np.ndarray, "component parameter_and_two"]
    slopes: Float64[np.ndarray, "component split coordinate"]

    def __post_init__(self) -> None:
        a, b, c = np.moveaxis(self.values, -1, 0)
        determinant = 1.0 + 2.0 * a * b * c - a * a - b * b - c * c
        if not (np.all(np.abs(self.values) < 1.0) and np.all(determinant > 0.0)):
            raise ValueError("expected correlations of positive definite matrices, got others")

    @classmethod
    def none(cls, mixture: Mixture) -> "Correlations":
        """Independent branches of all components of a mixture."""
        num_components, support = mixture.num_components, mixture.support
        return cls(
            np.zeros((num_components, len(support.tripartitions), 3)),
            np.zeros((num_components, support.num_parameters + 2)),
            np.zeros((num_components, support.num_splits, mixture.num_coordinates)),
        )

    @cached_property
    def are_none(self) -> bool:
        """Whether all branches are independent, with standard normal noise."""
        return not (self.values.any() or self.shifts.any() or self.slopes.any())

    @cached_property
    def precision(self) -> Float64[np.ndarray, "component tripartition 7"]:
        """R^-1 - I (three diagonal entries, then those of the pairs other than k) and log det R."""
        out = np.empty((*self.values.shape[:2], 7))
        kernels.precision_and_determinant(self.values.reshape(-1, 3), out.reshape(-1, 7))
        return out


def estimate_correlations(
    mixture: Mixture, draws: PosteriorDraws, index: TopologyIndex, weights: Float64[np.ndarray, "draw"]
) -> Correlations:
    """Shifts and correlations of the noise under the posterior, from weighted draws.

    Args:
        mixture: Defines the noise that gives a branch length, for every component.
        draws: Draws from it.
        index: Their distinct topologies, looked up in the support.
        weights: Weights of the draws, the largest of the order of one; those of component a are multiplied by
            its responsibility.
    """
    support = mixture.support
    split = index.root_index  # a rootsplit's parameter has its split's number
    tripartition = support.tripartitions_of(draws.topologies, split)
    around = branches_around(support, draws.topologies, split, tripartition)
    values = np.empty((mixture.num_components, len(support.tripartitions), 3))
    shifts = np.empty((mixture.num_components, support.num_parameters + 2))
    slopes = np.zeros((mixture.num_components, support.num_splits, mixture.num_coordinates))
    log_lengths = np.log(draws.branch_lengths)
    for a in range(mixture.num_components):
        own = weights * draws.responsibilities[:, a]
        own[own < NEGLIGIBLE * weights.max()] = 0.0
        noise = np.empty(draws.branch_lengths.shape)
        kernels.noise_of_lengths(
            mixture.branches.table[a],
            index.feature_index,
            draws.topology_index,
            log_lengths,
            mixture.branches.is_skewed,
            make_work(log_lengths.shape[1]),
            noise,
        )
        if mixture.model is not None and draws.coordinates is not None:
            normal = mixture.model.normal_noise(draws.coordinates, a)
            slopes[a] = _slopes(noise, draws.topology_index, own, split, normal, support.num_splits)
            noise -= model_noise(split[draws.topology_index], slopes[a], normal)
        shifts[a] = _regress(noise, draws.topology_index, own, index, support.num_parameters)
        noise -= mean_noise(index, shifts[a])[draws.topology_index]
        moments = np.zeros((len(support.tripartitions), 8))
        kernels.add_moments(noise, draws.topology_index, own, tripartition, around, moments)
        values[a] = _shrunk(moments)
    return Correlations(values, shifts, slopes)


def model_noise(
    split: Int32[np.ndarray, "tree edge"],
    slopes: Float64[np.ndarray, "split coordinate"],
    normal: Float64[np.ndarray, "tree coordinate"],
) -> Float64[np.ndarray, "tree edge"]:
    """Mean noise of every branch that one component's noise of the model makes.

    Args:
        split: Splits of the branches.
        slopes: Slopes of the component.
        normal: Normal noise of the model under the component.
    """
    return np.einsum("tec,tc->te", slopes[split], normal)


def mean_noise(
    index: TopologyIndex, shifts: Float64[np.ndarray, "parameter_and_two"]
) -> Float64[np.ndarray, "tree edge"]:
    """Mean d of the noise of every branch of every topology, under the shifts of one component."""
    mean = np.zeros((len(index.children), 2 * index.children.shape[1] + 1))
    component = np.zeros(len(mean), np.int32)
    kernels.add_shifts(component, index.children, index.parameter_index, shifts[None], mean)
    return mean


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


def _slopes(
    noise: Float64[np.ndarray, "draw edge"],
    topology_index: Int[np.ndarray, "draw"],
    weights: Float64[np.ndarray, "draw"],
    split: Int32[np.ndarray, "distinct edge"],
    normal: Float64[np.ndarray, "draw coordinate"],
    num_splits: int,
) -> Float64[np.ndarray, "split coordinate"]:
    """Slopes b of the least sum_i w_i (noise_i - c - b . u_i)^2 + r |b|^2, one split by one, with any c.

    The ridge r is `INDEPENDENT_DRAWS` times sum w^2 / sum w, as in `_regress`.
    """
    regressors = np.column_stack((np.ones(len(noise)), normal))
    size = regressors.shape[1]
    squares, products = np.zeros((num_splits, size, size)), np.zeros((num_splits, size))
    total_of_squares = np.zeros(num_splits)
    kernels.add_regressions(
        noise, topology_index, weights, split, regressors, squares, products, total_of_squares
    )
    squares += np.tril(squares, -1).transpose(0, 2, 1)
    total = squares[:, 0, 0]
    is_seen = total > 0.0
    ridge = INDEPENDENT_DRAWS * np.divide(total_of_squares, total, out=np.ones(num_splits), where=is_seen)
    at = np.arange(1, size)
    squares[:, at, at] += ridge[:, None]
    squares[~is_seen, 0, 0] = 1.0
    return np.linalg.solve(squares, products[:, :, None])[:, 1:, 0]


def _regress(
    noise: Float64[np.ndarray, "draw edge"],
    topology_index: Int[np.ndarray, "draw"],
    weights: Float64[np.ndarray, "draw"],
    index: TopologyIndex,
    num_parameters: int,
) -> Float64[np.ndarray, "parameter_and_two"]:
    """Shifts b of the least sum_i w_i |noise_i - d_i(b)|^2 + sum_p r_p b_p^2.

    The ridge r_p is `INDEPENDENT_DRAWS` times sum w^2 / sum w over the draws of PCSP p, so that alone it
    would get n / (n + n0) times the weighted mean of the noise, n its effective draws.
    """
    num_topologies, num_edges = len(index.children), noise.shape[1]
    sums = np.zeros((num_topologies, num_edges))
    kernels.add_rows(noise, topology_index, weights, sums)

    def by_pcsp(values: np.ndarray) -> np.ndarray:
        """Values [tree, edge], summed for every PCSP over the branches that it shifts."""
        out = np.zeros(num_parameters + 2)
        kernels.add_by_pcsp(index.children, index.parameter_index, values, out)
        out[num_parameters:] = 0.0
        return out

    def of_topologies(values: np.ndarray) -> np.ndarray:
        """Values [draw], summed by topology, then for every PCSP."""
        totals = np.bincount(topology_index, values, minlength=num_topologies)
        return by_pcsp(np.repeat(totals[:, None], num_edges, axis=1))

    total = of_topologies(weights)
    is_seen = total > 0.0
    ridge = INDEPENDENT_DRAWS * np.divide(
        of_topologies(weights**2), total, out=np.zeros_like(total), where=is_seen
    )
    topology_weights = np.bincount(topology_index, weights, minlength=num_topologies)

    def normal_product(shifts: np.ndarray) -> np.ndarray:
        """The normal equations' matrix times shifts."""
        return by_pcsp(topology_weights[:, None] * mean_noise(index, shifts)) + ridge * shifts

    return _conjugate_gradients(normal_product, by_pcsp(sums), np.where(is_seen, total + ridge, 1.0))


def _conjugate_gradients(
    product: Callable[[np.ndarray], np.ndarray],
    right: Float64[np.ndarray, "parameter_and_two"],
    diagonal: Float64[np.ndarray, "parameter_and_two"],
) -> Float64[np.ndarray, "parameter_and_two"]:
    """Solution x of product(x) = right, a positive semidefinite system, preconditioned by its diagonal."""
    x, residual = np.zeros_like(right), right.copy()
    direction = residual / diagonal
    size = first_size = float(residual @ direction)
    for _ in range(MAX_SOLVER_STEPS):
        if size <= SOLVER_TOLERANCE * first_size:
            break
        image = product(direction)
        step = size / float(direction @ image)
        x += step * direction
        residual -= step * image
        preconditioned = residual / diagonal
        new_size = float(residual @ preconditioned)
        direction = preconditioned + (new_size / size) * direction
        size = new_size
    return x
