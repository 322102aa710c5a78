"""Subsplit Bayesian networks: A distributions over topologies on one support.

One softmax over all rootsplits and one for every parent (Zhang & Matsen 2018). The probability of an unrooted
topology sums over its 2n - 3 rootings; all of them are read off two passes over the branches (see DESIGN and
`vbpi_mix.sbn._probability_kernels`), so it costs O(n).
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int32

from vbpi_mix.sbn._probability_kernels import expectation_step, log_probability, num_lanes, refresh
from vbpi_mix.sbn._sampling_kernels import sample_topologies
from vbpi_mix.sbn.support import Support, TopologyIndex
from vbpi_mix.shapes import Topologies


class DrawnTopologies(NamedTuple):
    """Topologies as the sampler leaves them: it knows their splits and tripartitions without looking them up.

    Attributes:
        children: Canonical topologies [tree, internal, 2].
        split: Split of every branch [tree, edge].
        tripartition: Tripartition of every internal node [tree, internal].
    """

    children: np.ndarray
    split: np.ndarray
    tripartition: np.ndarray


def draw_topologies(
    support: Support,
    q: Float64[np.ndarray, "component parameter_and_two"],
    component_of_tree: Int32[np.ndarray, "tree"],
    uniforms: Float64[np.ndarray, "tree subsplit"],
) -> DrawnTopologies:
    """Topologies made from random numbers by the given components, in newly allocated arrays.

    Args:
        support: Support of the networks.
        q: Probability of every parameter given its parent, as in `SubsplitNetworks`.
        component_of_tree: Component to draw each tree from.
        uniforms: Numbers in [0, 1), n - 1 a tree.
    """
    num_trees, num_taxa = len(component_of_tree), support.num_taxa
    drawn = DrawnTopologies(
        np.empty((num_trees, num_taxa - 2, 2), np.int32),
        np.empty((num_trees, 2 * num_taxa - 3), np.int32),
        np.empty((num_trees, num_taxa - 2), np.int32),
    )
    work = np.empty((9, 2 * num_taxa), np.int32)
    sample_topologies(support.tables, q, component_of_tree, uniforms, *drawn, work)
    return drawn


@dataclass(eq=False)
class SubsplitNetworks:
    """Logits of A subsplit Bayesian networks and the tables of probabilities made from them.

    Attributes:
        support: What they share.
        logits: Unnormalised log-probabilities [component, parameter].
        log_q: Log-probability of every parameter given its parent [component, parameter + 2]; the last two
            entries are -inf (outside the support) and 0 (nothing to split). Its transpose is contiguous.
        q: The same on the natural scale.
    """

    support: Support
    logits: Float64[np.ndarray, "component parameter"]
    log_q: Float64[np.ndarray, "component parameter_and_two"]
    q: Float64[np.ndarray, "component parameter_and_two"]

    @classmethod
    def from_logits(cls, support: Support, logits: np.ndarray) -> "SubsplitNetworks":
        """Networks with the given logits [component, parameter], which are kept, not copied."""
        shape = (logits.shape[0], support.num_parameters + 2)
        networks = cls(support, logits, np.empty(shape[::-1]).T, np.empty(shape))
        networks.refresh()
        return networks

    @property
    def num_components(self) -> int:
        """Number of components, A."""
        return self.logits.shape[0]

    def refresh(self) -> None:
        """Bring the tables of probabilities up to date with the logits."""
        refresh(self.logits, self.support.parent_start, self.log_q.T, self.q)

    def log_probability(
        self, index: TopologyIndex, components: Int32[np.ndarray, "denominator"] | None = None
    ) -> Float64[np.ndarray, "tree denominator"]:
        """log q_d(tau) in nats of topologies under every (listed) component; -inf outside the support."""
        if components is None:
            components = np.arange(self.num_components, dtype=np.int32)
        num_trees, num_edges = index.root_index.shape
        size = num_edges * num_lanes(len(components), self.num_components)
        out, no_generator = np.empty((num_trees, len(components))), np.full(num_trees, -1)
        log_probability(
            self.log_q.T, components, no_generator, *index[:3], np.empty(2 * size), np.empty(size),
            np.empty((num_trees, num_edges)), out,
        )  # fmt: skip
        return out

    def log_probability_of(self, children: Topologies) -> Float64[np.ndarray, "tree denominator"]:
        """log q_a(tau) in nats of any topologies under every component; -inf outside the support."""
        return self.log_probability(self.support.index(children))

    def log_mixture_probability_of(self, children: Topologies) -> Float64[np.ndarray, "tree"]:
        """log (1/A) sum_a q_a(tau) in nats of any topologies; -inf outside the support."""
        log_q = self.log_probability_of(children)
        return np.logaddexp.reduce(log_q, axis=1) - np.log(self.num_components)

    def gradient(
        self, index: TopologyIndex, component: int, weights: Float64[np.ndarray, "tree"]
    ) -> Float64[np.ndarray, "parameter"]:
        """Gradient of sum_t w_t log q_a(tau_t) with respect to the logits of component a.

        For a parameter i of parent p it is count_i - q_i sum_{j in p} count_j, the counts being expected
        numbers of uses under the posterior of the rooting (Fisher's identity). Topologies outside the
        support contribute 0.
        """
        tables = self.support.tables
        counts = np.zeros(self.support.num_parameters + 2)
        log_q = np.ascontiguousarray(self.log_q[component])
        expectation_step(log_q, weights, *index[:3], tables.parameter_parent, False, counts)
        counts = counts[:-2]
        totals = np.add.reduceat(counts, self.support.parent_start[:-1])
        return counts - self.q[component, :-2] * totals[tables.parameter_parent]

    def sample(
        self, component_of_tree: Int32[np.ndarray, "tree"], generator: np.random.Generator
    ) -> Topologies:
        """Topologies drawn from the given components, in canonical form."""
        uniforms = generator.random((len(component_of_tree), self.support.num_taxa - 1))
        return draw_topologies(self.support, self.q, component_of_tree, uniforms).children
