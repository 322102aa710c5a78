"""Configuration of a run: frozen, validated, one documented field a line. All defaults live here.

The resolved configuration is written beside the results as ``config.toml``; a run can be repeated from that
file.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from vbpi_mix.branches.network import BranchDensity, BranchFeatures
from vbpi_mix.errors import ConfigurationError
from vbpi_mix.likelihood.model_names import parse_model
from vbpi_mix.likelihood.model_parameters import ModelPriors
from vbpi_mix.machine import available_cores
from vbpi_mix.objectives.config import ComponentsConfig
from vbpi_mix.objectives.gradients import BranchGradient, TopologyGradient


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


class PriorsConfig(_Frozen):
    """Priors of the free parameters of a substitution model; the defaults are those of MrBayes."""

    exchangeabilities: float = Field(1.0, gt=0)
    """Concentration of the symmetric Dirichlet prior on the different exchangeabilities."""
    frequencies: float = Field(1.0, gt=0)
    """Concentration of the symmetric Dirichlet prior on estimated frequencies."""
    shape_rate: float = Field(1.0, gt=0)
    """Rate of the exponential prior on the shape of gamma rates."""

    def densities(self) -> ModelPriors:
        """The priors as the likelihood takes them."""
        return ModelPriors(**dict(self))


DEFAULT_MODELS = {"dataset": "JC", "alignment": "GTR+F+G4"}
"""Substitution models of bundled data sets, as in the literature, and of other alignments."""


class DataConfig(_Frozen):
    """What is analysed; exactly one of `alignment` and `dataset`."""

    alignment: Path | None = None
    """Alignment file: FASTA, PHYLIP, NEXUS or Clustal."""
    dataset: str | None = None
    """Name of a bundled data set, DS1 to DS8."""
    support: Path | None = None
    """Trees that the support is built from; without it the bundled ones, or those of the best open route."""
    model: str = ""
    """Substitution model, as IQ-TREE names it; without a name, that of `DEFAULT_MODELS`."""
    priors: PriorsConfig = PriorsConfig()
    """Priors of the model's free parameters."""
    branch_prior_rate: float = Field(10.0, gt=0)
    """Rate of the exponential prior on branch lengths, per expected substitution per site."""

    @model_validator(mode="before")
    @classmethod
    def _default_model(cls, settings: Any) -> Any:
        if not isinstance(settings, dict) or settings.get("model"):
            return settings
        source = "alignment" if settings.get("dataset") is None else "dataset"
        return {**settings, "model": DEFAULT_MODELS[source]}

    @field_validator("model")
    @classmethod
    def _known_model(cls, name: str) -> str:
        try:
            return parse_model(name).name
        except ConfigurationError as error:
            raise ValueError(str(error)) from None

    @model_validator(mode="after")
    def _one_source(self) -> "DataConfig":
        if (self.alignment is None) == (self.dataset is None):
            raise ValueError("expected either an alignment file or a data set's name")
        return self


class MixtureConfig(ComponentsConfig):
    """The variational family and the estimator of its bound."""

    particles: int = Field(10, ge=1)
    """Particles drawn from each sampled component in a step, K."""
    branch_model: BranchFeatures = BranchFeatures.PSP
    """Features that a branch's parameters are the sum of."""
    branch_density: BranchDensity = BranchDensity.SKEWED
    """Family of a branch length's density."""


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


FIRST_ROUND = 3_000
"""Steps of the first round of several runs, where no number of iterations is asked for: rounds follow until
the runs have converged. A single run cannot know, and trains as long as hard data need."""


ENOUGH_ESS = 10_000.0
"""Effective sample size, of several runs together, at which enough has been drawn from them, where no number
of repeats is asked for: the standard error of a probability is then 0.005 at most."""


def steps_of_rounds(iterations: int, number: int) -> int:
    """Steps of some rounds in all: the first takes `iterations`, each later one twice as many as the last."""
    return iterations * (2**number - 1)


class OptimisationConfig(_Frozen):
    """How the mixture is trained."""

    iterations: int = Field(15_000, ge=1)
    """Steps of the first round; of several runs `FIRST_ROUND` where none are asked for."""
    rounds: int = Field(1, ge=1)
    """Rounds of training, each twice as long as the one before, with all schedules anew."""
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
    model_rate: float = Field(0.02, gt=0)
    """First learning rate of the densities of the substitution model's parameters."""
    annealing: LinearAnnealing = LinearAnnealing()
    """Schedule of the inverse temperature."""
    decay: Annotated[CosineDecay | StepDecay, Field(discriminator="kind")] = CosineDecay()
    """Schedule of the learning rates."""

    @property
    def num_steps(self) -> int:
        """Steps in all."""
        return steps_of_rounds(self.iterations, self.rounds)

    def inverse_temperature(self, step: int) -> float:
        """beta of a step, counted from 0 over all rounds."""
        return self.annealing.inverse_temperature(*self._within_round(step))

    def rate_factor(self, step: int) -> float:
        """Rates of a step, counted from 0 over all rounds, as a share of the first ones."""
        return self.decay.factor(*self._within_round(step))

    def _within_round(self, step: int) -> tuple[int, int]:
        """Which step of its round a step is, and how many the round has."""
        number = (step // self.iterations + 1).bit_length() - 1
        return step - steps_of_rounds(self.iterations, number), self.iterations * 2**number


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
    enough_ess: float | None = Field(None, gt=0)
    """Effective sample size at which there are repeats enough, be they fewer; None: never."""
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
    log_every: int = Field(25, ge=1)
    """Steps between lines of metrics.jsonl."""
    training_seconds: float | None = Field(None, gt=0)
    """Most seconds of training: it stops at the first report after them, however many steps are left."""

    @model_validator(mode="after")
    def _device_of_engine(self) -> "MachineConfig":
        if self.engine == "compiled" and self.device != "cpu":
            raise ValueError(
                f"the compiled engine runs on the cpu, not on {self.device!r}: use the engine torch"
            )
        return self


class RunsConfig(_Frozen):
    """Independent runs of one analysis, and when it is done."""

    number: int = Field(2, ge=1)
    """Runs, with the seeds `seed`, `seed` + 1, ...; one cannot show agreement."""
    max_rounds: int = Field(4, ge=1)
    """Most rounds of training of several runs: they go on while training has not converged. A number of
    iterations that is asked for is one round."""
    budget_seconds: float | None = Field(None, gt=0)
    """Most seconds of the whole analysis; iterations are planned for them."""


class RunConfig(_Frozen):
    """Everything that determines a run."""

    seed: int = Field(0, ge=0)
    """Seed of all random streams."""
    runs: RunsConfig = RunsConfig()
    data: DataConfig
    mixture: MixtureConfig = MixtureConfig()
    optimisation: OptimisationConfig = OptimisationConfig()
    growth: GrowthConfig = GrowthConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    machine: MachineConfig = MachineConfig()

    @model_validator(mode="after")
    def _engine_of_model(self) -> "RunConfig":
        if self.machine.engine == "torch" and parse_model(self.data.model).is_estimated:
            raise ValueError(
                f"the torch engine takes no model with parameters to estimate, such as {self.data.model}: "
                "use the compiled engine, or fix the parameters, as in --model JC or HKY{2.5}+F"
            )
        return self

    @property
    def grows_support(self) -> bool:
        """Whether the support is checked and grown."""
        return self.data.dataset is None if self.growth.enabled is None else self.growth.enabled

    def training_after_growth(self) -> OptimisationConfig:
        """How to train after a round of the support's growth: briefly, and not annealed."""
        first = self.optimisation
        rates = {
            name: self.growth.rates * getattr(first, name)
            for name in ("topology_rate", "branch_rate", "model_rate")
        }
        return first.model_copy(
            update={
                "iterations": max(1, round(self.growth.training * first.iterations)),
                "rounds": 1,
                "annealing": LinearAnnealing(steps=0),
                "decay": CosineDecay(),
                **rates,
            }
        )

    def training_of_further_rounds(self, done: int, number: int) -> OptimisationConfig:
        """How to train in `number` further rounds that follow upon growth, after `done` ones."""
        iterations = 2**done * self.optimisation.iterations
        return self.optimisation.model_copy(update={"iterations": iterations, "rounds": number})


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
        "model_rate": 0.001,
        "annealing": {"kind": "linear", "initial": 0.001, "steps": 100_000},
        "decay": {"kind": "step", "ratio": 0.75, "every": 20_000},
    },
    "growth": {"enabled": False},
    "evaluation": {"refit": False},
}
"""The literature's recipe (Zhang & Matsen 2019; Molén et al. 2024): settings that replace the defaults."""
