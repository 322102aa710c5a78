"""The torch engine: the compiled engine's step in tensor operations, on any device.

It computes the same step from the same draws, which is how each engine checks the other. Topologies are
sampled and looked up by the compiled kernels on the CPU, whose integer tables have no counterpart on a
device; everything with a gradient is torch. Branch-length networks enter as `BranchNetwork`, so that neural
ones need no other engine.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch

from vbpi_mix.branches.torch_network import TableNetwork, TreeBatch, accumulate_gradients, draw_with_density
from vbpi_mix.errors import NonFiniteError
from vbpi_mix.likelihood.priors import ExponentialBranchPrior, log_topology_prior
from vbpi_mix.objectives.gradients import mixture_objective
from vbpi_mix.sbn._support_kernels import index_topologies
from vbpi_mix.sbn.network import draw_topologies
from vbpi_mix.sbn.support import TopologyIndex
from vbpi_mix.sbn.torch_network import RootingTerms, log_parameters, log_probability
from vbpi_mix.training._kernels import EPSILON, FIRST_DECAY, SECOND_DECAY
from vbpi_mix.training.config import OptimisationConfig
from vbpi_mix.training.state import StepDraw, StepSettings, TrainingState, describe_non_finite

if TYPE_CHECKING:
    from vbpi_mix.likelihood.torch_kernel import TorchLikelihood


class TorchEngine:
    """Training steps in torch; see `vbpi_mix.training.state.Engine`."""

    def __init__(
        self,
        state: TrainingState,
        likelihood: "TorchLikelihood",
        branch_prior: ExponentialBranchPrior,
        optimisation: OptimisationConfig,
        device: str = "cpu",
    ) -> None:
        """Copy the state to the device.

        Args:
            state: Where to start; `state` returns the same object, brought up to date.
            likelihood: Likelihood of the data, on the device.
            branch_prior: Prior of branch lengths.
            optimisation: Says which optimiser.
            device: Device, as torch names it. Parameters are float64 on every device.
        """

        def tensor(array: np.ndarray) -> torch.Tensor:
            return torch.tensor(array, device=device)

        support = state.mixture.support
        self._state = state
        self._likelihood = likelihood
        self._branch_prior = branch_prior
        self._log_topology_prior = log_topology_prior(support.num_taxa)
        self._is_lazy = optimisation.optimiser == "lazy_adam"
        self._logits = tensor(state.mixture.networks.logits).requires_grad_()
        self._branches = TableNetwork(state.mixture.branches).to(device)
        self._parameter_parent = tensor(support.tables.parameter_parent).long()
        # One child is no choice: such parents have no parameter to learn.
        self._has_choice = tensor(np.diff(support.parent_start) > 1)
        self._topology_moments = tensor(state.topology_moments)
        self._topology_updates = tensor(state.topology_updates).long()
        self._branch_moments = tensor(state.branch_moments[:, :-1])
        self._branch_updates = tensor(state.branch_updates[:, :-1]).long()

    def state(self) -> TrainingState:
        """The state after the last step, copied from the device."""
        state = self._state
        state.mixture.networks.logits[:] = self._logits.detach().cpu().numpy()
        state.mixture.networks.refresh()
        state.mixture.branches.table[:] = self._branches.to_parameters().table
        state.topology_moments[:] = self._topology_moments.cpu().numpy()
        state.topology_updates[:] = self._topology_updates.cpu().numpy()
        state.branch_moments[:, :-1] = self._branch_moments.cpu().numpy()
        state.branch_updates[:, :-1] = self._branch_updates.cpu().numpy()
        return state

    def step(self, draw: StepDraw, settings: StepSettings) -> float:
        """Do one step uphill and return its bound in nats; see `vbpi_mix.training.state.Engine`."""
        num_sampled = len(draw.choice.sampled)
        device, dtype = self._logits.device, self._logits.dtype
        denominators = torch.from_numpy(draw.choice.denominators).to(device)
        component_of_tree = torch.from_numpy(draw.component_of_tree).to(device).long()
        log_q = log_parameters(self._logits, self._parameter_parent)
        index = self._sample(log_q, draw)
        trees = TreeBatch(
            torch.from_numpy(index.children).to(device), torch.from_numpy(index.feature_index).to(device)
        )
        log_topology = log_probability(
            log_q[denominators], RootingTerms.of(index, self._state.mixture.support, self._logits)
        )
        noise = torch.from_numpy(draw.noise).to(device, dtype)
        branches = draw_with_density(self._branches, trees, component_of_tree, noise, denominators)
        log_lengths = branches.log_lengths.detach()
        lengths = log_lengths.exp().requires_grad_()
        log_likelihood = self._likelihood.log_likelihood(trees.children, lengths)
        (d_lengths,) = torch.autograd.grad(log_likelihood.sum(), lengths)
        log_likelihood, lengths = log_likelihood.detach(), lengths.detach()
        beta = settings.inverse_temperature
        log_joint = (
            beta * log_likelihood + self._log_topology_prior + self._branch_prior.log_density(log_lengths)
        )
        objective = mixture_objective(
            log_joint.reshape(num_sampled, -1),
            (log_topology + branches.log_density).detach().reshape(num_sampled, -1, len(denominators)),
            torch.from_numpy(draw.choice.generator).to(device),
            settings.topology_gradient,
            settings.branch_gradient,
        )
        bound = float(objective.bound)
        if not np.isfinite(bound):
            raise NonFiniteError(
                describe_non_finite(
                    self._state.step, draw, objective.log_weights.cpu().numpy(), log_likelihood.cpu().numpy()
                )
            )
        num_trees = len(draw.noise)
        d_topology = objective.d_topology.reshape(num_trees, -1)
        d_score = objective.d_score_branch.reshape(num_trees, -1)
        # 0 * log q(tau) of a component that cannot make tau would be a nan
        relevant = torch.where(d_topology == 0, 0.0, log_topology)
        (d_topology * relevant).sum().backward()
        d_log_lengths = objective.d_log_joint.reshape(num_trees, 1) * (
            beta * d_lengths * lengths + self._branch_prior.gradient(log_lengths)
        )
        accumulate_gradients(
            self._branches, branches, objective.d_path.reshape(num_trees, -1), d_score, d_log_lengths
        )
        self._ascend_topologies(
            self._touched_parents(index, denominators, d_topology), settings.topology_rate
        )
        self._ascend_branches(
            self._touched_rows(trees, component_of_tree, denominators, d_score), settings.branch_rate
        )
        self._state.step += 1
        return bound

    def _sample(self, log_q: torch.Tensor, draw: StepDraw) -> TopologyIndex:
        """Topologies of the step, drawn and looked up on the CPU."""
        mixture = self._state.mixture
        support = mixture.support
        q = np.ascontiguousarray(log_q.detach().exp().cpu().numpy())
        drawn = draw_topologies(support, q, draw.component_of_tree, draw.uniforms)
        index = TopologyIndex.empty(len(drawn.children), support.num_taxa)
        index.children[:] = drawn.children
        index_topologies(support.tables, *drawn, mixture.with_psp, *index[1:])
        return index

    def _touched_parents(
        self, index: TopologyIndex, denominators: torch.Tensor, d_topology: torch.Tensor
    ) -> torch.Tensor:
        """Which parents' choices the step's trees used [component, parent]."""
        num_components, num_parents = self._topology_updates.shape
        if not self._is_lazy:
            return self._has_choice.expand(num_components, num_parents)
        device = self._logits.device
        used = np.concatenate(
            [index.root_index, index.parameter_index.reshape(len(index.children), -1)], axis=1
        )
        parameter = torch.from_numpy(used).to(device).long()
        num_parameters = self._parameter_parent.shape[0]
        parent = torch.where(
            parameter < num_parameters,
            self._parameter_parent[parameter.clamp(max=num_parameters - 1)],
            num_parents,
        )
        tree, position = torch.nonzero(d_topology, as_tuple=True)
        touched = torch.zeros(num_components, num_parents + 1, dtype=torch.bool, device=device)
        touched[denominators[position][:, None], parent[tree]] = True
        return touched[:, :num_parents] & self._has_choice

    def _touched_rows(
        self,
        trees: TreeBatch,
        component_of_tree: torch.Tensor,
        denominators: torch.Tensor,
        d_score: torch.Tensor,
    ) -> torch.Tensor:
        """Which branch features the step's trees used [component, feature]."""
        num_components, num_features = self._branch_updates.shape
        if not self._is_lazy:
            return torch.ones_like(self._branch_updates, dtype=torch.bool)
        rows = trees.feature_index.long().flatten(1)
        touched = torch.zeros(num_components, num_features + 1, dtype=torch.bool, device=rows.device)
        touched[component_of_tree[:, None], rows] = True
        tree, position = torch.nonzero(d_score, as_tuple=True)
        touched[denominators[position][:, None], rows[tree]] = True
        return touched[:, :num_features]

    def _ascend_topologies(self, touched: torch.Tensor, rate: float) -> None:
        """Adam on the logits of touched parents."""
        self._topology_updates += touched
        is_updated = touched[:, self._parameter_parent]
        num_updates = self._topology_updates[:, self._parameter_parent]
        _adam_ascent(self._logits, self._topology_moments, num_updates, is_updated, rate)

    def _ascend_branches(self, touched: torch.Tensor, rate: float) -> None:
        """Adam on the touched rows of the branch table."""
        self._branch_updates += touched
        table = self._branches.table
        _adam_ascent(table, self._branch_moments, self._branch_updates[..., None], touched[..., None], rate)


def _adam_ascent(
    parameter: torch.Tensor,
    moments: torch.Tensor,
    num_updates: torch.Tensor,
    is_updated: torch.Tensor,
    rate: float,
) -> None:
    """One step of Adam uphill where `is_updated`, as in `vbpi_mix.training._kernels`; clears the gradient.

    Args:
        parameter: Has the gradient.
        moments: Both moments along a last axis, updated in place.
        num_updates: Updates of each parameter, this one included.
        is_updated: Which parameters move.
        rate: Learning rate.
    """
    gradient = parameter.grad
    assert gradient is not None
    with torch.no_grad():
        first = FIRST_DECAY * moments[..., 0] + (1.0 - FIRST_DECAY) * gradient
        second = SECOND_DECAY * moments[..., 1] + (1.0 - SECOND_DECAY) * gradient**2
        moments[..., 0] = torch.where(is_updated, first, moments[..., 0])
        moments[..., 1] = torch.where(is_updated, second, moments[..., 1])
        count = num_updates.clamp(min=1).to(parameter.dtype)
        step = (first / (1.0 - FIRST_DECAY**count)) / (
            (second / (1.0 - SECOND_DECAY**count)).sqrt() + EPSILON
        )
        parameter += torch.where(is_updated, rate * step, 0.0)
    parameter.grad = None
