"""How much posterior mass lies just outside a support, and on which topologies.

If the support lacks topologies that matter, some of them are one nearest-neighbour interchange away from
topologies of high posterior probability. An interchange around branch e of topology tau leaves all other
branches b as they are. With m(b) = int p(Y | tau, b, x) p(x) dx, x the length of branch e, and m'(b) the same
for the neighbour tau',

    p(tau' | Y) / p(tau | Y) = E[m'(b) / m(b)],        b from the posterior of tau's other branches,

exactly, since topologies are equally probable a priori. The expectation is taken over draws of tau, resampled
by their importance weights; the integrals are sums over a grid in log x. First all neighbours outside the
support are gone through with one draw and a coarse grid, between whose points a spline interpolates. Those
that may matter get more draws, on a grid around where the integrand has its mass.

Only neighbours of the topologies that hold most of the posterior are looked at, each once, beside the
heaviest of them. What is farther than one interchange away is not seen, until the support has grown.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int32, Int64
from scipy.special import logsumexp

from vbpi_mix.results.correction import CorrectedPosterior, importance_resample
from vbpi_mix.results.draws import PosteriorDraws
from vbpi_mix.sbn.network import SubsplitNetworks
from vbpi_mix.training.growth import NearTopologies
from vbpi_mix.trees.nni import neighbour_trees
from vbpi_mix.trees.topology import unique_topologies

LogLikelihoodOfDraws = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Log-likelihoods [tree] of topologies [tree, internal, 2] with branch lengths [tree, edge], with whatever
else the draws [tree] hold that the trees are made from."""

COVERED = 0.95
"""Posterior probability of the topologies whose neighbours are looked at."""

MAX_TOPOLOGIES = 50
"""Most topologies whose neighbours are looked at."""

NUM_DRAWS = 8
"""Draws that judge a neighbour that may matter."""

NEGLIGIBLE = 1e-6
"""Posterior probability below which a neighbour does not matter."""

COARSE = np.linspace(np.log(1e-6), np.log(1.0), 13)
"""Grid of log branch lengths."""

FINE = np.linspace(COARSE[0], COARSE[-1], 241)
"""Grid that the values on the coarse one are interpolated to."""

MAX_LOG_MASS = 600.0
"""Largest log of a neighbour's mass; larger ones all become smaller by as much as the largest is above it."""

NUM_POINTS = 16
"""Points of a grid around an integrand's mass."""

WIDTH = 6.0
"""Half of that grid's width, in standard deviations."""

BATCH = 4096
"""Trees whose likelihoods are computed at a time."""


@dataclass(frozen=True)
class Outside:
    """What was found inside and just outside a support.

    Attributes:
        topologies: Topologies drawn inside.
        probabilities: Their posterior probabilities.
        near: Topologies just outside that may matter.
        covered: Posterior probability of the topologies whose neighbours were looked at.
        num_looked_at: Neighbours outside the support that were looked at.
    """

    topologies: Int32[np.ndarray, "topology internal 2"]
    probabilities: Float64[np.ndarray, "topology"]
    near: NearTopologies
    covered: float
    num_looked_at: int

    @property
    def mass(self) -> float:
        """Estimated posterior probability just outside, as if all topologies had such neighbours."""
        outside = float(self.near.masses.sum()) / self.covered
        return outside / (1 + outside)


class _Neighbours(NamedTuple):
    """Topologies beside others.

    Attributes:
        children: The topologies [neighbour, internal, 2].
        beside: Number, among the draws' topologies, of the one that each is made from [neighbour].
        origin: The branch there that each branch comes from [neighbour, edge].
        edge: The branch that is new [neighbour].
    """

    children: np.ndarray
    beside: np.ndarray
    origin: np.ndarray
    edge: np.ndarray


class _Integrals(NamedTuple):
    """Integrals over the length of a branch, an array of any shape each.

    Attributes:
        log_value: Logarithms.
        mean: Mean of the log length under the integrand.
        std: Its standard deviation.
    """

    log_value: np.ndarray
    mean: np.ndarray
    std: np.ndarray


def look_outside(
    draws: PosteriorDraws,
    corrected: CorrectedPosterior,
    networks: SubsplitNetworks,
    log_likelihood: LogLikelihoodOfDraws,
    branch_prior_rate: float,
    generator: np.random.Generator,
) -> Outside:
    """The topologies one interchange outside a support, and the posterior mass on them.

    Args:
        draws: Importance draws from a mixture on the support.
        corrected: The posterior corrected from them.
        networks: Networks on the support.
        log_likelihood: Likelihood of trees made from the draws.
        branch_prior_rate: Rate of the exponential prior of branch lengths.
        generator: Source of the random numbers that choose draws.
    """
    probabilities = corrected.topology_probabilities[: len(draws.topologies)]
    heaviest = _heaviest(probabilities)
    neighbours = _neighbours_outside(draws.topologies, heaviest, networks)
    num_looked_at = len(neighbours.edge)
    integral = _Integrand(draws, log_likelihood, branch_prior_rate)
    drawn = _choose_draws(draws, corrected, heaviest, generator)

    old, new = integral.coarse(neighbours, drawn)
    with np.errstate(divide="ignore"):
        log_probabilities = np.log(probabilities)
    log_masses = log_probabilities[neighbours.beside] + new.log_value - old.log_value
    matters = log_masses >= np.log(NEGLIGIBLE)
    neighbours = _Neighbours(*(part[matters] for part in neighbours))
    old, new = (_Integrals(*(part[matters] for part in one)) for one in (old, new))
    old, new = integral.close(neighbours, drawn, old, new)
    log_ratios = logsumexp(new.log_value - old.log_value, axis=1) - np.log(NUM_DRAWS)
    log_masses = log_probabilities[neighbours.beside] + log_ratios
    # Where a support is hopeless its neighbours are better by more than a number can tell.
    masses = np.exp(log_masses - max(0.0, log_masses.max(initial=0.0) - MAX_LOG_MASS))
    spread = np.sqrt((new.std**2).mean(axis=1) + new.mean.var(axis=1))
    order = np.argsort(-masses, kind="stable")
    near = NearTopologies(
        neighbours.children[order],
        draws.topologies[neighbours.beside[order]],
        masses[order],
        new.mean.mean(axis=1)[order],
        spread[order],
    )
    return Outside(draws.topologies, probabilities, near, float(probabilities[heaviest].sum()), num_looked_at)


def _heaviest(probabilities: Float64[np.ndarray, "topology"]) -> Int64[np.ndarray, "chosen"]:
    """The fewest topologies that hold `COVERED`, the heaviest first, or the first of them."""
    order = np.argsort(-probabilities, kind="stable")
    number = 1 + int(np.searchsorted(np.cumsum(probabilities[order]), COVERED))
    return order[: min(number, MAX_TOPOLOGIES)]


def _neighbours_outside(
    topologies: np.ndarray, chosen: Int64[np.ndarray, "chosen"], networks: SubsplitNetworks
) -> _Neighbours:
    """Neighbours of some topologies that the networks' support lacks, each beside the first of these."""
    num_taxa = topologies.shape[1] + 2
    edges = np.arange(2 * num_taxa - 3, dtype=np.float64)
    found = [neighbour_trees(topologies[number], edges) for number in chosen]
    children = np.concatenate([trees for trees, _ in found])
    origin = np.concatenate([lengths for _, lengths in found]).astype(np.int64)
    beside = np.repeat(chosen, 2 * (num_taxa - 3))
    # Neighbours come in pairs, in the order in which a topology's inner nodes have inner nodes below them.
    below = topologies[chosen].reshape(len(chosen), -1)
    exchanged = np.repeat(below[below >= num_taxa], 2)
    edge = (origin == exchanged[:, None]).argmax(axis=1)
    _, inverse, _ = unique_topologies(children)
    first = np.unique(inverse, return_index=True)[1]
    is_outside = np.isneginf(networks.log_mixture_probability_of(children[first]))
    kept = first[is_outside]
    return _Neighbours(children[kept], beside[kept], origin[kept], edge[kept])


def _choose_draws(
    draws: PosteriorDraws,
    corrected: CorrectedPosterior,
    topologies: Int64[np.ndarray, "chosen"],
    generator: np.random.Generator,
) -> Int64[np.ndarray, "topology particle"]:
    """`NUM_DRAWS` draws of some topologies, resampled by their weights; zeros for the others."""
    by_topology = np.argsort(draws.topology_index, kind="stable")
    ends = np.cumsum(np.bincount(draws.topology_index, minlength=len(draws.topologies)))
    result = np.zeros((len(draws.topologies), NUM_DRAWS), np.int64)
    for number in topologies:
        own = by_topology[ends[number - 1] if number else 0 : ends[number]]
        log_weights = corrected.log_draw_weights[own]
        result[number] = own[importance_resample(log_weights, np.zeros_like(own), NUM_DRAWS, generator)]
    return result


class _Integrand:
    """Likelihood times prior as a function of the log length of one branch, the others as in a draw."""

    def __init__(
        self, draws: PosteriorDraws, log_likelihood: LogLikelihoodOfDraws, branch_prior_rate: float
    ) -> None:
        self._draws, self._log_likelihood, self._rate = draws, log_likelihood, branch_prior_rate

    def coarse(self, neighbours: _Neighbours, drawn: np.ndarray) -> tuple[_Integrals, _Integrals]:
        """Integrals [neighbour] over the old branch and over the new one, from one draw each."""
        from scipy.interpolate import CubicSpline  # which changes the filters of warnings

        draw = drawn[neighbours.beside, 0]
        grid = np.broadcast_to(COARSE, (len(draw), len(COARSE)))
        old, new = self._values(neighbours, draw, grid, grid)
        fine = np.broadcast_to(FINE, (len(draw), len(FINE)))
        over_old, over_new = (
            _integrals(fine, CubicSpline(COARSE, values, axis=1)(FINE)) for values in (old, new)
        )
        return over_old, over_new

    def close(
        self, neighbours: _Neighbours, drawn: np.ndarray, old: _Integrals, new: _Integrals
    ) -> tuple[_Integrals, _Integrals]:
        """Integrals [neighbour, draw], on grids around where others have found the mass."""
        draw = drawn[neighbours.beside]
        num_neighbours, num_draws = draw.shape
        repeated = _Neighbours(*(np.repeat(part, num_draws, axis=0) for part in neighbours))
        grids = [np.repeat(_grid(one), num_draws, axis=0) for one in (old, new)]
        both = zip(grids, self._values(repeated, draw.ravel(), *grids), strict=True)
        over_old, over_new = (
            _Integrals(*(part.reshape(num_neighbours, num_draws) for part in _integrals(grid, values)))
            for grid, values in both
        )
        return over_old, over_new

    def _values(
        self, neighbours: _Neighbours, draw: np.ndarray, old_grid: np.ndarray, new_grid: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Logs of the integrand at log lengths of the old and of the new branch [neighbour, point]."""
        old_edge = np.take_along_axis(neighbours.origin, neighbours.edge[:, None], axis=1)[:, 0]
        lengths = self._draws.branch_lengths[draw]
        moved = np.take_along_axis(lengths, neighbours.origin, axis=1)
        return (
            self._along(self._draws.topologies[neighbours.beside], lengths, draw, old_edge, old_grid),
            self._along(neighbours.children, moved, draw, neighbours.edge, new_grid),
        )

    def _along(
        self, children: np.ndarray, lengths: np.ndarray, draw: np.ndarray, edge: np.ndarray, grid: np.ndarray
    ) -> np.ndarray:
        """Logs of the integrand [tree, point] at log lengths `grid` of one branch of each tree."""
        result = np.log(self._rate) - self._rate * np.exp(grid) + grid
        num_points = grid.shape[1]
        size = max(1, BATCH // num_points)
        for start in range(0, len(edge), size):
            some = slice(start, start + size)
            tree = np.repeat(np.arange(len(edge))[some], num_points)
            changed = lengths[tree]
            changed[np.arange(len(tree)), edge[tree]] = np.exp(grid[some]).ravel()
            result[some] += self._log_likelihood(children[tree], changed, draw[tree]).reshape(-1, num_points)
        return result


def _integrals(grid: np.ndarray, log_values: np.ndarray) -> _Integrals:
    """Integrals [tree] of exp(log_values) over evenly spaced points [tree, point]."""
    total = logsumexp(log_values, axis=1)
    weights = np.exp(log_values - total[:, None])
    mean = (weights * grid).sum(axis=1)
    step = grid[:, 1] - grid[:, 0]
    # Mass on a single point is as wide as the space between points allows.
    std = np.sqrt((weights * (grid - mean[:, None]) ** 2).sum(axis=1) + step**2 / 12)
    return _Integrals(total + np.log(step), mean, std)


def _grid(integrals: _Integrals) -> np.ndarray:
    """Log lengths around the mass of each integrand [tree, point], none below the coarse grid."""
    low = np.maximum(integrals.mean - WIDTH * integrals.std, COARSE[0])
    high = np.maximum(integrals.mean + WIDTH * integrals.std, COARSE[0] + 1)
    return low[:, None] + (high - low)[:, None] * np.linspace(0, 1, NUM_POINTS)
