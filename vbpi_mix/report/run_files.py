"""What a run has left in its directory, read back for the page."""

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64

from vbpi_mix.errors import RunDirectoryError
from vbpi_mix.results.run_directory import RunDirectory, read_json_lines
from vbpi_mix.results.tables import CREDIBLE_COLUMNS, SPLIT_COLUMNS
from vbpi_mix.trees.summaries import LengthSummary, SplitTable

LARGEST = 1e150
"""More than any number that a run writes."""


@dataclass(frozen=True)
class PosteriorSplits:
    """Content of ``splits.tsv``.

    Attributes:
        taxa: Names of the taxa, in the order of the alignment.
        table: Splits, most probable first, with lengths.
        standard_errors: Monte Carlo standard error of every probability.
        length_errors: Monte Carlo standard error of every mean length.
        sides: Whether a taxon is on the smaller side of a split.
    """

    taxa: tuple[str, ...]
    table: SplitTable
    standard_errors: Float64[np.ndarray, "split"]
    length_errors: Float64[np.ndarray, "split"]
    sides: Bool[np.ndarray, "split taxon"]


def read_splits(path: Path) -> PosteriorSplits:
    """Read ``splits.tsv``.

    Raises:
        RunDirectoryError: It is missing or damaged.
    """
    rows = _read_table(path, SPLIT_COLUMNS)
    try:
        marks = np.frombuffer("".join(row[1] for row in rows).encode(), np.uint8)
        sides = marks.reshape(len(rows), -1) == ord("*")
        numbers = np.array([row[3:] for row in rows], dtype=np.float64)
        named = {int(side.argmax()): json.loads(row[0])[0] for side, row in zip(sides, rows, strict=True)
                 if row[2] == "1"}  # fmt: skip
        taxa = tuple(named[i] for i in range(sides.shape[1]))
        # Splits that were found without being drawn have no lengths; they are improbable.
        is_drawn = ~np.isnan(numbers[:, 2:]).all(axis=1) | (numbers[:, 0] > 0.5)
        _require_finite(numbers[:, :2])
        _require_finite(numbers[is_drawn])
        _require_probabilities(numbers[:, 0])
        if not all(isinstance(name, str) for name in taxa):
            raise TypeError("names")
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        raise _damaged(path) from None
    inside = sides.copy()
    holds_last = inside[:, -1] & (sides.sum(axis=1) > 1)
    inside[holds_last] ^= True
    packed = np.packbits(inside, axis=1, bitorder="little")
    words = -(-len(taxa) // 64)
    padded = np.zeros((len(rows), 8 * words), np.uint8)
    padded[:, : packed.shape[1]] = packed
    probability, error, mean, mean_error, median, sd, low, high, ess = numbers.T
    lengths = LengthSummary(mean, median, sd, np.column_stack([low, high]), ess)
    sizes = inside.sum(axis=1, dtype=np.int64)
    return PosteriorSplits(
        taxa, SplitTable(padded.view(np.uint64), sizes, probability, lengths), error, mean_error, sides
    )


def read_credible_sets(path: Path) -> Float64[np.ndarray, "topology"]:
    """Probabilities of the topologies in ``credible_sets.tsv``, most probable first.

    Raises:
        RunDirectoryError: It is missing or damaged.
    """
    rows = _read_table(path, CREDIBLE_COLUMNS)
    try:
        probabilities = np.array([float(row[1]) for row in rows])
        _require_probabilities(probabilities)
        return probabilities
    except ValueError:
        raise _damaged(path) from None


def read_traces(directory: RunDirectory) -> dict[str, Float64[np.ndarray, "resampled"]]:
    """Columns of the run's ``.p`` files, one file after the other, but for the numbers of the trees.

    Raises:
        RunDirectoryError: One is missing or damaged.
    """
    columns: dict[str, list[np.ndarray]] = {}
    numbers = itertools.count(1)
    paths = list(itertools.takewhile(Path.exists, (directory.run_parameters(number) for number in numbers)))
    for path in paths or [directory.run_parameters(1)]:
        lines = _lines(path)[1:]
        names = lines[0].split("\t") if lines else []
        try:
            values = np.array([line.split("\t") for line in lines[1:]], dtype=np.float64)
            _require_finite(values)
            for name, column in zip(names[1:], values.T[1:], strict=True):
                columns.setdefault(name, []).append(column)
        except ValueError:
            raise _damaged(path) from None
    return {name: np.concatenate(parts) for name, parts in columns.items()}


@dataclass(frozen=True)
class Training:
    """Content of a ``metrics.jsonl``.

    Attributes:
        name: Which run it is of.
        iterations: Steps done at every line.
        bounds: Mean bound since the line before, in nats.
        inverse_temperatures: Inverse temperature of the last step.
    """

    name: str
    iterations: Float64[np.ndarray, "_"]
    bounds: Float64[np.ndarray, "_"]
    inverse_temperatures: Float64[np.ndarray, "_"]


def read_trainings(directory: RunDirectory) -> list[Training]:
    """Progress of a run, or of the runs that are combined in it."""
    parts = directory.members()
    found = []
    for part in parts:
        wanted = ("iteration", "bound", "inverse_temperature")
        kept = read_json_lines(part.metrics, wanted) if part.metrics.exists() else []
        if kept:
            columns = (np.array([record[name] for record in kept], dtype=np.float64) for name in wanted)
            found.append(Training(part.path.name if len(parts) > 1 else "run", *columns))
    return found


def _require_finite(numbers: Float64[np.ndarray, "..."]) -> None:
    """Refuse numbers that are not finite, or so large that their squares are not (ValueError)."""
    if not (np.abs(numbers) < LARGEST).all():
        raise ValueError("expected finite numbers")


def _require_probabilities(numbers: Float64[np.ndarray, "..."]) -> None:
    """Refuse numbers that are no probabilities, but for rounding (ValueError)."""
    if not ((numbers >= 0) & (numbers <= 1 + 1e-6)).all():
        raise ValueError("expected numbers from 0 to 1")


def _read_table(path: Path, columns: Sequence[str]) -> list[list[str]]:
    """Rows of a table of these columns, one at least."""
    header, *rows = (line.split("\t") for line in _lines(path))
    if tuple(header) != tuple(columns) or not rows or any(len(row) != len(columns) for row in rows):
        raise _damaged(path)
    return rows


def _lines(path: Path) -> list[str]:
    """Lines of a text file, one at least."""
    try:
        return path.read_text(encoding="utf-8").split("\n")[:-1] or [""]
    except FileNotFoundError:
        raise RunDirectoryError(
            f"{path}: missing, so the run has not finished; finish it with --resume"
        ) from None
    except UnicodeDecodeError:
        raise _damaged(path) from None


def _damaged(path: Path) -> RunDirectoryError:
    return RunDirectoryError(
        f"{path}: expected the file as the run wrote it, found another; make it again with "
        "'vbpi-mix evaluate --update'"
    )
