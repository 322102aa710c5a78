"""What the commands share: options, and how results are printed."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer


class EstimatorName(StrEnum):
    """Estimators of the mixture's bound."""

    A2A = "a2a"
    S2A = "s2a"
    S2S = "s2s"


Json = Annotated[bool, typer.Option("--json", help="Print machine-readable JSON.")]
Seed = Annotated[
    int | None,
    typer.Option(
        min=0,
        metavar="INT",
        help="Seed of the draws. [default: the run's]",
    ),
]


def plain_options(options: dict[str, Any]) -> dict[str, Any]:
    """Options by name, with choices as plain text."""
    return {name: str(value) if isinstance(value, StrEnum) else value for name, value in options.items()}


def print_result(content: Any, out: Path | None = None) -> None:
    """Write text as it is and anything else as JSON, to standard output or a new file."""
    from vbpi_mix.results.run_directory import to_json, write_new_text

    text = content if isinstance(content, str) else to_json(content, indent=2)
    text = text.rstrip("\n") + "\n"
    if out is None:
        sys.stdout.write(text)
    else:
        write_new_text(out, text)
