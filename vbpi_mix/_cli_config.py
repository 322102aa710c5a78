"""Command-line options into a run's configuration, and the configuration to and from ``config.toml``."""

import shlex
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import ValidationError

from vbpi_mix.errors import ConfigurationError, RunDirectoryError
from vbpi_mix.results.run_directory import write_text
from vbpi_mix.training.config import PUBLISHED_RECIPE, RunConfig

OPTION_FIELDS: dict[str, tuple[str, ...]] = {
    "alignment": ("data", "alignment"),
    "dataset": ("data", "dataset"),
    "support": ("data", "support"),
    "components": ("mixture", "components"),
    "sampled": ("mixture", "sampled"),
    "estimator": ("mixture", "estimator"),
    "particles": ("mixture", "particles"),
    "branch_model": ("mixture", "branch_model"),
    "branch_density": ("mixture", "branch_density"),
    "iterations": ("optimisation", "iterations"),
    "topology_rate": ("optimisation", "topology_rate"),
    "branch_rate": ("optimisation", "branch_rate"),
    "repeats": ("evaluation", "repeats"),
    "samples": ("evaluation", "samples"),
    "refit": ("evaluation", "refit"),
    "posterior_samples": ("evaluation", "posterior_samples"),
    "engine": ("machine", "engine"),
    "device": ("machine", "device"),
    "threads": ("machine", "threads"),
    "dtype": ("machine", "dtype"),
    "checkpoint_seconds": ("machine", "checkpoint_seconds"),
    "log_every": ("machine", "log_every"),
    "seed": ("seed",),
}
"""Where in the configuration the value of each option of ``vbpi-mix run`` goes."""

COMMAND_MARK = "# written by: "
"""What the command follows in the comment that begins ``config.toml``."""

RECIPES: dict[str, Mapping[str, Any]] = {"published": PUBLISHED_RECIPE}
"""Settings that ``--recipe`` puts in place of the defaults."""


def settings_of_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings of the options that were given; those that are None were not.

    Paths are made absolute, so that the configuration means the same wherever it is read.
    """
    settings: dict[str, Any] = {}
    for name, value in options.items():
        if value is None:
            continue
        *sections, field = OPTION_FIELDS[name]
        target = settings
        for section in sections:
            target = target.setdefault(section, {})
        target[field] = str(value.resolve()) if isinstance(value, Path) else value
    return settings


def resolve_config(
    settings: Mapping[str, Any], recipe: str | None = None, file: Path | None = None
) -> RunConfig:
    """Configuration from layers, the later ones first in effect: defaults, recipe, file, settings.

    Args:
        settings: Nested settings, as `settings_of_options` returns.
        recipe: Name of a recipe, one of `RECIPES`.
        file: A ``config.toml``, which need not be complete.

    Raises:
        ConfigurationError: A value is out of range, unknown, or contradicts another.
    """
    layers: list[Mapping[str, Any]] = [RECIPES[recipe]] if recipe else []
    if file is not None:
        layers.append(_read_toml(file))
    merged: dict[str, Any] = {}
    for layer in [*layers, settings]:
        merged = _merge(_without_replaced_data(merged, layer), layer)
    if not merged.get("data"):
        raise ConfigurationError(
            "expected an alignment file, or a bundled data set with --dataset, got neither"
        )
    return _validated(merged, None if file is None else str(file))


def continued_config(config: RunConfig, settings: Mapping[str, Any]) -> RunConfig:
    """Configuration of a run that is to be continued, with the options that cannot change its results.

    These are the time between checkpoints and the threads of the compiled engine.

    Raises:
        ConfigurationError: Another option differs from the run's; named.
    """
    stored = config.model_dump(mode="json")
    stored["mixture"]["sampled"] = config.mixture.num_sampled
    changes = {}
    for option, path in OPTION_FIELDS.items():
        given, kept = _at(settings, path), _at(stored, path)
        if given is None or given == kept:
            continue
        if option == "checkpoint_seconds" or (option == "threads" and config.machine.engine == "compiled"):
            changes[option] = given
        else:
            kept = "its default" if kept is None else kept
            raise ConfigurationError(
                f"--{option.replace('_', '-')}: this run was started with {kept}, not {given}; a continued "
                "run keeps its configuration: leave the option out, or start a new run with another --out"
            )
    return _validated(_merge(config.model_dump(), {"machine": changes}), None)


def write_config(path: Path, config: RunConfig, command: Sequence[str]) -> None:
    """Write ``config.toml``, whole or not at all, with the command in a comment on its first line."""
    content = tomli_w.dumps(config.model_dump(mode="json", exclude_none=True))
    # A line break in an argument would end the comment.
    write_text(path, COMMAND_MARK + " ".join(shlex.join(command).splitlines()) + "\n" + content)


def read_command(path: Path) -> list[str]:
    """The command in the comment of a ``config.toml``; empty where there is none."""
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    if not first.startswith(COMMAND_MARK):
        return []
    try:
        return shlex.split(first.removeprefix(COMMAND_MARK))
    except ValueError:  # edited by hand
        return []


def read_config(path: Path) -> RunConfig:
    """Read a run's ``config.toml``.

    Raises:
        RunDirectoryError: It is not there.
        ConfigurationError: It is damaged, or of another version.
    """
    if not path.exists():
        raise RunDirectoryError(f"{path}: expected a run's configuration, but the file is not there")
    return _validated(_read_toml(path), str(path))


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path}: expected a configuration in TOML: {error}") from None


def _validated(content: Mapping[str, Any], source: str | None) -> RunConfig:
    try:
        return RunConfig.model_validate(content)
    except ValidationError as error:
        faults = "; ".join(map(_explain, error.errors()))
        raise ConfigurationError(faults if source is None else f"{source}: {faults}") from None


def _explain(error: Any) -> str:
    """One validation error of pydantic in words, naming the option where there is one."""
    location = tuple(str(part) for part in error["loc"])
    options = [f"--{name.replace('_', '-')}" for name, path in OPTION_FIELDS.items() if path == location]
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        message = "unknown setting"
    elif error["type"] != "value_error":
        message = f"{message[:1].lower()}{message[1:]}, got {error['input']!r}"
    where = options[0] if options else ".".join(location)
    return f"{where}: {message}" if where else message


def _without_replaced_data(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> Mapping[str, Any]:
    """`lower` without data, and the trees for them, where `upper` names data of the other kind."""
    for source, other in (("alignment", "dataset"), ("dataset", "alignment")):
        if _at(upper, ("data", source)) is not None and _at(lower, ("data", other)) is not None:
            kept = {key: value for key, value in lower["data"].items() if key not in (other, "support")}
            return {**lower, "data": kept}
    return lower


def _merge(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings in which `upper` replaces `lower` value by value."""
    merged = dict(lower)
    for key, value in upper.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _at(settings: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """Value at a path of nested settings, or None."""
    value: Any = settings
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
