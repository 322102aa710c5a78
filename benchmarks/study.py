"""Claim: what mixtures and the estimators A2A, S2A and S2S buy at equal time, on DS1 to DS8.

Every configuration of a data set trains for the same number of seconds, by a calibration of its steps; one
component trains three times as long besides. Each run is a job of its own: any number of processes, here or
on the nodes of a Slurm cluster, work through the same list; what is finished is skipped, what was killed goes
on from its last checkpoint. The order is such that an early stop leaves a balanced picture.

    python benchmarks/study.py run [--workers 2] [--datasets DS4 DS5] [--seeds 0 1 2] [--seconds 20]
    python benchmarks/study.py submit --tasks 16 [--cluster slurm] [...]
    python benchmarks/study.py list [...]

The calibration is kept in ``results/study/manifest.json``, and so are the jobs.
"""

import argparse
import itertools
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from statistics import median
from types import FrameType
from typing import Any

from _common import RESULTS, load, save, split_options
from _jobs import work_through
from _study import Job, measure

DATASETS = ("DS4", "DS5", "DS1", "DS8", "DS6", "DS7", "DS2", "DS3")
"""In the order of interest: one component finds the first two hard."""

CONFIGURATIONS = (
    ("a2a", 1, 1),
    ("a2a", 3, 3),
    ("s2a", 3, 1),
    ("s2a", 10, 1),
    ("s2s", 3, 2),
    ("s2s", 10, 1),
)
"""Estimator, A and S."""

FURTHER = (("s2a", 10, 2), ("s2s", 10, 2))
"""The same, of what is run after all others."""

LONGER = 3
"""How many times as long one component trains besides."""

SLOWER = {"DS7": 2.0}
"""Data sets whose steps take longer, and how many times as long they train."""

CALIBRATION_STEPS = 300
CALIBRATION_REPORTS = 30
CALIBRATIONS = 3
"""Short trainings of which the fastest counts: a busy minute makes one slow, nothing makes it fast."""

WARM_UP = 3
"""First reports that the calibration leaves out: they may compile."""

MANIFEST = "study/manifest"


def milliseconds_of_step(dataset: str, estimator: str, components: int, sampled: int) -> float:
    """Mean time of a training step, by a short training of the same schedule after a warm-up."""
    from vbpi_mix.objectives.estimators import Estimator
    from vbpi_mix.results import analysis
    from vbpi_mix.training.config import DataConfig, MixtureConfig, OptimisationConfig, RunConfig
    from vbpi_mix.training.loop import train

    config = RunConfig(
        data=DataConfig(dataset=dataset),
        mixture=MixtureConfig(components=components, sampled=sampled, estimator=Estimator(estimator)),
        optimisation=OptimisationConfig(iterations=CALIBRATION_STEPS),
    )
    checkpoint = analysis.start_run(config, analysis.read_data(config.data))
    engine = analysis.make_engine(checkpoint)
    every = CALIBRATION_STEPS // CALIBRATION_REPORTS
    reports = train(
        engine, checkpoint.streams, config.mixture, config.optimisation, checkpoint.patterns.num_taxa, every
    )
    milliseconds = [1000 * report.seconds / every for report in reports]
    share = config.optimisation.annealing.fraction
    annealed = round(share * len(milliseconds))
    return share * median(milliseconds[WARM_UP:annealed]) + (1 - share) * median(milliseconds[annealed:])


def plan(chosen: argparse.Namespace, options: list[str]) -> list[Job]:
    """The jobs, in the order to do them, also written to the manifest; calibrates what is not calibrated."""
    (manifest,) = load(RESULTS, f"{MANIFEST}.json").values() or ({},)
    calibration: dict[str, float] = manifest.get("milliseconds_of_step", {})
    jobs = []
    longer = (*CONFIGURATIONS[0], LONGER)
    groups = [[*((*c, 1.0) for c in CONFIGURATIONS), longer], [(*c, 1.0) for c in FURTHER if chosen.further]]
    for configurations, seed, dataset in itertools.product(groups, chosen.seeds, chosen.datasets):
        for estimator, components, sampled, times in configurations:
            key = f"{dataset}.{estimator}.A{components}.S{sampled}"
            if key not in calibration:
                calibration[key] = min(
                    milliseconds_of_step(dataset, estimator, components, sampled) for _ in range(CALIBRATIONS)
                )
            seconds = times * chosen.seconds * SLOWER.get(dataset, 1.0)
            iterations = max(1, round(1000 * seconds / calibration[key]))
            jobs.append(
                Job(
                    dataset,
                    estimator,
                    components,
                    sampled,
                    seed,
                    seconds,
                    iterations,
                    chosen.label,
                    tuple(options),
                )
            )
    content = {
        "milliseconds_of_step": calibration,
        "jobs": {job.name: shlex.join(job.arguments()) for job in jobs},
    }
    if any(manifest.get(key) != value for key, value in content.items()):
        save(MANIFEST, content)
    return jobs


def is_done(name: str) -> bool:
    """Whether a job's result is there."""
    return (RESULTS / "study" / f"{name}.json").exists()


def work(jobs: list[Job], scratch: Path) -> list[str]:
    """Work through the jobs in this process; names of those that failed."""
    by_name = {job.name: job for job in jobs}

    def do(name: str, lock: int) -> None:
        folder = scratch / name
        save(f"study/{name}", measure(by_name[name], folder, lock))
        shutil.rmtree(folder)

    return work_through(list(by_name), scratch, is_done, do)


def start_workers(command: list[str], num_workers: int) -> int:
    """Run a command in so many processes; the largest of their exit codes. Signals are passed on."""
    workers = [subprocess.Popen(command, process_group=0) for _ in range(num_workers)]

    def stop(number: int, frame: FrameType | None) -> None:
        for worker in workers:
            worker.send_signal(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        return max(abs(worker.wait()) for worker in workers)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def submit(command: list[str], chosen: argparse.Namespace) -> list[Any]:
    """Hand workers to a cluster as one array of jobs; the jobs of submitit.

    A worker that runs into the time limit loses nothing: submit again, and others go on.
    """
    import submitit

    executor = submitit.AutoExecutor(folder=chosen.work / "submitted", cluster=chosen.cluster)
    executor.update_parameters(
        name="vbpi-mix-study", timeout_min=chosen.minutes, cpus_per_task=1, mem_gb=4, tasks_per_node=1
    )
    if chosen.partition is not None:
        executor.update_parameters(slurm_partition=chosen.partition)
    with executor.batch():
        return [
            executor.submit(submitit.helpers.CommandFunction(command, verbose=False))
            for _ in range(chosen.tasks)
        ]


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Command line: what to do, and further options of ``vbpi-mix run`` after ``--``."""
    arguments, options = split_options(arguments)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "action",
        choices=("run", "work", "submit", "list"),
        help="run: in worker processes; work: in this one; submit: on a cluster; list: say what is done",
    )
    parser.add_argument("--datasets", nargs="+", default=DATASETS, choices=DATASETS, metavar="DSn")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--seconds", type=float, default=20.0, help="training time of a run")
    parser.add_argument("--label", default="", help="name of the training settings given after --")
    parser.add_argument(
        "--no-further", dest="further", action="store_false", help="leave out A = 10 with S = 2"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes of 'run'")
    parser.add_argument("--tasks", type=int, default=16, help="workers of 'submit'")
    parser.add_argument("--minutes", type=int, default=240, help="time limit of a worker of 'submit'")
    parser.add_argument("--cluster", default="slurm", help="slurm, or local to try it out")
    parser.add_argument("--partition", help="Slurm's partition")
    parser.add_argument(
        "--work",
        type=Path,
        default=RESULTS.parent / ".study",
        metavar="DIR",
        help="scratch folder, which all workers must see",
    )
    chosen = parser.parse_args(arguments)
    if bool(options) != bool(chosen.label):
        parser.error("training settings need both --label NAME and, after --, options of vbpi-mix run")
    return chosen, options


def worker_command(chosen: argparse.Namespace, options: list[str]) -> list[str]:
    """The command of one worker for the same jobs."""
    return [
        *(sys.executable, str(Path(__file__).resolve()), "work"),
        *("--datasets", *chosen.datasets, "--seeds", *map(str, chosen.seeds)),
        *("--seconds", str(chosen.seconds), "--label", chosen.label, "--work", str(chosen.work.resolve())),
        *([] if chosen.further else ["--no-further"]),
        *(["--", *options] if options else []),
    ]


def main() -> None:
    """Command line."""
    chosen, options = parse(sys.argv[1:])
    jobs = plan(chosen, options)
    match chosen.action:
        case "list":
            for job in jobs:
                print("done" if is_done(job.name) else "open", job.name)
        case "work":
            failed = work(jobs, chosen.work)
            if failed:
                sys.exit(f"failed: {' '.join(failed)}; what they said is in {chosen.work}")
        case "run":
            sys.exit(start_workers(worker_command(chosen, options), chosen.workers))
        case "submit":
            for submitted in submit(worker_command(chosen, options), chosen):
                print(submitted.job_id)


if __name__ == "__main__":
    main()
