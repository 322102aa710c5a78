"""Several runs at the same time, each a process of its own that continues the run in its directory.

Nothing is told to the processes but their directories, and nothing is heard from them but the files there,
their exit codes, and what they say if they fail. Signals reach them through this process only.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import vbpi_mix
from vbpi_mix._cli_training import InterruptedRunError, Interruption
from vbpi_mix.errors import VbpiMixError
from vbpi_mix.results.run_directory import RunDirectory

POLL_SECONDS = 0.1
"""Time between looks at the processes."""

LAST_BYTES = 4096
"""More than a line of ``metrics.jsonl`` has."""


class FailedRunError(VbpiMixError):
    """One of several runs failed; its own message says why."""


@dataclass(frozen=True)
class _Member:
    """A run in a process of its own, and the file that its messages go to."""

    directory: RunDirectory
    process: subprocess.Popen[bytes]
    messages: IO[bytes]


def continue_runs(
    directories: Sequence[RunDirectory],
    threads: int,
    interruption: Interruption,
    report: Callable[[list[dict[str, Any] | None]], None],
) -> None:
    """Bring some runs to their end, all at the same time.

    Args:
        directories: Of the runs.
        threads: Threads that each may use.
        interruption: Of this process: a signal ends the runs, which save their states first.
        report: Called now and then with the last line of each run's ``metrics.jsonl``, None where there is
            none yet.

    Raises:
        FailedRunError: One of them failed. The others have been stopped.
        InterruptedRunError: A signal came, to this process or one of them.
    """
    with interruption.deferred(), _started(directories, threads) as members:
        while any(member.process.poll() is None for member in members):
            if interruption.signal_number is not None or any(member.process.poll() for member in members):
                break
            report([last_record(directory.metrics) for directory in directories])
            time.sleep(POLL_SECONDS)
        _stop(members)
        failed = [member for member in members if member.process.returncode]
        if interruption.signal_number is not None:
            raise InterruptedRunError(interruption.signal_number)
        # A run that was stopped because of another says nothing of the cause.
        failed.sort(key=lambda member: member.process.returncode == 128 + signal.SIGTERM)
        if failed:
            _fail(failed[0])
        report([last_record(directory.metrics) for directory in directories])


def last_record(path: Path) -> dict[str, Any] | None:
    """Last complete line of a file with one JSON object a line; None where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LAST_BYTES))
            lines = file.read().split(b"\n")[:-1]
        return json.loads(lines[-1]) if lines else None
    except (OSError, ValueError):
        return None


@contextmanager
def _started(directories: Sequence[RunDirectory], threads: int) -> Iterator[list[_Member]]:
    """Processes of the runs; whatever happens, none is left behind when the block ends."""
    # Their own session, lest a terminal's control-C reach them too; this very package, wherever it is.
    package = str(Path(vbpi_mix.__file__).resolve().parent.parent)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")])),
        "OMP_NUM_THREADS": str(threads),
    }
    members: list[_Member] = []
    with ExitStack() as files:
        try:
            for directory in directories:
                messages = files.enter_context(tempfile.TemporaryFile())
                command = [sys.executable, "-m", "vbpi_mix.cli", "run", "--resume", "--quiet", "--no-report"]
                process = subprocess.Popen(
                    [*command, "--out", str(directory.path), "--threads", str(threads)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=messages,
                    env=environment,
                    start_new_session=True,
                )
                members.append(_Member(directory, process, messages))
            yield members
        finally:
            _stop(members)


def _stop(members: Sequence[_Member]) -> None:
    """Ask the processes that still run to save and end, and wait for them."""
    for member in members:
        if member.process.poll() is None:
            member.process.terminate()
    for member in members:
        member.process.wait()


def _fail(member: _Member) -> None:
    """Raise what the failure of a run means for all."""
    code, name = member.process.returncode, member.directory.path.name
    if code > 128:
        raise InterruptedRunError(code - 128)
    if code < 0:
        raise FailedRunError(
            f"{name}: ended by {signal.Signals(-code).name}, perhaps for lack of memory; "
            "continue with --resume"
        )
    member.messages.seek(0)
    lines = member.messages.read().decode(errors="replace").strip().splitlines()
    errors = [line.removeprefix("Error: ") for line in lines if line.startswith("Error: ")]
    raise FailedRunError(f"{name}: {errors[-1] if errors else ' '.join(lines[-3:]) or 'failed silently'}")
