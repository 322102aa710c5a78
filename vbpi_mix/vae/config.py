"""Configuration of a MISVAE run: frozen, validated, one documented field a line. All defaults live here."""

import math
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from vbpi_mix.machine import available_cores
from vbpi_mix.objectives.config import ComponentsConfig
from vbpi_mix.objectives.estimators import Estimator


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


class ImageConfig(_Frozen):
    """The images."""

    dataset: Literal["mnist", "fashion-mnist"] = "mnist"
    """Name of the data set."""
    data_dir: Path | None = None
    """Folder with its IDX files, gzipped or not; without it that of a Debian package, where it is installed,
    else the user's cache, filled from the network."""
    binarisation_seed: int = Field(0, ge=0)
    """Seed of the one binarisation of the validation and test images."""


class IndependentPixels(_Frozen):
    """Convolutional decoder, pixels independent given the latent variables."""

    kind: Literal["independent"] = "independent"
    hidden: int = Field(256, ge=1)
    """Units between the latent variables and the first feature maps."""
    features: int = Field(64, ge=1)
    """Channels at a quarter of the resolution; half of them at half, an eighth at full resolution."""


class AutoregressivePixels(_Frozen):
    """Decoder in which a pixel also depends on those above and to the left of it, in a window."""

    kind: Literal["autoregressive"] = "autoregressive"
    hidden: int = Field(256, ge=1)
    """Units between the latent variables and the first feature maps."""
    features: int = Field(64, ge=1)
    """Channels at a quarter of the resolution; half of them at half resolution."""
    channels: int = Field(16, ge=1)
    """Channels at full resolution, where latent variables and earlier pixels meet."""
    reach: int = Field(4, ge=1)
    """Pixels that the window extends upwards and to both sides."""


class ModelConfig(_Frozen):
    """The networks."""

    height: int = Field(28, ge=1)
    """Rows of an image."""
    width: int = Field(28, ge=1)
    """Columns of an image."""
    latent: int = Field(40, ge=1)
    """Latent variables of an image."""
    encoder_channels: int = Field(32, ge=1)
    """Channels of the encoder at half of the resolution; twice as many at a quarter."""
    trunk_features: int = Field(256, ge=1)
    """Features of an image that all components share."""
    head_width: int = Field(64, ge=1)
    """Hidden units of the head network: the parameters that a component costs."""
    decoder: Annotated[IndependentPixels | AutoregressivePixels, Field(discriminator="kind")] = (
        IndependentPixels()
    )
    """The likelihood of an image given its latent variables."""


class MixtureConfig(ComponentsConfig):
    """The mixture of encoders and the estimator of its bound."""

    estimator: Estimator = Estimator.S2A
    """Estimator of the mixture's bound."""
    particles: int = Field(1, ge=1)
    """Importance samples of each sampled component in a step, L."""


class OptimisationConfig(_Frozen):
    """How the networks are trained: Adam, with a rate that falls along half a cosine."""

    epochs: int = Field(50, ge=1)
    """Passes over the training images."""
    batch_size: int = Field(100, ge=1)
    """Images of a step; all steps of an epoch have as many, images left over wait for another epoch."""
    rate: float = Field(2e-3, gt=0)
    """First learning rate."""
    final_rate: float = Field(1e-5, ge=0)
    """Last learning rate."""
    warm_up: float = Field(0.1, ge=0, le=1)
    """Share of the steps in which the weight of the divergence from the prior rises from 0 to 1."""

    def rate_at(self, step: int, num_steps: int) -> float:
        """Learning rate of a step, counted from 0."""
        return self.final_rate + (self.rate - self.final_rate) * 0.5 * (
            1 + math.cos(math.pi * step / num_steps)
        )

    def divergence_weight(self, step: int, num_steps: int) -> float:
        """Weight beta of the divergence from the prior in a step, counted from 0; in (0, 1]."""
        length = self.warm_up * num_steps
        return 1.0 if step + 1 >= length else (step + 1) / length


class MachineConfig(_Frozen):
    """What the run computes with."""

    device: str = "cpu"
    """Device, as torch names it."""
    threads: int = Field(default_factory=available_cores, ge=1)
    """Threads of torch in the whole process; by default one for each core that the process may use."""
    checkpoint_seconds: float = Field(30.0, ge=0)
    """Seconds between checkpoints."""
    log_every: int = Field(20, ge=1)
    """Steps between lines of metrics.jsonl, which end with every epoch besides."""


class MisvaeConfig(_Frozen):
    """Everything that determines a run."""

    seed: int = Field(0, ge=0)
    """Seed of all random streams."""
    images: ImageConfig = ImageConfig()
    model: ModelConfig = ModelConfig()
    mixture: MixtureConfig = MixtureConfig()
    optimisation: OptimisationConfig = OptimisationConfig()
    machine: MachineConfig = MachineConfig()
