"""What the commands share: options, and how results and messages are printed."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from vbpi_mix.errors import ConfigurationError, VbpiMixError


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


def check_text(arguments: list[str]) -> None:
    """Refuse arguments and paths that are not text: configurations and results could not tell of them.

    Raises:
        ConfigurationError: One has bytes that are no UTF-8.
    """
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise ConfigurationError(
                f"expected names in UTF-8, got {os.fsencode(argument)!r}; rename that file or folder"
            ) from None


def open_streams() -> None:
    """Give a process whose standard output or error is closed ones that lead nowhere."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 (kept to the end)


@contextmanager
def unheard() -> Iterator[None]:
    """Messages to standard error; where nobody can take them, as on a full disk, the program goes on."""
    try:
        yield
    except OSError:
        if sys.stderr.name != os.devnull:  # what is left in the old stream must not fail again at the end
            sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (kept to the end)


def say(text: str) -> None:
    """Write a message to standard error."""
    with unheard():
        sys.stderr.write(text)
        sys.stderr.flush()


def print_result(content: Any, out: Path | None = None) -> None:
    """Write text as it is and anything else as JSON, to standard output or a new file."""
    from vbpi_mix.results.run_directory import to_json, write_new_text

    text = content if isinstance(content, str) else to_json(content, indent=2)
    text = text.rstrip("\n") + "\n"
    if out is None:
        _print(text)
    else:
        write_new_text(out, text)


def _print(text: str) -> None:
    """Write text to standard output.

    Raises:
        VbpiMixError: It cannot be written there. That nobody reads on is no error of this kind.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except UnicodeEncodeError as error:
        raise VbpiMixError(
            f"standard output: cannot take {error.object[error.start : error.end]!r} in its encoding "
            f"{error.encoding}; set the environment variable PYTHONIOENCODING=utf-8"
        ) from None
    except BrokenPipeError:
        raise
    except OSError as error:
        with suppress(OSError):  # what is left in it must not fail again at the end of the program
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise VbpiMixError(
            f"standard output: cannot be written ({error.strerror}); direct it elsewhere"
        ) from None
