"""The compiled engine: a training step on the CPU without a framework call for each tensor.

A step is a handful of calls into compiled code on arrays that were allocated once, and in the middle the
objective, the same few lines of array code that every engine uses, which turns log weights into cotangents.
"""

import numpy as np

from vbpi_mix.branches import _kernels as branch_kernels
from vbpi_mix.errors import NonFiniteError
from vbpi_mix.likelihood.base import TreeLikelihood
from vbpi_mix.likelihood.priors import ExponentialBranchPrior, log_topology_prior
from vbpi_mix.objectives.estimators import Estimator
from vbpi_mix.objectives.gradients import mixture_objective
from vbpi_mix.training import _kernels
from vbpi_mix.training.config import MixtureConfig, OptimisationConfig
from vbpi_mix.training.mixture import Particles, Sampler
from vbpi_mix.training.state import StepDraw, StepSettings, TrainingState, describe_non_finite


class CompiledEngine:
    """Training steps in compiled code; see `vbpi_mix.training.state.Engine`."""

    def __init__(
        self,
        state: TrainingState,
        likelihood: TreeLikelihood,
        branch_prior: ExponentialBranchPrior,
        config: MixtureConfig,
        optimisation: OptimisationConfig,
    ) -> None:
        """Allocate the arrays of a step.

        Args:
            state: Updated in place by every step.
            likelihood: Likelihood of the data.
            branch_prior: Prior of branch lengths.
            config: Sizes of a step.
            optimisation: Says which optimiser.
        """
        support, networks, table = (
            state.mixture.support,
            state.mixture.networks,
            state.mixture.branches.table,
        )
        num_taxa = support.num_taxa
        num_edges, num_trees = 2 * num_taxa - 3, config.num_sampled * config.particles
        num_denominators = config.num_sampled if config.estimator is Estimator.S2S else config.components
        self._state = state
        self._likelihood = likelihood
        self._branch_prior = branch_prior
        self._log_topology_prior = log_topology_prior(num_taxa)
        self._is_lazy = optimisation.optimiser == "lazy_adam"
        self._sampler = Sampler(state.mixture, num_trees, num_denominators)
        self._log_likelihood = np.empty(num_trees)
        self._d_branch = np.empty((num_trees, num_edges))
        self._slot_work = np.empty(2 * num_edges)
        self._edge_work = np.empty(num_edges)
        self._mass_work = np.empty(num_edges + 1)
        self._branch_work = branch_kernels.make_work(num_edges)
        parents = (config.components, support.num_parents)
        self._counts = np.zeros((config.components, support.num_parameters + 2))
        self._parent_touched = np.zeros(parents, np.uint8)
        self._parent_list = np.empty(parents, np.int32)
        self._parent_list_length = np.zeros(config.components, np.int64)
        self._branch_grad = np.zeros_like(table)
        self._row_touched = np.zeros(table.shape[:2], np.uint8)
        self._row_list = np.empty(networks.num_components * table.shape[1], np.int64)
        self._row_list_length = np.zeros(1, np.int64)

    def state(self) -> TrainingState:
        """The state after the last step."""
        return self._state

    def step(self, draw: StepDraw, settings: StepSettings) -> float:
        """Do one step uphill and return its bound in nats; see `vbpi_mix.training.state.Engine`."""
        state = self._state
        num_sampled, num_trees = len(draw.choice.sampled), len(draw.noise)
        denominators = draw.choice.denominators.astype(np.int32)
        particles = self._sampler.draw(draw.component_of_tree, denominators, draw.uniforms, draw.noise)
        self._likelihood.value_and_gradient(
            particles.topologies.children,
            particles.branch_lengths,
            out=(self._log_likelihood, self._d_branch),
        )
        log_joint = (
            settings.inverse_temperature * self._log_likelihood
            + self._log_topology_prior
            + self._branch_prior.log_density_of(particles.log_lengths, particles.branch_lengths)
        )
        objective = mixture_objective(
            log_joint.reshape(num_sampled, -1),
            (particles.log_topology + particles.log_branches).reshape(num_sampled, -1, len(denominators)),
            draw.choice.generator,
            settings.topology_gradient,
            settings.branch_gradient,
        )
        bound = float(objective.bound)
        if not np.isfinite(bound):
            raise NonFiniteError(
                describe_non_finite(state.step, draw, objective.log_weights, self._log_likelihood)
            )
        self._ascend_topologies(
            particles, denominators, objective.d_topology.reshape(num_trees, -1), settings
        )
        d_log_lengths = objective.d_log_joint.reshape(num_trees, 1) * (
            settings.inverse_temperature * self._d_branch * particles.branch_lengths
            + self._branch_prior.gradient_of(particles.branch_lengths)
        )
        self._ascend_branches(
            particles,
            denominators,
            objective.d_path.reshape(num_trees, -1),
            objective.d_score_branch.reshape(num_trees, -1),
            d_log_lengths,
            settings,
        )
        state.step += 1
        return bound

    def _ascend_topologies(
        self, particles: Particles, denominators: np.ndarray, d_topology: np.ndarray, settings: StepSettings
    ) -> None:
        """Update the subsplit networks."""
        state, networks = self._state, self._state.mixture.networks
        _kernels.topology_counts(
            networks.log_q, denominators, d_topology, *particles.topologies[:3],
            networks.support.tables.parameter_parent, self._slot_work, self._edge_work, self._mass_work,
            self._counts, self._parent_touched, self._parent_list,
            self._parent_list_length,
        )  # fmt: skip
        if not self._is_lazy:
            _kernels.touch_all_parents(self._parent_touched, self._parent_list, self._parent_list_length)
        _kernels.update_topologies(
            settings.topology_rate, networks.support.parent_start, networks.logits, networks.log_q,
            networks.q, self._counts, self._parent_touched, self._parent_list,
            self._parent_list_length, state.topology_moments, state.topology_updates,
        )  # fmt: skip

    def _ascend_branches(
        self,
        particles: Particles,
        denominators: np.ndarray,
        d_path: np.ndarray,
        d_score: np.ndarray,
        d_log_lengths: np.ndarray,
        settings: StepSettings,
    ) -> None:
        """Update the branch-length networks."""
        state, branches = self._state, self._state.mixture.branches
        branch_kernels.backward(
            branches.table, particles.topologies.feature_index, particles.log_lengths,
            particles.component_of_tree, denominators, branches.is_skewed, d_path, d_score, d_log_lengths,
            self._branch_work, self._branch_grad, self._row_touched, self._row_list, self._row_list_length,
        )  # fmt: skip
        if not self._is_lazy:
            _kernels.touch_all_rows(self._row_touched, self._row_list, self._row_list_length)
        _kernels.update_branches(
            settings.branch_rate, branches.table, self._branch_grad, branches.is_skewed,
            self._row_touched, self._row_list, self._row_list_length, state.branch_moments,
            state.branch_updates,
        )  # fmt: skip
