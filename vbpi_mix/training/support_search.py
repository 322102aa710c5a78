"""Search for the topologies of high likelihood, from rough trees by nearest-neighbour interchanges.

The topologies that matter to a posterior lie within some nats of the best one. A climb goes from a tree to
its best neighbour, or by all interchanges at once that improve it and do not touch (Guindon & Gascuel 2003),
until none does. After the climbs the best trees whose neighbours are not known yet are expanded. Whatever was
met on the way and is good enough is returned.

Branch lengths take a few updates b <- b (1 + g / L), with g the derivative of the log-likelihood and L the
number of sites: the step of the EM algorithm, since g = (E[substitutions on the branch] - L b) / b under
models whose rates of leaving the states are equal, and close to it under others.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int32

from vbpi_mix.likelihood.base import LogLikelihoods, TreeLikelihood
from vbpi_mix.shapes import BranchLengths, Topologies
from vbpi_mix.trees.nni import interchange, neighbour_trees

MIN_LENGTH = 1e-6
"""Least branch length, in expected substitutions per site."""

START_UPDATES = 15
"""Updates of the branch lengths of a tree that a climb starts from."""

NEIGHBOUR_UPDATES = 3
"""Updates of the branch lengths of a neighbour: only a few of them are far from their best values."""

HOPELESS_LOSS = 40.0
"""Nats below the best tree, after one update, at which a neighbour gets no more updates."""

MIN_GAIN = 1e-3
"""Nats by which a climb's step must improve a tree."""


@dataclass
class _Found:
    """A topology that the search has met, with the best branch lengths so far."""

    children: Int32[np.ndarray, "internal 2"]
    branch_lengths: Float64[np.ndarray, " edge"]
    log_likelihood: float
    is_expanded: bool = False


@dataclass(frozen=True)
class GoodTopologies:
    """Topologies that a search has found.

    Attributes:
        children: Distinct canonical topologies, the most likely first.
        log_likelihoods: Their log-likelihoods in nats, at branch lengths near the best ones.
        num_evaluated: Gradients and values of single trees that the search has computed.
    """

    children: Topologies
    log_likelihoods: LogLikelihoods
    num_evaluated: int


class TopologySearch:
    """A search in progress: all trees met so far, and how much may still be computed."""

    def __init__(self, likelihood: TreeLikelihood, num_sites: float, max_evaluations: int) -> None:
        """Begin.

        Args:
            likelihood: Likelihood of the data.
            num_sites: Number of sites, L.
            max_evaluations: Gradients and values of single trees after which the search ends.
        """
        self._likelihood = likelihood
        self._num_sites = num_sites
        self._max_evaluations = max_evaluations
        self._found: dict[bytes, _Found] = {}
        self._best = -np.inf
        self._num_evaluated = 0

    @property
    def is_over(self) -> bool:
        """Whether the evaluations are used up."""
        return self._num_evaluated >= self._max_evaluations

    def climb(
        self, children: Int32[np.ndarray, "internal 2"], branch_lengths: Float64[np.ndarray, " edge"]
    ) -> None:
        """Climb from a canonical tree until no interchange improves it, or a tree is met that is known."""
        current = self._start(children, branch_lengths)
        while not (current.is_expanded or self.is_over):
            neighbours = self._expand(current)
            gains = np.array([tree.log_likelihood - current.log_likelihood for tree in neighbours])
            order = np.argsort(-gains, kind="stable")
            improving = order[gains[order] > MIN_GAIN]
            if len(improving) == 0:
                break
            following = neighbours[improving[0]]
            if len(improving) > 1:
                chosen = interchange(current.children, current.branch_lengths, improving)
                joined = self._start(*chosen)
                if joined.log_likelihood > following.log_likelihood:
                    following = joined
            current = following

    def expand_best(self) -> bool:
        """Meet the neighbours of the best tree whose neighbours are not known; False without one."""
        waiting = [tree for tree in self._found.values() if not tree.is_expanded]
        if not waiting or self.is_over:
            return False
        self._expand(max(waiting, key=lambda tree: tree.log_likelihood))
        return True

    def good(self, max_loss: float) -> GoodTopologies:
        """The topologies whose log-likelihood is at most `max_loss` nats below the best one's."""
        kept = [tree for tree in self._found.values() if tree.log_likelihood >= self._best - max_loss]
        kept.sort(key=lambda tree: -tree.log_likelihood)
        return GoodTopologies(
            np.stack([tree.children for tree in kept]),
            np.array([tree.log_likelihood for tree in kept]),
            self._num_evaluated,
        )

    def _start(self, children: np.ndarray, branch_lengths: np.ndarray) -> _Found:
        """The tree to begin with, its branch lengths improved, unless its topology is known."""
        known = self._found.get(children.tobytes())
        if known is not None:
            return known
        return self._optimise(children[None], branch_lengths[None], START_UPDATES)[0]

    def _expand(self, tree: _Found) -> list[_Found]:
        """All neighbours of a tree, in the order of `neighbour_trees`."""
        tree.is_expanded = True
        children, lengths = neighbour_trees(tree.children, tree.branch_lengths)
        keys = [row.tobytes() for row in children]
        new = np.array([i for i, key in enumerate(keys) if key not in self._found], np.int64)
        if len(new):
            self._optimise(children[new], lengths[new], NEIGHBOUR_UPDATES)
        return [self._found[key] for key in keys]

    def _optimise(self, children: Topologies, branch_lengths: BranchLengths, updates: int) -> list[_Found]:
        """Take in new trees after some updates of their branch lengths; the hopeless get only one."""
        lengths = self._update(children, np.maximum(branch_lengths, MIN_LENGTH))
        log_likelihoods = self._value(children, lengths)
        going = np.flatnonzero(log_likelihoods > max(self._best, log_likelihoods.max()) - HOPELESS_LOSS)
        improved, chosen = lengths[going], children[going]
        for _ in range(updates - 1):
            improved = self._update(chosen, improved)
        lengths[going], log_likelihoods[going] = improved, self._value(chosen, improved)
        self._best = max(self._best, float(log_likelihoods.max()))
        trees = [_Found(c, b, float(v)) for c, b, v in zip(children, lengths, log_likelihoods, strict=True)]
        self._found |= {tree.children.tobytes(): tree for tree in trees}
        return trees

    def _update(self, children: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Branch lengths after one update."""
        self._num_evaluated += len(children)
        _, gradient = self._likelihood.value_and_gradient(children, lengths)
        return np.maximum(lengths * np.maximum(1 + gradient / self._num_sites, 0.05), MIN_LENGTH)

    def _value(self, children: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Log-likelihoods."""
        self._num_evaluated += len(children)
        return self._likelihood.value(children, lengths)
