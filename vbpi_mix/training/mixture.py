"""The variational posterior: a uniform mixture of subsplit networks times branch-length networks.

q(tau, b, z) = (1/A) sum_a q_a(tau) q_a(b | tau) q_a(z), with z the free parameters of the substitution model,
where it has any. All components share one support.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from vbpi_mix.branches import _kernels as branch_kernels
from vbpi_mix.branches._all_kernels import MIN_COMPONENTS
from vbpi_mix.branches.network import BranchFeatures, BranchParameters
from vbpi_mix.sbn._probability_kernels import num_lanes
from vbpi_mix.sbn.network import SubsplitNetworks
from vbpi_mix.sbn.support import Support, TopologyIndex
from vbpi_mix.training._kernels import AllComponents, draw_particles
from vbpi_mix.training.model_density import ModelDensity


class Particles(NamedTuple):
    """Trees drawn from components of the mixture, with their densities; T = S K of them.

    Attributes:
        generator_of_tree: Position among the denominators of the component that generated each tree [tree].
        topologies: Topologies, looked up in the support.
        log_lengths: log b [tree, edge].
        branch_lengths: b, in expected substitutions per site [tree, edge].
        log_topology: log q_d(tau) [tree, denominator].
        log_branches: log q_d(log b | tau) [tree, denominator].
    """

    generator_of_tree: np.ndarray
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
        model: Densities of the substitution model's free parameters; None where it has none.
    """

    networks: SubsplitNetworks
    branches: BranchParameters
    model: ModelDensity | None = None

    @property
    def support(self) -> Support:
        """Support shared by the components."""
        return self.networks.support

    @property
    def num_components(self) -> int:
        """Number of components, A."""
        return self.networks.num_components

    @property
    def num_coordinates(self) -> int:
        """Number of free parameters of the substitution model."""
        return 0 if self.model is None else self.model.num_coordinates

    @property
    def with_psp(self) -> bool:
        """Whether branch features include primary subsplit pairs."""
        return self.branches.features is BranchFeatures.PSP

    def component(self, number: int) -> "Mixture":
        """A copy of one component, as a mixture of one."""
        own = slice(number, number + 1)
        return Mixture(
            SubsplitNetworks.from_logits(self.support, self.networks.logits[own].copy()),
            BranchParameters(self.branches.table[own].copy(), self.branches.features, self.branches.density),
            None if self.model is None else self.model.component(number),
        )


class Sampler:
    """Draws trees from a mixture into arrays that are allocated once and overwritten by every call.

    Attributes:
        is_all: Whether branch lengths are handled for all components at once.
        posterior: Probability of each rooting of the last trees given the topology, under its generator.
        all_components: What branch densities under all components have left behind.
        below: Scratch space for log-probabilities of topologies.
        rooting: Scratch space for the same.
        branch_work: Scratch space for branch lengths.
    """

    def __init__(self, mixture: Mixture, num_trees: int, num_denominators: int) -> None:
        """Allocate for batches of exactly `num_trees` trees and densities under so many components."""
        num_taxa, num_components = mixture.support.num_taxa, mixture.num_components
        num_edges = 2 * num_taxa - 3
        self.mixture = mixture
        self.is_all = num_denominators == num_components >= MIN_COMPONENTS
        self.topologies = TopologyIndex.empty(num_trees, num_taxa)
        self.log_lengths = np.empty((num_trees, num_edges))
        self.branch_lengths = np.empty((num_trees, num_edges))
        self.log_topology = np.empty((num_trees, num_denominators))
        self.log_branches = np.empty((num_trees, num_denominators))
        self.posterior = np.empty((num_trees, num_edges))
        lanes = num_lanes(num_denominators, num_components)
        self.below, self.rooting = np.empty(2 * num_edges * lanes), np.empty(num_edges * lanes)
        self.branch_work = branch_kernels.make_work(num_edges)
        self.all_components = AllComponents.empty(
            num_trees if self.is_all else 0, num_edges, mixture.branches.num_features + 1, num_components
        )
        self._split = np.empty((num_trees, num_edges), np.int32)
        self._tripartition = np.empty((num_trees, num_taxa - 2), np.int32)
        self._node_work = np.empty((9, 2 * num_taxa), np.int32)

    def draw(
        self,
        component_of_tree: np.ndarray,
        denominators: np.ndarray,
        uniforms: np.ndarray,
        noise: np.ndarray,
    ) -> Particles:
        """Trees made from random numbers, and their densities under the components `denominators`.

        Args:
            component_of_tree: Component to draw each tree from, a denominator, int32 [tree].
            denominators: Components whose densities are wanted, in increasing order, int32 [denominator].
            uniforms: Numbers in [0, 1) for the topologies [tree, n - 1].
            noise: Standard normal numbers for the branches [tree, edge].

        Returns:
            Views of this object's arrays: copy what must outlive the next call.
        """
        support, networks, branches = self.mixture.support, self.mixture.networks, self.mixture.branches
        generator_of_tree = denominators.searchsorted(component_of_tree)
        draw_particles(
            support.tables, self.mixture.with_psp, networks.q, networks.log_q.T, branches.by_feature,
            branches.is_skewed, self.is_all, component_of_tree, denominators, generator_of_tree, uniforms,
            noise, *self.topologies, self._split, self._tripartition, self._node_work, self.below,
            self.rooting, self.posterior, self.branch_work, self.all_components, self.log_lengths,
            self.branch_lengths, self.log_topology, self.log_branches,
        )  # fmt: skip
        return Particles(
            generator_of_tree,
            self.topologies,
            self.log_lengths,
            self.branch_lengths,
            self.log_topology,
            self.log_branches,
        )
