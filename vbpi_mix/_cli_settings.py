"""Nested settings of any command: from options, from TOML, merged, and validated into a configuration."""

import shlex
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tomli_w
from pydantic import BaseModel, ValidationError

from vbpi_mix._cli_output import check_text
from vbpi_mix.errors import ConfigurationError, RunDirectoryError
from vbpi_mix.results.run_directory import write_text

OptionFields = Mapping[str, tuple[str, ...]]
"""Where in a configuration the value of each option of a command goes."""

Config = TypeVar("Config", bound=BaseModel)

COMMAND_MARK = "# written by: "
"""What the command follows in the comment that begins ``config.toml``."""


def nested_settings(options: Mapping[str, Any], fields: OptionFields) -> dict[str, Any]:
    """Nested settings of the options that were given; those that are None were not.

    Paths are made absolute, so that the configuration means the same wherever it is read.

    Raises:
        ConfigurationError: An absolute path is not text.
    """
    settings: dict[str, Any] = {}
    for name, value in options.items():
        if value is None:
            continue
        *sections, field = fields[name]
        target = settings
        for section in sections:
            target = target.setdefault(section, {})
        if isinstance(value, Path):
            path = str(value.absolute())  # not resolved: what pipes are links to is no path
            check_text([path])
            target[field] = path
        else:
            target[field] = value
    return settings


def write_config(path: Path, config: BaseModel, command: Sequence[str]) -> None:
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


def read_config_file(path: Path, model: type[Config], fields: OptionFields) -> Config:
    """Read a run's ``config.toml``.

    Raises:
        RunDirectoryError: It is not there.
        ConfigurationError: It is damaged, or of another version.
    """
    if not path.exists():
        raise RunDirectoryError(f"{path}: expected a run's configuration, but the file is not there")
    return validated(model, read_toml(path), fields, str(path))


def require_unchanged(stored: Mapping[str, Any], settings: Mapping[str, Any], fields: OptionFields) -> None:
    """Refuse settings for a run that is to be continued which differ from the run's own.

    Args:
        stored: The run's configuration, as nested plain values.
        settings: What was asked for.
        fields: Options to compare.

    Raises:
        ConfigurationError: One differs; its option is named.
    """
    for option, path in fields.items():
        given, kept = value_at(settings, path), value_at(stored, path)
        if given is not None and given != kept:
            kept = "its default" if kept is None else kept
            raise ConfigurationError(
                f"--{option.replace('_', '-')}: this run was started with {kept}, not {given}; a continued "
                "run keeps its configuration: leave the option out, or start a new run with another --out"
            )


def read_toml(path: Path) -> dict[str, Any]:
    """Content of a TOML file.

    Raises:
        ConfigurationError: It cannot be read as one.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path}: expected a configuration in TOML: {error}") from None


def validated(
    model: type[Config], content: Mapping[str, Any], fields: OptionFields, source: str | None
) -> Config:
    """Configuration of nested settings.

    Args:
        model: The configuration's type.
        content: The settings.
        fields: Options, to name in messages.
        source: The file that they come from, to name in messages; or None.

    Raises:
        ConfigurationError: A value is out of range, unknown, or contradicts another.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        faults = "; ".join(_explain(fault, fields) for fault in error.errors())
        raise ConfigurationError(faults if source is None else f"{source}: {faults}") from None


def _explain(error: Any, fields: OptionFields) -> str:
    """One validation error of pydantic in words, naming the option where there is one."""
    location = tuple(str(part) for part in error["loc"])
    options = [f"--{name.replace('_', '-')}" for name, path in fields.items() if path == location]
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        message = "unknown setting"
    elif error["type"] != "value_error":
        message = f"{message[:1].lower()}{message[1:]}, got {error['input']!r}"
    where = options[0] if options else ".".join(location)
    return f"{where}: {message}" if where else message


def merge(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings in which `upper` replaces `lower` value by value."""
    merged = dict(lower)
    for key, value in upper.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def value_at(settings: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """Value at a path of nested settings, or None."""
    value: Any = settings
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
