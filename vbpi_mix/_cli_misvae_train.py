"""The command ``vbpi-mix misvae train``: a new or continued run from its first step to its files."""

import json
import platform
import shlex
import statistics
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from vbpi_mix._cli_output import say
from vbpi_mix._cli_progress import Progress, duration, show_progress
from vbpi_mix._cli_settings import (
    OptionFields,
    merge,
    nested_settings,
    read_command,
    read_config_file,
    read_toml,
    require_unchanged,
    validated,
    value_at,
    write_config,
)
from vbpi_mix._cli_training import (
    InterruptedRunError,
    Interruption,
    keep_metrics,
    read_metrics,
    write_checkpoint,
)
from vbpi_mix.errors import ConfigurationError, NonFiniteError
from vbpi_mix.machine import check_torch_device, versions
from vbpi_mix.results.run_directory import RunDirectory, append_json_line, to_json, write_text
from vbpi_mix.vae.config import MisvaeConfig
from vbpi_mix.vae.images import load_images
from vbpi_mix.vae.training import TrainingState, load_checkpoint, save_checkpoint, steps_in_epoch, train

OPTION_FIELDS: OptionFields = {
    "dataset": ("images", "dataset"),
    "data_dir": ("images", "data_dir"),
    "decoder": ("model", "decoder", "kind"),
    "components": ("mixture", "components"),
    "sampled": ("mixture", "sampled"),
    "estimator": ("mixture", "estimator"),
    "particles": ("mixture", "particles"),
    "epochs": ("optimisation", "epochs"),
    "batch_size": ("optimisation", "batch_size"),
    "rate": ("optimisation", "rate"),
    "warm_up": ("optimisation", "warm_up"),
    "device": ("machine", "device"),
    "threads": ("machine", "threads"),
    "checkpoint_seconds": ("machine", "checkpoint_seconds"),
    "log_every": ("machine", "log_every"),
    "seed": ("seed",),
}
"""Where in the configuration the value of each option of ``vbpi-mix misvae train`` goes."""

FREE_OPTIONS = ("data_dir", "checkpoint_seconds")
"""Options that cannot change a run's results: images are checked by their content."""

METRICS = {"iteration", "epoch", "training_seconds"}


def run(
    options: dict[str, Any], out: Path, resume: bool, config_file: Path | None, quiet: bool
) -> dict[str, Any]:
    """Do a run, or the rest of one.

    Args:
        options: Values of the options that `OPTION_FIELDS` names; None where not given.
        out: The run's directory.
        resume: Whether to continue the run that it holds.
        config_file: Configuration to start from, or None.
        quiet: Whether to say nothing on the way.

    Returns:
        Content of ``result.json``.

    Raises:
        VbpiMixError: Something that the user can mend.
        InterruptedRunError: A signal came; everything up to the last checkpoint is safe.
    """
    directory = RunDirectory(out, "misvae train")
    settings = nested_settings(options, OPTION_FIELDS)
    if resume:
        directory.require_run()
        if config_file is not None:
            raise ConfigurationError("--resume: a continued run keeps its configuration; leave --config out")
        config = continued_config(read_config_file(directory.config, MisvaeConfig, OPTION_FIELDS), settings)
    else:
        directory.require_new()
        lower = {} if config_file is None else read_toml(config_file)
        source = None if config_file is None else str(config_file)
        config = validated(MisvaeConfig, merge(lower, settings), OPTION_FIELDS, source)
    interruption = Interruption()
    with interruption.handled(), directory.lock():
        if not resume:
            directory.require_new()  # again, now that nobody else can start one here
        elif directory.result.exists():
            if not quiet:
                say(f"{out}: this run has finished already\n")
            return dict(json.loads(directory.result.read_text(encoding="utf-8")))
        check_torch_device(config.machine.device)
        torch.set_num_threads(config.machine.threads)
        images = load_images(
            config.images.dataset, config.images.data_dir, config.images.binarisation_seed
        ).training
        num_steps = config.optimisation.epochs * _steps_in_epoch(config, images)
        with show_progress(num_steps, quiet) as progress:
            try:
                config, state = _begin(config, directory, resume, progress)
                _train(config, state, images, directory, progress, interruption)
                return _finish(config, state, directory)
            except InterruptedRunError:
                if directory.holds_run():
                    progress.stage(
                        f"continue with: vbpi-mix misvae train --resume --out {shlex.quote(str(out))}"
                    )
                else:
                    progress.stage("stopped before anything was saved; start the run again")
                raise


def continued_config(config: MisvaeConfig, settings: dict[str, Any]) -> MisvaeConfig:
    """Configuration of a run that is to be continued, with the options that cannot change its results.

    Raises:
        ConfigurationError: Another option differs from the run's; named.
    """
    stored = config.model_dump(mode="json")
    stored["mixture"]["sampled"] = config.mixture.num_sampled
    bound = {name: path for name, path in OPTION_FIELDS.items() if name not in FREE_OPTIONS}
    require_unchanged(stored, settings, bound)
    changes: dict[str, Any] = {}
    for name in FREE_OPTIONS:
        section, field = OPTION_FIELDS[name]
        given = value_at(settings, (section, field))
        if given is not None:
            changes.setdefault(section, {})[field] = given
    return validated(MisvaeConfig, merge(config.model_dump(mode="json"), changes), OPTION_FIELDS, None)


def _steps_in_epoch(config: MisvaeConfig, images: torch.Tensor) -> int:
    try:
        return steps_in_epoch(config, len(images))
    except ValueError as error:
        raise ConfigurationError(f"--batch-size: {error}") from None


def _begin(
    config: MisvaeConfig, directory: RunDirectory, resume: bool, progress: Progress
) -> tuple[MisvaeConfig, TrainingState]:
    """The state to go on from: that of the last checkpoint, or a new run's."""
    mixture = config.mixture
    if resume and directory.checkpoint.exists():
        own, state = load_checkpoint(directory.checkpoint)
        config = own.model_copy(update={"images": config.images, "machine": config.machine})
        progress.stage(f"continuing at iteration {state.step:,}")
        return config, state
    state = TrainingState.initial(config)
    progress.stage(
        f"{config.images.dataset}: {state.model.num_parameters():,} parameters, A={mixture.components}, "
        f"{mixture.estimator.value} with S={mixture.num_sampled}"
    )
    if not resume:
        write_config(directory.config, config, sys.argv)
    _save(config, state, directory)
    return config, state


def _train(
    config: MisvaeConfig,
    state: TrainingState,
    images: torch.Tensor,
    directory: RunDirectory,
    progress: Progress,
    interruption: Interruption,
) -> None:
    """Train to the end, with a line of metrics for each record and a checkpoint now and then."""
    before = [record for record in _metrics(directory) if record["iteration"] <= state.step]
    keep_metrics(directory, before)
    saved_at = time.monotonic()
    num_steps = config.optimisation.epochs * steps_in_epoch(config, len(images))
    with interruption.deferred():
        try:
            for reached in train(config, images, state):
                record = asdict(reached)
                append_json_line(directory.metrics, {"iteration": record.pop("step"), **record})
                progress.training(reached.step, reached.bound, reached.divergence_weight)
                is_due = time.monotonic() - saved_at >= config.machine.checkpoint_seconds
                if reached.step == num_steps or is_due or interruption.signal_number is not None:
                    _save(config, state, directory)
                    saved_at = time.monotonic()
                if interruption.signal_number is not None:
                    progress.stage(f"stopped after iteration {reached.step:,}")
                    raise InterruptedRunError(interruption.signal_number)
        except NonFiniteError as error:
            _save(config, state, directory)
            reason = str(error).rstrip(".")
            raise NonFiniteError(
                f"training stopped after step {state.step:,}: {reason}; start a new run with another --out "
                f"(the state before is in {directory.checkpoint})"
            ) from None


def _finish(config: MisvaeConfig, state: TrainingState, directory: RunDirectory) -> dict[str, Any]:
    """Write what the run took; ``result.json`` comes last."""
    records = _metrics(directory)
    result = {
        "num_parameters": state.model.num_parameters(),
        "epochs": config.optimisation.epochs,
        "iterations": state.step,
        "training_bound": records[-1]["bound"] if records else None,
        "training_seconds": state.training_seconds,
        "seconds_per_epoch": _seconds_per_epoch(records, config.optimisation.epochs, state.training_seconds),
        "seed": config.seed,
        "versions": versions(),
        "provenance": {
            "command": read_command(directory.config) or sys.argv,
            "device": config.machine.device,
            "threads": config.machine.threads,
            "platform": platform.platform(),
        },
    }
    write_text(directory.result, to_json(result, indent=2) + "\n")
    return result


def report(result: dict[str, Any], out: Path) -> str:
    """Summary of a run for people, and what to do next."""
    return "\n".join(
        [
            f"parameters                 {result['num_parameters']:,}",
            f"time                       {duration(result['training_seconds'])} training "
            f"({result['epochs']} epochs of {result['seconds_per_epoch']:.1f} s)",
            f"next                       vbpi-mix misvae evaluate {shlex.quote(str(out))}",
        ]
    )


def _save(config: MisvaeConfig, state: TrainingState, directory: RunDirectory) -> None:
    write_checkpoint(directory, lambda path: save_checkpoint(path, config, state))


def _metrics(directory: RunDirectory) -> list[dict[str, Any]]:
    return read_metrics(directory, METRICS)


def _seconds_per_epoch(records: list[dict[str, Any]], num_epochs: int, training_seconds: float) -> float:
    """Median time of an epoch; the mean, where records of some epoch's end are missing."""
    ends = [record["training_seconds"] for record in records if float(record["epoch"]).is_integer()]
    if len(ends) != num_epochs:
        return training_seconds / num_epochs
    return statistics.median(end - start for start, end in zip([0.0, *ends[:-1]], ends, strict=True))
