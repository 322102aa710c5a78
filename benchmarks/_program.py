"""Single runs of ``vbpi-mix run``, each a process: what they take and what they find."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from _agreement import agreement_with_reference
from _common import without_local_paths

NOT_CONVERGED = 3
"""Exit status of several runs that have not converged."""


def run_program(dataset: str, arguments: list[str], out: Path) -> dict[str, Any]:
    """Make a run of a bundled data set in a process of its own.

    Args:
        dataset: Its name, for the reference to compare with.
        arguments: Arguments of ``vbpi-mix run``, other than the directory.
        out: The run's directory, which must not exist.

    Returns:
        Wall-clock and CPU seconds, peak memory, ``result``, and ``agreement`` where there is a reference.

    Raises:
        SystemExit: The program failed.
    """
    measured = time_program(["--runs", "1", *arguments], out)
    agreement = agreement_with_reference(out, dataset)
    if agreement is not None:
        measured["agreement"] = without_local_paths(agreement, out)
    return measured


def time_program(arguments: list[str], out: Path, statuses: tuple[int, ...] = (0,)) -> dict[str, Any]:
    """Make a run in a process of its own.

    Args:
        arguments: Arguments of ``vbpi-mix run``, other than the directory.
        out: The run's directory, which must not exist.
        statuses: Exit statuses that are no failure.

    Returns:
        Wall-clock and CPU seconds of the process and its own, peak memory, and ``result``.

    Raises:
        SystemExit: The program failed.
    """
    command = [str(Path(sys.executable).parent / "vbpi-mix"), "run", *arguments, "--out", str(out)]
    began = time.perf_counter()
    process = subprocess.Popen(command)
    try:
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:  # of a signal's handler
        process.kill()
        process.wait()
        raise
    wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in statuses:
        raise SystemExit(f"{' '.join(command)}: failed with exit status {process.returncode}")
    measured = {
        "wall_seconds": wall,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_memory_gib": usage.ru_maxrss / 2**20,
        "result": json.loads((out / "result.json").read_text()),
    }
    return without_local_paths(measured, out)
