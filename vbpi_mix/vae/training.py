"""Training: one set of components a mini-batch, reparameterised gradients of the mixture's bound, Adam.

With the weight beta of the divergence from the prior, rising to 1 in the warm-up, a draw has the log weight

    f = log p(x|z) + beta (log p(z) - log q(z|x)),   q = (1/D) sum_d q_d over the denominators,

and the step ascends `vbpi_mix.objectives.bounds.importance_weights`'s bound of f, averaged over the images,
by its derivative through everything, the densities of all denominators included.
"""

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8

from vbpi_mix.errors import NonFiniteError, RunDirectoryError
from vbpi_mix.objectives.bounds import importance_weights
from vbpi_mix.objectives.estimators import ComponentChoice, choose_components
from vbpi_mix.torch_files import read_torch_file
from vbpi_mix.vae.config import MisvaeConfig
from vbpi_mix.vae.encoder import Gaussians
from vbpi_mix.vae.images import binarise
from vbpi_mix.vae.model import Misvae, draw_latents, log_density, log_likelihood, log_prior

VERSION = 1

_STREAMS = ("initialisation", "order", "component_choice", "pixels", "latents")
"""Separate random streams of a run. Append only: the position seeds the stream."""


@dataclass
class TrainingState:
    """All that training changes.

    Attributes:
        model: the parameters.
        optimiser: Adam, with its moments.
        pixels: generator of the training images' pixels.
        latents: generator of the latent variables.
        component_choice: generator of the sampled components.
        step: steps done.
        training_seconds: time spent in them.
    """

    model: Misvae
    optimiser: torch.optim.Adam
    pixels: torch.Generator
    latents: torch.Generator
    component_choice: np.random.Generator
    step: int = 0
    training_seconds: float = 0.0

    @classmethod
    def initial(cls, config: MisvaeConfig) -> "TrainingState":
        """State before the first step."""
        device = torch.device(config.machine.device)
        # Parameters are drawn on the CPU: all devices start alike.
        initialisation = torch.Generator().manual_seed(_stream_seed(config.seed, "initialisation"))
        model = Misvae(config.model, config.mixture.components, initialisation).to(device)
        return cls(
            model=model,
            optimiser=torch.optim.Adam(model.parameters(), lr=config.optimisation.rate, fused=True),
            pixels=torch.Generator(device).manual_seed(_stream_seed(config.seed, "pixels")),
            latents=torch.Generator(device).manual_seed(_stream_seed(config.seed, "latents")),
            component_choice=np.random.default_rng(_stream_seed(config.seed, "component_choice")),
        )


@dataclass(frozen=True)
class Progress:
    """A record of training.

    Attributes:
        step: steps done.
        epoch: epochs done, with a fraction.
        bound: mean bound of an image, in nats, over the steps since the last record.
        divergence_weight: beta of the last step.
        rate: learning rate of the last step.
        training_seconds: time spent in steps so far.
    """

    step: int
    epoch: float
    bound: float
    divergence_weight: float
    rate: float
    training_seconds: float


def steps_in_epoch(config: MisvaeConfig, num_images: int) -> int:
    """Steps that pass once over so many training images.

    Raises:
        ValueError: There are fewer images than a step takes.
    """
    steps = num_images // config.optimisation.batch_size
    if steps == 0:
        raise ValueError(
            f"expected at least batch_size = {config.optimisation.batch_size} training images, "
            f"got {num_images}"
        )
    return steps


def train(
    config: MisvaeConfig, training: UInt8[torch.Tensor, "training height width"], state: TrainingState
) -> Iterator[Progress]:
    """Train until the configured number of epochs is done, changing ``state`` in place.

    A record comes every ``machine.log_every`` steps and after each epoch. A state saved at a record goes on
    from there as if it had never stopped, bit for bit on the same machine with as many threads.

    Args:
        config: the run.
        training: grey values of the training images.
        state: where to go on.

    Raises:
        NonFiniteError: The bound is no finite number.
        ValueError: The images have other sizes than the model's, or are fewer than a step takes.
    """
    size = (config.model.height, config.model.width)
    if training.shape[1:] != size:
        raise ValueError(
            f"expected training images of {size[0]} x {size[1]} pixels, as the model's height and width say, "
            f"got {training.shape[1]} x {training.shape[2]}"
        )
    device = torch.device(config.machine.device)
    batch_size = config.optimisation.batch_size
    per_epoch = steps_in_epoch(config, len(training))
    num_steps = per_epoch * config.optimisation.epochs
    bounds: list[float] = []
    order = _order(config.seed, state.step // per_epoch, len(training))
    while state.step < num_steps:
        start = time.perf_counter()
        epoch, batch = divmod(state.step, per_epoch)
        if batch == 0:
            order = _order(config.seed, epoch, len(training))
        rate = config.optimisation.rate_at(state.step, num_steps)
        divergence_weight = config.optimisation.divergence_weight(state.step, num_steps)
        grey = training[order[batch * batch_size : (batch + 1) * batch_size]].to(device)
        bounds.append(_step(config, state, grey, rate, divergence_weight))
        state.training_seconds += time.perf_counter() - start
        if state.step % config.machine.log_every == 0 or state.step % per_epoch == 0:
            mean_bound = math.fsum(bounds) / len(bounds)
            bounds.clear()
            yield Progress(
                step=state.step,
                epoch=state.step / per_epoch,
                bound=mean_bound,
                divergence_weight=divergence_weight,
                rate=rate,
                training_seconds=state.training_seconds,
            )


def mean_bound(
    model: Misvae,
    images: Float[torch.Tensor, "image height width"],
    choice: ComponentChoice,
    num_particles: int,
    divergence_weight: float,
    generator: torch.Generator,
) -> Float[torch.Tensor, ""]:
    """Bound of an image, in nats, averaged over the images; differentiable in all parameters.

    Args:
        model: the parameters.
        images: pixels, 0 or 1.
        choice: sampled components and denominators.
        num_particles: draws of each sampled component, L.
        divergence_weight: beta, the weight of log p(z) - log q(z|x).
        generator: of the latent variables.
    """
    denominators = torch.from_numpy(choice.denominators).to(images.device)
    position = torch.from_numpy(choice.generator).to(images.device)
    gaussians = model.encoder(images, denominators)
    sampled = Gaussians(gaussians.mean[:, position], gaussians.log_scale[:, position])
    z = draw_latents(sampled, num_particles, generator)
    log_q = log_density(z, gaussians)
    log_joint = log_likelihood(model, images, z) + divergence_weight * log_prior(z)
    if divergence_weight != 1.0:  # importance_weights takes off all of the log mixture density: give it back
        log_mixture = torch.logsumexp(log_q, dim=-1) - math.log(len(denominators))
        log_joint = log_joint + (1.0 - divergence_weight) * log_mixture
    return importance_weights(log_joint, log_q).bound.mean()


def _step(
    config: MisvaeConfig,
    state: TrainingState,
    grey: UInt8[torch.Tensor, "image height width"],
    rate: float,
    divergence_weight: float,
) -> float:
    """Take one step on a mini-batch; returns its bound."""
    mixture = config.mixture
    choice = choose_components(
        mixture.estimator, mixture.components, mixture.num_sampled, state.component_choice
    )
    images = binarise(grey, state.pixels, torch.float32)
    bound = mean_bound(state.model, images, choice, mixture.particles, divergence_weight, state.latents)
    value = float(bound.detach())
    if not math.isfinite(value):
        raise NonFiniteError(
            f"step {state.step + 1}: expected a finite bound, got {value} with the components "
            f"{choice.sampled.tolist()}; lower the learning rate ({rate:.2g}), or lengthen the warm-up"
        )
    for group in state.optimiser.param_groups:
        group["lr"] = rate
    state.optimiser.zero_grad()
    (-bound).backward()
    state.optimiser.step()
    state.step += 1
    return value


def save_checkpoint(path: Path, config: MisvaeConfig, state: TrainingState) -> None:
    """Write all that training needs to go on. Writing atomically is the caller's part."""
    content = {
        "version": VERSION,
        "config": config.model_dump_json(),
        "model": state.model.state_dict(),
        "optimiser": state.optimiser.state_dict(),
        "pixels": state.pixels.get_state(),
        "latents": state.latents.get_state(),
        "component_choice": json.dumps(state.component_choice.bit_generator.state),
        "step": state.step,
        "training_seconds": state.training_seconds,
    }
    torch.save(content, path)


def load_checkpoint(path: Path) -> tuple[MisvaeConfig, TrainingState]:
    """Configuration and state in a file of `save_checkpoint`, on the device of the configuration.

    Raises:
        RunDirectoryError: It cannot be read, or another version of the program wrote it in another form.
    """
    content = _read_checkpoint(path)
    config = MisvaeConfig.model_validate_json(content["config"])
    state = TrainingState.initial(config)
    state.model.load_state_dict(content["model"])
    state.optimiser.load_state_dict(content["optimiser"])
    state.pixels.set_state(content["pixels"])
    state.latents.set_state(content["latents"])
    state.component_choice.bit_generator.state = json.loads(content["component_choice"])
    state.step = content["step"]
    state.training_seconds = content["training_seconds"]
    return config, state


def load_model(path: Path, device: str | None = None) -> tuple[MisvaeConfig, Misvae]:
    """Configuration and model in a file of `save_checkpoint`.

    Args:
        path: the file.
        device: where the model shall be; None: the device it was trained on.

    Raises:
        RunDirectoryError: As for `load_checkpoint`.
    """
    content = _read_checkpoint(path)
    config = MisvaeConfig.model_validate_json(content["config"])
    model = Misvae(config.model, config.mixture.components, torch.Generator())
    model.load_state_dict(content["model"])
    return config, model.to(config.machine.device if device is None else device)


def _read_checkpoint(path: Path) -> dict[str, Any]:
    """Content of a checkpoint of this version."""
    content = read_torch_file(path, "a checkpoint of a MISVAE run", VERSION)
    missing = {"optimiser", "latents"} - content.keys()
    if missing:
        raise RunDirectoryError(
            f"{path}: expected a checkpoint of a MISVAE run, but it cannot be read as one (it lacks "
            f"{', '.join(sorted(missing))}); give the folder of such a run"
        )
    return content


def _stream_seed(seed: int, stream: str) -> int:
    """Seed of one of a run's streams."""
    child = np.random.SeedSequence(seed).spawn(len(_STREAMS))[_STREAMS.index(stream)]
    return int(child.generate_state(1, np.uint64)[0] >> 1)


def _order(seed: int, epoch: int, num_images: int) -> torch.Tensor:
    """Order of the training images in an epoch; it depends on no earlier epoch."""
    rng = np.random.default_rng([_stream_seed(seed, "order"), epoch])
    return torch.from_numpy(rng.permutation(num_images))
