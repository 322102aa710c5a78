"""Options of ``vbpi-mix run`` into a run's configuration."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vbpi_mix._cli_settings import (
    merge,
    nested_settings,
    read_config_file,
    read_toml,
    require_unchanged,
    validated,
    value_at,
)
from vbpi_mix.errors import ConfigurationError
from vbpi_mix.likelihood.model_names import parse_model
from vbpi_mix.training.config import ENOUGH_ESS, FIRST_ROUND, PUBLISHED_RECIPE, RunConfig

OPTION_FIELDS: dict[str, tuple[str, ...]] = {
    "alignment": ("data", "alignment"),
    "dataset": ("data", "dataset"),
    "support": ("data", "support"),
    "model": ("data", "model"),
    "components": ("mixture", "components"),
    "sampled": ("mixture", "sampled"),
    "estimator": ("mixture", "estimator"),
    "particles": ("mixture", "particles"),
    "branch_model": ("mixture", "branch_model"),
    "branch_density": ("mixture", "branch_density"),
    "iterations": ("optimisation", "iterations"),
    "topology_rate": ("optimisation", "topology_rate"),
    "branch_rate": ("optimisation", "branch_rate"),
    "grow_support": ("growth", "enabled"),
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
    "runs": ("runs", "number"),
    "max_rounds": ("runs", "max_rounds"),
    "budget": ("runs", "budget_seconds"),
    "seed": ("seed",),
}
"""Where in the configuration the value of each option of ``vbpi-mix run`` goes."""

RECIPES: dict[str, Mapping[str, Any]] = {"published": PUBLISHED_RECIPE}
"""Settings that ``--recipe`` puts in place of the defaults."""


def settings_of_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings of the options of ``vbpi-mix run``; see `nested_settings`."""
    return nested_settings(options, OPTION_FIELDS)


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
        layers.append(read_toml(file))
    merged: dict[str, Any] = {}
    for layer in [*layers, settings]:
        merged = merge(_without_replaced_data(merged, layer), _with_rounds(layer))
    if value_at(merged, ("runs", "number")) != 1:
        merged = merge({"optimisation": {"iterations": FIRST_ROUND}}, merged)
        if value_at(merged, ("evaluation", "repeats")) is None:
            merged = merge({"evaluation": {"enough_ess": ENOUGH_ESS}}, merged)
    if not merged.get("data"):
        raise ConfigurationError(
            "expected an alignment file, or a bundled data set with --dataset, got neither"
        )
    return validated(RunConfig, merged, OPTION_FIELDS, None if file is None else str(file))


def continued_config(config: RunConfig, settings: Mapping[str, Any]) -> RunConfig:
    """Configuration of a run that is to be continued, with the options that cannot change its results.

    These are the time between checkpoints and the threads of the compiled engine; and the rounds and time
    that several runs may take, which decide only when they end.

    Raises:
        ConfigurationError: Another option differs from the run's; named.
    """
    model = value_at(settings, ("data", "model"))
    if model is not None:
        settings = merge(settings, {"data": {"model": parse_model(model).name}})
    stored = config.model_dump(mode="json")
    stored["mixture"]["sampled"] = config.mixture.num_sampled
    free = {"checkpoint_seconds", "max_rounds", "budget"}
    free |= {"threads"} if config.machine.engine == "compiled" else set()
    require_unchanged(
        stored, settings, {name: path for name, path in OPTION_FIELDS.items() if name not in free}
    )
    given = nested_settings({name: value_at(settings, OPTION_FIELDS[name]) for name in free}, OPTION_FIELDS)
    return validated(RunConfig, merge(config.model_dump(), given), OPTION_FIELDS, None)


def read_config(path: Path) -> RunConfig:
    """Read a run's ``config.toml``; see `read_config_file`."""
    return read_config_file(path, RunConfig, OPTION_FIELDS)


def parse_duration(text: str) -> float:
    """Seconds of a duration such as ``90``, ``90s``, ``10m``, ``1.5h``, ``1h30m``.

    Raises:
        ConfigurationError: It is none.
    """
    number = r"(\d+(?:\.\d+)?)"
    match = re.fullmatch(rf"(?:{number}h)?(?:{number}m)?(?:{number}s?)?", text.strip())
    parts = match.groups("0") if match else ()
    seconds = sum(unit * float(value) for unit, value in zip((3600.0, 60.0, 1.0), parts, strict=False))
    if seconds <= 0:
        raise ConfigurationError(f"--budget: expected a time such as 90s, 10m or 1h30m, got {text!r}")
    return seconds


def _with_rounds(layer: Mapping[str, Any]) -> Mapping[str, Any]:
    """A layer in which a number of iterations, if there is one, is one of a single round."""
    runs = layer.get("runs", {})
    is_settled = not isinstance(runs, Mapping) or "max_rounds" in runs  # what is no section is refused later
    if is_settled or value_at(layer, ("optimisation", "iterations")) is None:
        return layer
    return merge(layer, {"runs": {"max_rounds": 1}})


def _without_replaced_data(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> Mapping[str, Any]:
    """`lower` without data, and the trees for them, where `upper` names data of the other kind."""
    for source, other in (("alignment", "dataset"), ("dataset", "alignment")):
        if value_at(upper, ("data", source)) is not None and value_at(lower, ("data", other)) is not None:
            kept = {key: value for key, value in lower["data"].items() if key not in (other, "support")}
            return {**lower, "data": kept}
    return lower
