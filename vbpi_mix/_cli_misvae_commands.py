"""The commands ``vbpi-mix misvae evaluate`` and ``sample``, on a run's last checkpoint."""

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vbpi_mix._cli_output import say
from vbpi_mix._cli_progress import duration
from vbpi_mix.errors import ConfigurationError, RunDirectoryError
from vbpi_mix.machine import check_torch_device
from vbpi_mix.results.run_directory import RunDirectory, atomic_write
from vbpi_mix.vae.config import MisvaeConfig
from vbpi_mix.vae.evaluation import score_images, summarise
from vbpi_mix.vae.images import ImageData, load_images
from vbpi_mix.vae.model import Misvae
from vbpi_mix.vae.pictures import png_content, sample_grid
from vbpi_mix.vae.training import load_model

TOTAL_SAMPLES = 1000
"""Importance samples of an image over all components, unless told."""

SILENCE = 15.0
"""Seconds between lines of progress of an evaluation."""

IMAGES_AT_ONCE = 100
"""Images evaluated between looks at the clock."""

_STREAMS = ("evaluate", "sample")
"""Separate random streams of the commands. Append only: the position seeds the stream."""


def evaluate(
    run: Path,
    samples: int | None,
    num_images: int | None,
    part: str,
    data_dir: Path | None,
    device: str | None,
    seed: int | None,
    quiet: bool,
) -> dict[str, Any]:
    """Evaluation of a run's model on images with fixed pixels, as plain values, in nats.

    Args:
        run: The run's directory.
        samples: Draws of each component for each image, L; None: `TOTAL_SAMPLES` over all components.
        num_images: Only so many images, the first ones; None: all.
        part: ``test`` or ``validation``.
        data_dir: Folder with the images; None: as the run.
        device: Device; None: the run's.
        seed: Seed of the draws; None: the run's.
        quiet: Whether to say nothing on the way.
    """
    config, model, data = _open(run, data_dir, device)
    place = next(model.parameters()).device
    images = (data.test if part == "test" else data.validation)[:num_images].to(place)
    if samples is None:
        samples = math.ceil(TOTAL_SAMPLES / model.num_components)
    generator = _generator(config, seed, "evaluate", place)
    began = said = time.monotonic()
    parts, done = [], 0
    for some in images.split(IMAGES_AT_ONCE):
        parts.append(score_images(model, some, samples, generator))
        done += len(some)
        now = time.monotonic()
        if not quiet and now - said > SILENCE and done < len(images):
            left = (now - began) / done * (len(images) - done)
            say(f"{done:,} of {len(images):,} images, {duration(left)} left\n")
            said = now
    found = summarise(parts, samples)
    return {
        "negative_log_likelihood": {
            "mean": found.negative_log_likelihood.mean,
            "standard_error": found.negative_log_likelihood.standard_error,
        },
        "bound": found.bound.mean,
        "importance_bound": found.importance_bound.mean,
        "jensen_shannon": found.jensen_shannon.mean,
        "active_components": found.active_components,
        "num_components": model.num_components,
        "num_parameters": model.num_parameters(),
        "num_images": found.num_images,
        "num_samples": found.num_samples,
        "part": part,
        "dataset": config.images.dataset,
        "seconds": time.monotonic() - began,
    }


def evaluation_report(result: dict[str, Any]) -> str:
    """An evaluation for people."""
    likelihood = result["negative_log_likelihood"]
    lines = [
        f"negative log-likelihood    {likelihood['mean']:.2f} nats (standard error "
        f"{likelihood['standard_error']:.2f}) over {result['num_images']:,} {result['part']} images of "
        f"{result['dataset']}",
        f"  estimated from           {result['num_samples']:,} samples of each of {result['num_components']} "
        f"components for each image, {duration(result['seconds'])}",
        f"lower bounds               {result['bound']:.2f} (one sample), {result['importance_bound']:.2f} "
        "(all samples of a component)",
        f"parameters                 {result['num_parameters']:,}",
    ]
    if result["num_components"] > 1:
        lines.append(
            f"components                 {result['num_components']}, as different as "
            f"{result['active_components']:.2f} that share nothing (Jensen-Shannon divergence "
            f"{result['jensen_shannon']:.3f})"
        )
    return "\n".join(lines)


def sample(
    run: Path,
    out: Path | None,
    num_images: int,
    num_shown: int,
    num_prior: int,
    data_dir: Path | None,
    device: str | None,
    seed: int | None,
) -> str:
    """Write a picture of test images, their reconstructions by component, and samples of the prior.

    Returns:
        Where it is and what it shows.
    """
    path = run / "samples.png" if out is None else out
    if path.exists():
        raise RunDirectoryError(
            f"{path}: exists already and is not overwritten; choose another name with --out"
        )
    config, model, data = _open(run, data_dir, device)
    place = next(model.parameters()).device
    num_components = min(num_shown, model.num_components)
    generator = _generator(config, seed, "sample", place)
    grid = sample_grid(model, data.test[:num_images].to(place), num_components, num_prior, generator)
    with atomic_write(path) as temporary:
        temporary.write_bytes(png_content(grid))
    return (
        f"{path}: {num_images} test images, reconstructions by {num_components} of {model.num_components} "
        f"components, {num_images * num_prior} samples of the prior"
    )


def _open(run: Path, data_dir: Path | None, device: str | None) -> tuple[MisvaeConfig, Misvae, ImageData]:
    """Configuration, model and images of a run."""
    directory = RunDirectory(run, "misvae train")
    directory.require_checkpoint()
    if not directory.result.exists():
        say(f"Note: {run}: this run has not finished; the model is that of its last checkpoint\n")
    if device is not None:
        check_torch_device(device)
    try:
        config, model = load_model(directory.checkpoint, device)
    except (AssertionError, RuntimeError) as error:  # of torch, without the device of the run
        reason = str(error).splitlines()[0]
        raise ConfigurationError(
            f"{directory.checkpoint}: cannot be used here ({reason}); choose a device with --device cpu"
        ) from None
    torch.set_num_threads(config.machine.threads)
    images = config.images
    folder = images.data_dir if data_dir is None else data_dir
    return config, model, load_images(images.dataset, folder, images.binarisation_seed)


def _generator(config: MisvaeConfig, seed: int | None, stream: str, device: torch.device) -> torch.Generator:
    """Generator of a command's draws, of the run's seed or another."""
    number = _STREAMS.index(stream)
    child = np.random.SeedSequence([config.seed if seed is None else seed, number])
    return torch.Generator(device).manual_seed(int(child.generate_state(1, np.uint64)[0] >> 1))
