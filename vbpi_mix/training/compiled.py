"""The compiled engine: a training step on the CPU without a framework call for each tensor.

A step is a handful of calls into compiled code on arrays that were allocated once, and in the middle the
objective, the same few lines of array code that every engine uses, which turns log weights into cotangents.

Where a step has to do with one component alone (S2S with S = 1), the components are kept apart in memory:
each is trained as a mixture of one, and they take turns.
"""

import math
from typing import NamedTuple

import numpy as np

from vbpi_mix.errors import NonFiniteError
from vbpi_mix.likelihood.estimated import AnyLikelihood, EstimatedModelLikelihood
from vbpi_mix.likelihood.priors import ExponentialBranchPrior, log_topology_prior
from vbpi_mix.objectives.estimators import Estimator
from vbpi_mix.objectives.gradients import Objective, mixture_objective
from vbpi_mix.training import _kernels, model_density
from vbpi_mix.training._kernels import BranchScratch, TopologyScratch
from vbpi_mix.training.config import MixtureConfig, OptimisationConfig
from vbpi_mix.training.mixture import Particles, Sampler
from vbpi_mix.training.model_density import ModelDraws
from vbpi_mix.training.state import StepDraw, StepSettings, TrainingState, describe_non_finite


class ModelTerms(NamedTuple):
    """What a model to estimate adds to a step.

    Attributes:
        draws: Coordinates of every tree's model and their densities.
        log_prior: Log prior density of the coordinates [tree].
        d_log_prior: Its derivative [tree, coordinate].
        d_log_likelihood: Derivative of the log-likelihood [tree, coordinate].
    """

    draws: ModelDraws
    log_prior: np.ndarray
    d_log_prior: np.ndarray
    d_log_likelihood: np.ndarray


class CompiledEngine:
    """Training steps in compiled code; see `vbpi_mix.training.state.Engine`."""

    def __init__(
        self,
        state: TrainingState,
        likelihood: AnyLikelihood,
        branch_prior: ExponentialBranchPrior,
        config: MixtureConfig,
        optimisation: OptimisationConfig,
    ) -> None:
        """Allocate the arrays of a step.

        Args:
            state: Updated in place by every step.
            likelihood: Likelihood of the data; under a model with free parameters where the state has them.
            branch_prior: Prior of branch lengths.
            config: Sizes of a step.
            optimisation: Says which optimiser.
        """
        support, table = state.mixture.support, state.mixture.branches.table
        num_trees = config.num_sampled * config.particles
        num_edges, num_rows = 2 * support.num_taxa - 3, table.shape[1]
        num_denominators = config.num_sampled if config.estimator is Estimator.S2S else config.components
        self._state = state
        is_lazy = optimisation.optimiser == "lazy_adam"  # else a step changes all components
        is_alone = num_denominators == 1 and is_lazy and config.components > 1
        self._parts = [state.component(a) for a in range(config.components)] if is_alone else []
        self._changed: set[int] = set()
        self._likelihood = likelihood
        self._branch_prior = branch_prior
        self._log_topology_prior = log_topology_prior(support.num_taxa)
        self._is_lazy = is_lazy
        self._sampler = Sampler(
            self._parts[0].mixture if is_alone else state.mixture, num_trees, num_denominators
        )
        is_estimated = isinstance(likelihood, EstimatedModelLikelihood)
        if is_estimated != (state.mixture.model is not None):
            raise ValueError(
                "expected both the likelihood and the mixture to have a model to estimate, or none"
            )
        self._log_likelihood = np.empty(num_trees)
        self._d_branch = np.empty((num_trees, num_edges))
        self._topology_scratch = TopologyScratch.empty(num_edges, support.num_parents, support.num_parameters)
        self._branch_scratch = BranchScratch.empty(
            self._sampler.is_all, num_trees * num_edges, num_rows, num_denominators
        )

    def state(self) -> TrainingState:
        """The state after the last step."""
        for number in self._changed:
            self._state.set_component(number, self._parts[number])
        if self._changed:
            self._state.mixture.networks.refresh()
            self._changed.clear()
        return self._state

    def step(self, draw: StepDraw, settings: StepSettings) -> float:
        """Do one step uphill and return its bound in nats; see `vbpi_mix.training.state.Engine`."""
        state, denominators, component_of_tree = self._concerned(draw)
        sampler = self._sampler
        sampler.mixture = state.mixture
        num_sampled, num_trees = len(draw.choice.sampled), len(draw.noise)
        networks, branches = state.mixture.networks, state.mixture.branches
        particles = sampler.draw(component_of_tree, denominators, draw.uniforms, draw.noise)
        log_lengths, lengths = particles.log_lengths, particles.branch_lengths
        model = self._evaluate(state, draw, particles, denominators)
        log_joint = (
            settings.inverse_temperature * self._log_likelihood
            + self._log_topology_prior
            + self._branch_prior.log_density_of(log_lengths, lengths)
        )
        log_density = particles.log_topology + particles.log_branches
        if model is not None:
            log_joint += model.log_prior
            log_density += model.draws.log_density
        objective = mixture_objective(
            log_joint.reshape(num_sampled, -1),
            log_density.reshape(num_sampled, -1, len(denominators)),
            draw.choice.generator,
            settings.topology_gradient,
            settings.branch_gradient,
        )
        bound = float(objective.bound)
        if not math.isfinite(bound):
            raise NonFiniteError(
                describe_non_finite(self._state.step, draw, objective.log_weights, self._log_likelihood)
            )
        d_log_lengths = objective.d_log_joint.reshape(num_trees, 1) * (
            settings.inverse_temperature * self._d_branch * lengths + self._branch_prior.gradient_of(lengths)
        )
        _kernels.ascend(
            settings.topology_rate, settings.branch_rate, self._is_lazy,
            objective.d_topology.reshape(num_trees, -1), objective.d_path.reshape(num_trees, -1),
            objective.d_score_branch.reshape(num_trees, -1), d_log_lengths, denominators,
            particles.generator_of_tree, sampler.posterior, *particles.topologies, log_lengths,
            networks.support.parent_start, networks.support.tables.parameter_parent, networks.logits,
            networks.log_q.T, networks.q, state.topology_moments, state.topology_updates, sampler.below,
            sampler.rooting, self._topology_scratch, branches.by_feature, branches.is_skewed, sampler.is_all,
            state.branch_moments.transpose(1, 2, 3, 0), state.branch_updates.T, sampler.branch_work,
            sampler.all_components, self._branch_scratch,
        )  # fmt: skip
        if model is not None:
            self._ascend_model(state, settings, model, objective)
        self._state.step += 1
        if self._parts:
            self._changed.update(map(int, draw.choice.sampled))
        return bound

    def _evaluate(
        self, state: TrainingState, draw: StepDraw, particles: Particles, denominators: np.ndarray
    ) -> ModelTerms | None:
        """Fill in log-likelihoods and branch gradients; return what a model to estimate adds."""
        likelihood, density = self._likelihood, state.mixture.model
        children, lengths = particles.topologies.children, particles.branch_lengths
        if not isinstance(likelihood, EstimatedModelLikelihood):
            likelihood.value_and_gradient(children, lengths, out=(self._log_likelihood, self._d_branch))
            return None
        assert density is not None
        assert draw.model_noise is not None
        model = density.draw(particles.generator_of_tree, denominators, draw.model_noise)
        self._log_likelihood[:], self._d_branch[:], d_coordinates = likelihood.value_and_gradients(
            children, lengths, model.coordinates
        )
        log_prior, d_log_prior = likelihood.transform.log_prior_and_gradient(model.coordinates)
        return ModelTerms(model, log_prior, d_log_prior, d_coordinates)

    def _ascend_model(
        self, state: TrainingState, settings: StepSettings, model: ModelTerms, objective: Objective
    ) -> None:
        """A step uphill of the densities of a model to estimate."""
        density = state.mixture.model
        assert density is not None  # there are terms of it
        num_trees = len(model.log_prior)
        d_joint = settings.inverse_temperature * model.d_log_likelihood + model.d_log_prior
        slope, is_touched = model_density.gradient(
            density,
            model.draws,
            objective.d_log_joint.reshape(num_trees, 1) * d_joint,
            objective.d_path.reshape(num_trees, -1),
            objective.d_score_branch.reshape(num_trees, -1),
        )
        model_density.ascend(
            settings.model_rate,
            density,
            slope,
            state.model_moments,
            state.model_updates,
            is_touched if self._is_lazy else np.ones_like(is_touched),
        )

    def _concerned(self, draw: StepDraw) -> tuple[TrainingState, np.ndarray, np.ndarray]:
        """The state that a step changes, and in it the denominators and the component of every tree."""
        denominators, component_of_tree = draw.choice.denominators.astype(np.int32), draw.component_of_tree
        if not self._parts:
            return self._state, denominators, component_of_tree
        part = self._parts[int(denominators[0])]
        return part, np.zeros_like(denominators), np.zeros_like(component_of_tree)
