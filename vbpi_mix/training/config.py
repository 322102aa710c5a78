"""Configuration of a run: frozen, validated, one documented field a line. All defaults live here.

The resolved configuration is written beside the results as ``config.toml``; a run can be repeated from that
file.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from vbpi_mix.branches.network import BranchDensity, BranchFeatures
from vbpi_mix.machine import available_cores
from vbpi_mix.objectives.estimators import Estimator, check_sizes
from vbpi_mix.objectives.gradients import BranchGradient, TopologyGradient


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


class DataConfig(_Frozen):
    """What is analysed; exactly one of `alignment` and `dataset`."""

    alignment: Path | None = None
    """Alignment file: FASTA, PHYLIP, NEXUS or Clustal."""
    dataset: str | None = None
    """Name of a bundled data set, DS1 to DS8."""
    support: Path | None = None
    """Trees that the support is built from; without it the bundled ones, or those of the best open route."""
    model: Literal["JC"] = "JC"
    """Substitution model."""
    branch_prior_rate: float = Field(10.0, gt=0)
    """Rate of the exponential prior on branch lengths, per expected substitution per site."""

    @model_validator(mode="after")
    def _one_source(self) -> "DataConfig":
        if (self.alignment is None) == (self.dataset is None):
            raise ValueError("expected either an alignment file or a data set's name")
        return self


class MixtureConfig(_Frozen):
    """The variational family and the estimator of its bound."""

    components: int = Field(1, ge=1)
    """Mixture components, A."""
    sampled: int | None = Field(None, ge=1)
    """Components drawn in a step, S; by default all of them for a2a, one otherwise."""
    estimator: Estimator = Estimator.A2A
    """Estimator of the mixture's bound."""
    particles: int = Field(10, ge=1)
    """Particles drawn from each sampled component in a step, K."""
    branch_model: BranchFeatures = BranchFeatures.PSP
    """Features that a branch's parameters are the sum of."""
    branch_density: BranchDensity = BranchDensity.SKEWED
    """Family of a branch length's density."""

    @model_validator(mode="after")
    def _sampled_components(self) -> "MixtureConfig":
        if self.num_sampled > self.components:
            raise ValueError(
                f"expected sampled (--sampled) to be at most the number of components, got {self.sampled} of "
                f"{self.components}: components are drawn without replacement; lower it, or raise "
                "components (--components)"
            )
        check_sizes(self.estimator, self.components, self.num_sampled)
        return self

    @property
    def num_sampled(self) -> int:
        """Components drawn in a step, S."""
        if self.sampled is not None:
            return self.sampled
        return self.components if self.estimator is Estimator.A2A else 1


class LinearAnnealing(_Frozen):
    """Inverse temperature that rises linearly to 1."""

    kind: Literal["linear"] = "linear"
    initial: float = Field(0.01, gt=0, le=1)
    """Inverse temperature at the first step."""
    steps: int | None = Field(None, ge=0)
    """Steps until it is 1; None: `fraction` of the run."""
    fraction: float = Field(0.8, ge=0, le=1)
    """Share of the run until it is 1, where `steps` is None."""

    def inverse_temperature(self, step: int, num_steps: int) -> float:
        """beta of a step, in (0, 1]."""
        length = self.fraction * num_steps if self.steps is None else self.steps
        return 1.0 if step >= length else min(1.0, self.initial + (1.0 - self.initial) * step / length)


class CosineDecay(_Frozen):
    """Learning rate that falls to nearly zero along half a cosine."""

    kind: Literal["cosine"] = "cosine"
    final: float = Field(0.01, ge=0, le=1)
    """Last rate, as a share of the first."""

    def factor(self, step: int, num_steps: int) -> float:
        """Rate of a step as a share of the first."""
        return self.final + (1.0 - self.final) * 0.5 * (1.0 + float(np.cos(np.pi * step / num_steps)))


class StepDecay(_Frozen):
    """Learning rate multiplied by a factor every so many steps."""

    kind: Literal["step"] = "step"
    ratio: float = Field(0.75, gt=0, le=1)
    """What the rate is multiplied by."""
    every: int = Field(20_000, ge=1)
    """Steps between multiplications."""

    def factor(self, step: int, num_steps: int) -> float:
        """Rate of a step as a share of the first."""
        return self.ratio ** (step // self.every)


class OptimisationConfig(_Frozen):
    """How the mixture is trained."""

    iterations: int = Field(15_000, ge=1)
    """Steps."""
    initial_topologies: Literal["support", "uniform"] = "support"
    """Start of the subsplit networks: frequencies in the support's trees, or all logits zero."""
    topology_gradient: TopologyGradient = TopologyGradient.REWEIGHTED_WAKE_SLEEP
    """Gradient of the subsplit networks."""
    branch_gradient: BranchGradient = BranchGradient.DOUBLY_REPARAMETERISED
    """Gradient of the branch-length networks once the inverse temperature is 1."""
    annealing_branch_gradient: BranchGradient = BranchGradient.PATH
    """Gradient of the branch-length networks before."""
    optimiser: Literal["lazy_adam", "adam"] = "lazy_adam"
    """Adam, lazily on the parameters that a step's trees use, or on all."""
    topology_rate: float = Field(0.02, gt=0)
    """First learning rate of the subsplit networks."""
    branch_rate: float = Field(0.02, gt=0)
    """First learning rate of the branch-length networks."""
    annealing: LinearAnnealing = LinearAnnealing()
    """Schedule of the inverse temperature."""
    decay: Annotated[CosineDecay | StepDecay, Field(discriminator="kind")] = CosineDecay()
    """Schedule of the learning rates."""


class GrowthConfig(_Frozen):
    """Growth of the support where posterior mass presses against its edge."""

    enabled: bool | None = None
    """Whether the support is checked and grown; None: for alignments, not for bundled data sets."""
    max_outside: float = Field(0.005, gt=0, lt=1)
    """Estimated posterior probability just outside the support that is left there."""
    max_rounds: int = Field(3, ge=1)
    """Most rounds of growth and further training."""
    max_topologies: int = Field(1_000, ge=1)
    """Most topologies that a round adds."""
    training: float = Field(0.2, gt=0, le=1)
    """Steps of training after a round, as a share of the first training's."""
    rates: float = Field(0.25, gt=0, le=1)
    """First learning rates of that training, as a share of the first training's."""


class EvaluationConfig(_Frozen):
    """How the trained mixture is evaluated."""

    repeats: int = Field(100, ge=2)
    """Repetitions of the marginal-likelihood estimate."""
    samples: int = Field(1_000, ge=1)
    """Likelihood evaluations of one estimate, over all components."""
    refit: bool = True
    """Whether the subsplit networks are refitted to importance-corrected topologies after training."""
    posterior_samples: int = Field(10_000, ge=1)
    """Trees resampled into the posterior files."""


class MachineConfig(_Frozen):
    """What the run computes with."""

    engine: Literal["compiled", "torch"] = "compiled"
    """Compiled code on the CPU, or torch on any device."""
    device: str = "cpu"
    """Device of the torch engine, as torch names it."""
    threads: int = Field(default_factory=available_cores, ge=1)
    """Threads of the likelihood kernel and of drawing trees; of torch in the whole process, where it is the
    engine. By default one for each core that the process may use; results do not depend on them."""
    dtype: Literal["float64", "float32"] = "float32"
    """Precision of the likelihood kernel in training; evaluation is in float64 in any case."""
    checkpoint_seconds: float = Field(30.0, ge=0)
    """Seconds between checkpoints."""
    log_every: int = Field(100, ge=1)
    """Steps between lines of metrics.jsonl."""

    @model_validator(mode="after")
    def _device_of_engine(self) -> "MachineConfig":
        if self.engine == "compiled" and self.device != "cpu":
            raise ValueError(
                f"the compiled engine runs on the cpu, not on {self.device!r}: use the engine torch"
            )
        return self


class RunConfig(_Frozen):
    """Everything that determines a run."""

    seed: int = Field(0, ge=0)
    """Seed of all random streams."""
    data: DataConfig
    mixture: MixtureConfig = MixtureConfig()
    optimisation: OptimisationConfig = OptimisationConfig()
    growth: GrowthConfig = GrowthConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    machine: MachineConfig = MachineConfig()

    @property
    def grows_support(self) -> bool:
        """Whether the support is checked and grown."""
        return self.data.dataset is None if self.growth.enabled is None else self.growth.enabled

    def training_of_phase(self, phase: int) -> OptimisationConfig:
        """How to train: first, in phase 0, or after round 1, 2, ... of growth: briefly and not annealed."""
        first = self.optimisation
        if phase == 0:
            return first
        return first.model_copy(
            update={
                "iterations": max(1, round(self.growth.training * first.iterations)),
                "topology_rate": self.growth.rates * first.topology_rate,
                "branch_rate": self.growth.rates * first.branch_rate,
                "annealing": LinearAnnealing(steps=0),
                "decay": CosineDecay(),
            }
        )


PUBLISHED_RECIPE: dict[str, dict[str, Any]] = {
    "mixture": {"particles": 10, "branch_density": "lognormal"},
    "optimisation": {
        "iterations": 400_000,
        "initial_topologies": "uniform",
        "optimiser": "adam",
        "topology_gradient": "vimco",
        "branch_gradient": "reparameterised",
        "annealing_branch_gradient": "reparameterised",
        "topology_rate": 0.001,
        "branch_rate": 0.001,
        "annealing": {"kind": "linear", "initial": 0.001, "steps": 100_000},
        "decay": {"kind": "step", "ratio": 0.75, "every": 20_000},
    },
    "growth": {"enabled": False},
    "evaluation": {"refit": False},
}
"""The literature's recipe (Zhang & Matsen 2019; Molén et al. 2024): settings that replace the defaults."""
