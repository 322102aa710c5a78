"""The state of training: parameters, the optimiser's memory, and how many steps are done."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64, Int32

from vbpi_mix.branches.network import BranchParameters
from vbpi_mix.objectives.estimators import ComponentChoice, choose_components
from vbpi_mix.objectives.gradients import BranchGradient, TopologyGradient
from vbpi_mix.sbn.em import rooting_averaged_logits
from vbpi_mix.sbn.network import SubsplitNetworks
from vbpi_mix.sbn.support import Support
from vbpi_mix.seeding import RandomStreams
from vbpi_mix.training.config import MixtureConfig, OptimisationConfig
from vbpi_mix.training.mixture import Mixture
from vbpi_mix.training.model_density import ModelDensity
from vbpi_mix.trees.samples import TreeSample

INITIAL_POWER = 0.5
"""Power of the conditional frequencies in the support's trees at which the subsplit networks start.

Bootstrap frequencies are not posterior probabilities: what is as probable as the rest may be in one tree of
thousands, and would hardly be drawn, and forgotten, before annealing lets the data speak.
"""


@dataclass(eq=False)
class TrainingState:
    """Everything a step changes, apart from the random streams.

    Attributes:
        step: Steps done.
        mixture: The variational posterior.
        topology_moments: Adam's two moments of every logit [component, parameter, 2].
        topology_updates: Updates of every parent [component, parent].
        branch_moments: Adam's two moments of every branch parameter [component, feature + 1, 3, 2].
        branch_updates: Updates of every branch feature [component, feature + 1].
        model_moments: Adam's two moments of the model's density [component, coordinate, coordinate + 1, 2].
        model_updates: Updates of the model's density [component].
    """

    step: int
    mixture: Mixture
    topology_moments: Float64[np.ndarray, "component parameter 2"]
    topology_updates: Int32[np.ndarray, "component parent"]
    branch_moments: Float64[np.ndarray, "component feature_and_dummy 3 2"]
    branch_updates: Int32[np.ndarray, "component feature_and_dummy"]
    model_moments: Float64[np.ndarray, "component coordinate coordinate_and_one 2"]
    model_updates: Int32[np.ndarray, "component"]

    @classmethod
    def initial(cls, mixture: Mixture) -> "TrainingState":
        """State before the first step."""
        table, size = mixture.branches.table, mixture.num_coordinates
        return cls(
            step=0,
            mixture=mixture,
            topology_moments=np.zeros((*mixture.networks.logits.shape, 2)),
            topology_updates=np.zeros((mixture.num_components, mixture.support.num_parents), np.int32),
            # in memory like the table: components side by side
            branch_moments=np.zeros((*table.shape[1:], 2, len(table))).transpose(3, 0, 1, 2),
            branch_updates=np.zeros(table.shape[1::-1], np.int32).T,
            model_moments=np.zeros((len(table), size, size + 1, 2)),
            model_updates=np.zeros(len(table), np.int32),
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays by name; they are the state's own, not copies."""
        arrays = {
            "logits": self.mixture.networks.logits,
            "branch_table": self.mixture.branches.table,
            "topology_moments": self.topology_moments,
            "topology_updates": self.topology_updates,
            "branch_moments": self.branch_moments,
            "branch_updates": self.branch_updates,
        }
        if self.mixture.model is not None:
            arrays["model_table"] = self.mixture.model.table
            arrays["model_moments"] = self.model_moments
            arrays["model_updates"] = self.model_updates
        return arrays

    def component(self, number: int) -> "TrainingState":
        """A copy of one component's part, as the state of a mixture of one."""
        part = TrainingState.initial(self.mixture.component(number))
        part.restore(self.step, {name: array[number : number + 1] for name, array in self.arrays().items()})
        return part

    def set_component(self, number: int, part: "TrainingState") -> None:
        """Copy one component's part back; `SubsplitNetworks.refresh` is left to the caller."""
        parts = part.arrays()
        for name, array in self.arrays().items():
            array[number] = parts[name][0]

    def restore(self, step: int, arrays: dict[str, np.ndarray]) -> None:
        """Set the state to one whose step and `arrays` were saved.

        Raises:
            ValueError: An array is missing or has another shape, so it belongs to another run.
        """
        for name, own in self.arrays().items():
            if name not in arrays or arrays[name].shape != own.shape:
                got = arrays[name].shape if name in arrays else "nothing"
                raise ValueError(
                    f"expected {name} of shape {own.shape}, got {got}: is the state of another run?"
                )
            own[...] = arrays[name]
        self.step = step
        self.mixture.networks.refresh()


def initial_mixture(
    support: Support,
    sample: TreeSample,
    mixture: MixtureConfig,
    optimisation: OptimisationConfig,
    model: Float64[np.ndarray, "coordinate"] | None = None,
) -> Mixture:
    """The mixture before training.

    All components start alike, and part because each learns from its own draws.

    Args:
        support: Support made from the sample.
        sample: Trees whose frequencies the subsplit networks may start from.
        mixture: Family of the posterior.
        optimisation: Says how to start.
        model: Coordinates of the substitution model to start from; None, or none, where it has none.
    """
    match optimisation.initial_topologies:
        case "support":
            logits = rooting_averaged_logits(support, support.index(sample.children), sample.weights)
            logits *= INITIAL_POWER
        case "uniform":
            logits = np.zeros(support.num_parameters)
    networks = SubsplitNetworks.from_logits(support, np.tile(logits, (mixture.components, 1)))
    branches = BranchParameters.initial(
        mixture.components,
        support.num_splits,
        support.num_subsplits,
        mixture.branch_model,
        mixture.branch_density,
    )
    if model is None or len(model) == 0:
        return Mixture(networks, branches)
    return Mixture(networks, branches, ModelDensity.initial(mixture.components, model))


@dataclass(frozen=True)
class StepDraw:
    """Random numbers of one step, the same for every engine; T = S K trees, component by component.

    Attributes:
        choice: Components drawn, and those whose densities make the mixture in the weights.
        uniforms: Numbers in [0, 1) for the topologies [tree, n - 1].
        noise: Standard normal numbers for the branches [tree, edge].
        model_noise: Standard normal numbers for the model [tree, coordinate]; None where it has no free
            parameters.
    """

    choice: ComponentChoice
    uniforms: Float64[np.ndarray, "tree subsplit"]
    noise: Float64[np.ndarray, "tree edge"]
    model_noise: Float64[np.ndarray, "tree coordinate"] | None

    @classmethod
    def from_streams(
        cls, streams: RandomStreams, mixture: MixtureConfig, num_taxa: int, num_coordinates: int = 0
    ) -> "StepDraw":
        """Draw the random numbers of the next step."""
        num_trees = mixture.num_sampled * mixture.particles
        return cls(
            choose_components(
                mixture.estimator, mixture.components, mixture.num_sampled, streams.component_choice
            ),
            streams.topologies.random((num_trees, num_taxa - 1)),
            streams.branch_lengths.standard_normal((num_trees, 2 * num_taxa - 3)),
            streams.models.standard_normal((num_trees, num_coordinates)) if num_coordinates else None,
        )

    @property
    def component_of_tree(self) -> Int32[np.ndarray, "tree"]:
        """Component that generates each tree."""
        return np.repeat(self.choice.sampled.astype(np.int32), len(self.noise) // len(self.choice.sampled))


@dataclass(frozen=True)
class StepSettings:
    """What schedules decide about one step."""

    inverse_temperature: float
    topology_rate: float
    branch_rate: float
    topology_gradient: TopologyGradient
    branch_gradient: BranchGradient
    model_rate: float

    @classmethod
    def of_step(cls, step: int, optimisation: OptimisationConfig) -> "StepSettings":
        """Settings of a step, counted from 0."""
        beta, factor = optimisation.inverse_temperature(step), optimisation.rate_factor(step)
        return cls(
            inverse_temperature=beta,
            topology_rate=factor * optimisation.topology_rate,
            branch_rate=factor * optimisation.branch_rate,
            topology_gradient=optimisation.topology_gradient,
            branch_gradient=(
                optimisation.branch_gradient if beta == 1.0 else optimisation.annealing_branch_gradient
            ),
            model_rate=factor * optimisation.model_rate,
        )


@runtime_checkable
class Engine(Protocol):
    """Computes training steps. Engines differ in what they compute with, not in what they compute."""

    def step(self, draw: StepDraw, settings: StepSettings) -> float:
        """Do one step uphill and return its bound in nats.

        Raises:
            NonFiniteError: The bound is not finite; the state is left as it was before the step.
        """
        ...

    def state(self) -> TrainingState:
        """The state after the last step."""
        ...


def describe_non_finite(
    step: int, draw: StepDraw, log_weights: np.ndarray, log_likelihood: np.ndarray
) -> str:
    """Message that says where a bound stopped being a number.

    Args:
        step: Steps done before.
        draw: Random numbers of the step.
        log_weights: Log weights of the particles [sampled, particle].
        log_likelihood: Log-likelihoods of the trees [tree].
    """
    bad = ~np.isfinite(log_weights)
    components = draw.choice.sampled[bad.any(axis=1)].tolist()
    which = "log-likelihood" if not np.isfinite(log_likelihood).all() else "density under the mixture"
    return (
        f"the bound is not a finite number at step {step + 1}: the {which} of {int(bad.sum())} of "
        f"{bad.size} particles is not, in component(s) {components}"
    )
