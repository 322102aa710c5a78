"""The variational posterior: a uniform mixture of subsplit networks times branch-length networks.

q(tau, b) = (1/A) sum_a q_a(tau) q_a(b | tau). All components share one support.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from vbpi_mix.branches import _kernels as branch_kernels
from vbpi_mix.branches.network import BranchFeatures, BranchParameters
from vbpi_mix.sbn._probability_kernels import log_probability
from vbpi_mix.sbn._sampling_kernels import sample_topologies
from vbpi_mix.sbn._support_kernels import index_topologies
from vbpi_mix.sbn.network import SubsplitNetworks
from vbpi_mix.sbn.support import Support, TopologyIndex


class Particles(NamedTuple):
    """Trees drawn from components of the mixture, with their densities; T = S K of them.

    Attributes:
        component_of_tree: Component that generated each tree [tree].
        topologies: Topologies, looked up in the support.
        log_lengths: log b [tree, edge].
        branch_lengths: b, in expected substitutions per site [tree, edge].
        log_topology: log q_d(tau) [tree, denominator].
        log_branches: log q_d(log b | tau) [tree, denominator].
    """

    component_of_tree: np.ndarray
    topologies: TopologyIndex
    log_lengths: np.ndarray
    branch_lengths: np.ndarray
    log_topology: np.ndarray
    log_branches: np.ndarray


@dataclass(eq=False)
class Mixture:
    """Parameters of the variational posterior, updated in place by training.

    Attributes:
        networks: Subsplit networks of all components.
        branches: Branch-length parameters of all components.
    """

    networks: SubsplitNetworks
    branches: BranchParameters

    @property
    def support(self) -> Support:
        """Support shared by the components."""
        return self.networks.support

    @property
    def num_components(self) -> int:
        """Number of components, A."""
        return self.networks.num_components

    @property
    def with_psp(self) -> bool:
        """Whether branch features include primary subsplit pairs."""
        return self.branches.features is BranchFeatures.PSP


class Sampler:
    """Draws trees from a mixture into arrays that are allocated once and overwritten by every call."""

    def __init__(self, mixture: Mixture, num_trees: int, num_denominators: int) -> None:
        """Allocate for batches of exactly `num_trees` trees and densities under so many components."""
        num_taxa = mixture.support.num_taxa
        num_edges = 2 * num_taxa - 3
        self.mixture = mixture
        self.topologies = TopologyIndex.empty(num_trees, num_taxa)
        self.log_lengths = np.empty((num_trees, num_edges))
        self.branch_lengths = np.empty((num_trees, num_edges))
        self.log_topology = np.empty((num_trees, num_denominators))
        self.log_branches = np.empty((num_trees, num_denominators))
        self._split = np.empty((num_trees, num_edges), np.int32)
        self._tripartition = np.empty((num_trees, num_taxa - 2), np.int32)
        self._node_work = np.empty((9, 2 * num_taxa), np.int32)
        self._slot_work = np.empty(2 * num_edges)
        self._edge_work = np.empty(num_edges)
        self._branch_work = branch_kernels.make_work(num_edges)

    def draw(
        self, component_of_tree: np.ndarray, denominators: np.ndarray, uniforms: np.ndarray, noise: np.ndarray
    ) -> Particles:
        """Trees made from random numbers, and their densities under the components `denominators`.

        Args:
            component_of_tree: Component to draw each tree from, int32 [tree].
            denominators: Components whose densities are wanted, int32 [denominator].
            uniforms: Numbers in [0, 1) for the topologies [tree, n - 1].
            noise: Standard normal numbers for the branches [tree, edge].

        Returns:
            Views of this object's arrays: copy what must outlive the next call.
        """
        support, networks, branches = self.mixture.support, self.mixture.networks, self.mixture.branches
        sample_topologies(
            support.tables, networks.q, component_of_tree, uniforms,
            self.topologies.children, self._split, self._tripartition, self._node_work,
        )  # fmt: skip
        index_topologies(
            support.tables,
            self.topologies.children,
            self._split,
            self._tripartition,
            self.mixture.with_psp,
            *self.topologies[1:],
        )
        log_probability(
            networks.log_q,
            denominators,
            *self.topologies[:3],
            self._slot_work,
            self._edge_work,
            self.log_topology,
        )
        branch_kernels.draw(
            branches.table, self.topologies.feature_index, component_of_tree, noise, branches.is_skewed,
            self._branch_work, self.log_lengths,
        )  # fmt: skip
        branch_kernels.log_density(
            branches.table, self.topologies.feature_index, self.log_lengths, denominators, branches.is_skewed,
            self._branch_work, self.log_branches,
        )  # fmt: skip
        np.exp(self.log_lengths, out=self.branch_lengths)
        return Particles(
            component_of_tree,
            self.topologies,
            self.log_lengths,
            self.branch_lengths,
            self.log_topology,
            self.log_branches,
        )
