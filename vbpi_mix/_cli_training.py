"""What all trainings on the command line have in common: signals, checkpoints, metrics."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from vbpi_mix.errors import RunDirectoryError
from vbpi_mix.results.run_directory import (
    RunDirectory,
    atomic_write,
    flush_to_disk,
    read_json_lines,
    to_json,
    write_text,
)


class InterruptedRunError(Exception):
    """A signal asked the run to stop."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.signal_number = signal_number


class Interruption:
    """Signals as requests to stop: at once, but during training only after a checkpoint."""

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._is_deferred = False

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handle SIGINT (control-C), SIGTERM and SIGHUP (lost terminal) until the block ends."""
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, self._receive) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Let the first signal only be noted; a second one of the same block stops at once."""
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._is_deferred and self.signal_number is None:
            self.signal_number = number
        else:
            raise InterruptedRunError(number)


def write_checkpoint(directory: RunDirectory, save: Callable[[Path], None]) -> None:
    """Write the checkpoint, whole or not at all, once the metrics up to it are on disk.

    Args:
        directory: Of the run.
        save: Writes the checkpoint to a path.
    """
    if directory.metrics.exists():
        flush_to_disk(directory.metrics)
    try:
        with atomic_write(directory.checkpoint) as temporary:
            save(temporary)
    except RuntimeError as error:  # of torch, which has no OSError for a full disk
        reason = str(error).splitlines()[0]
        raise RunDirectoryError(
            f"{directory.checkpoint}: cannot be written, as where no space is left (torch: {reason}); make "
            "room on the disk; a run continues from its last checkpoint with --resume"
        ) from None


def read_metrics(directory: RunDirectory, fields: set[str]) -> list[dict[str, Any]]:
    """Records of ``metrics.jsonl`` with these numbers, as far as it is there and can be read."""
    return read_json_lines(directory.metrics, fields) if directory.metrics.exists() else []


def keep_metrics(directory: RunDirectory, records: list[dict[str, Any]]) -> None:
    """Make ``metrics.jsonl`` hold these records and no others."""
    write_text(directory.metrics, "".join(to_json(record) + "\n" for record in records))
