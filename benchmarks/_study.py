"""One job of the study: a run of ``vbpi-mix``, started or continued, and what it found and took.

While the program trains, each checkpoint it writes is kept. Afterwards the bounds of all of them are computed
from fresh draws, every one with the same random numbers: the course of the whole mixture's own bound, neither
tempered nor that of a part of the components, so that it is the same quantity for every estimator.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from _agreement import agreement_with_reference
from _common import without_local_paths

NUM_CHECKPOINTS = 16
"""Points on the course of the bound, about."""

TRAJECTORY_DRAWS = 4_000
"""Draws for each of them, over all components."""

PROGRAM = (str(Path(sys.executable).parent / "vbpi-mix"),)
"""The command line that makes a run."""

CLOSE = 0.1
"""Nats from its final value within which a bound counts as there."""


@dataclass(frozen=True)
class Job:
    """A run to be made.

    Attributes:
        dataset: Name of a bundled data set.
        estimator: Estimator of the mixture's bound: a2a, s2a or s2s.
        components: A.
        sampled: S.
        seed: Seed of the run.
        seconds: Time that training is to take, by the calibration.
        iterations: Steps that take so long.
        label: Name of the training settings; empty for the defaults.
        options: Further options of ``vbpi-mix run`` that they stand for.
    """

    dataset: str
    estimator: str
    components: int
    sampled: int
    seed: int
    seconds: float
    iterations: int
    label: str = ""
    options: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the job, of its result and of its scratch folder."""
        parts = (
            self.dataset,
            self.estimator,
            f"A{self.components}",
            f"S{self.sampled}",
            f"{self.seconds:g}s",
            self.label,
            f"seed{self.seed}",
        )
        return ".".join(part for part in parts if part)

    def arguments(self) -> list[str]:
        """Options of ``vbpi-mix run`` for a new run."""
        settings = {
            "dataset": self.dataset,
            "components": self.components,
            "sampled": self.sampled,
            "estimator": self.estimator,
            "iterations": self.iterations,
            "seed": self.seed,
            "threads": 1,
            "checkpoint-seconds": self.seconds / NUM_CHECKPOINTS,
            "log-every": max(1, self.iterations // 100),
        }
        return [part for name, value in settings.items() for part in (f"--{name}", str(value))] + list(
            self.options
        )


def measure(job: Job, folder: Path, lock: int) -> dict[str, Any]:
    """Make a run, or the rest of one, and say what it found and took.

    Args:
        job: The run.
        folder: Scratch folder of the job; it may hold a run that was killed.
        lock: Descriptor of the job's claim, which the program shares.

    Raises:
        RuntimeError: The program failed; the message ends with what it said.
    """
    run = folder / "run"
    continues = (run / "config.toml").exists()
    arguments = ["--resume"] if continues else ["--runs", "1", *job.arguments()]
    took = start_program([*PROGRAM, "run", *arguments, "--out", str(run), "--quiet", "--json"], folder, lock)
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    course = trajectory(sorted((folder / "checkpoints").glob("*.pt")), TRAJECTORY_DRAWS)
    measured = {
        **asdict(job),
        "continued": continues,
        **took,
        "trajectory": course,
        "trajectory_draws": TRAJECTORY_DRAWS,
        "agreement": agreement_with_reference(run, job.dataset),
        "result": result,
    }
    return without_local_paths(measured, run)


def start_program(command: list[str], folder: Path, lock: int) -> dict[str, float]:
    """Run the program, keep its checkpoints, and say what it took; a signal to stop is passed on."""
    kept, checkpoint = folder / "checkpoints", folder / "run" / "checkpoint.pt"
    kept.mkdir(parents=True, exist_ok=True)
    errors = folder / "stderr.txt"
    began, memory = time.perf_counter(), 0
    with errors.open("w") as file:
        process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=file,
            pass_fds=(lock,),
            process_group=0,  # so that control-C comes to it once, from here
        )
    with _signals_passed_to(process):
        while True:
            done, status, usage = os.wait4(process.pid, os.WNOHANG)
            keep(checkpoint, kept)
            if done:
                break
            memory = max(memory, _peak_memory(process.pid))
            time.sleep(0.05)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        said = errors.read_text(errors="replace").strip()[-2000:]
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}: {said}")
    return {
        "wall_seconds": time.perf_counter() - began,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_memory_gib": memory / 2**20,
    }


@contextmanager
def _signals_passed_to(process: subprocess.Popen) -> Iterator[None]:
    """Pass SIGTERM and control-C on to a program, and stop once it has saved its state and ended."""

    def stop(number: int, frame: FrameType | None) -> None:
        process.send_signal(number)
        process.wait()
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def keep(checkpoint: Path, folder: Path) -> None:
    """Keep a checkpoint beyond its replacement by the next, named after the time it was written.

    A checkpoint is replaced as a whole, so a second name for the file keeps it.
    """
    with suppress(FileNotFoundError, FileExistsError):
        name = f"{checkpoint.stat().st_mtime_ns}.pt"
        if not (folder / name).exists():
            os.link(checkpoint, folder / name)


def _peak_memory(process: int) -> int:
    """Largest memory that a process has held so far, in KiB; 0 once it has ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    return 0


def trajectory(checkpoints: list[Path], num_draws: int) -> list[dict[str, float | None]]:
    """The one- and ten-sample bounds of the mixtures in checkpoints, in nats, by training time.

    Bounds are None where a mixture gives draws without finite weight.
    """
    from vbpi_mix.errors import NonFiniteError
    from vbpi_mix.results.analysis import branch_prior_of, likelihood_of
    from vbpi_mix.results.evaluation import lower_bound
    from vbpi_mix.results.sampling import draw_posterior
    from vbpi_mix.training.checkpoint import Checkpoint

    course: list[dict[str, float | None]] = []
    for path in checkpoints:
        checkpoint = Checkpoint.load(path)
        point: dict[str, float | None] = {
            "iteration": checkpoint.state.step,
            "training_seconds": checkpoint.training_seconds,
            "lower_bound_1": None,
            "lower_bound_10": None,
        }
        with suppress(NonFiniteError):
            draws = draw_posterior(
                checkpoint.state.mixture,
                likelihood_of(checkpoint),
                branch_prior_of(checkpoint.config),
                num_draws // checkpoint.state.mixture.num_components,
                np.random.default_rng(0),
            )
            log_weights = draws.by_component(draws.log_weights)
            point |= {f"lower_bound_{k}": lower_bound(log_weights, k) for k in (1, 10)}
        if not course or course[-1]["iteration"] != point["iteration"]:
            course.append(point)
    return course


def seconds_close(
    course: list[dict[str, float | None]], step_seconds: float, target: float | None = None
) -> float | None:
    """Training time from which on the ten-sample bound stays above `CLOSE` nats below a target.

    Args:
        course: See `trajectory`.
        step_seconds: Time of a training step; that of the calibration does not depend on what else the
            machine was doing.
        target: Bound in nats; by default the last of the course.

    Returns:
        Seconds, to the next checkpoint; None where the last bound is lower than that.
    """
    reached = None
    target = course[-1]["lower_bound_10"] if target is None else target
    for point in course:
        bound, iteration = point["lower_bound_10"], point["iteration"]
        if bound is None or target is None or iteration is None or bound < target - CLOSE:
            reached = None
        elif reached is None:
            reached = iteration * step_seconds
    return reached
