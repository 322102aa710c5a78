"""Claim: topologies and marginal likelihoods from the bare alignment, against MrBayes on the same machine.

MrBayes' samples by generation do not depend on how busy the machine is, so chains and speed are measured
apart, and wall-clock seconds of MrBayes are start-up + generations / speed:

    python benchmarks/race.py chains DS1 DS4 ...           long chains; agreement by generation
    python benchmarks/race.py stepping_stone DS1 ...       marginal likelihoods
    python benchmarks/race.py speed DS1 ...                generations per second, both cores; quiet machine
    python benchmarks/race.py ours DS1 ... [--budgets 10 30 ...] [--seeds 0 1] [-- options of vbpi-mix run]
                                                           `vbpi-mix run FILE`; quiet machine

What has a result is skipped without --again. Killed chains continue from MrBayes' last checkpoint in the
folder --work. References: ``VBPI_MIX_REFERENCE``.
"""

import argparse
import fcntl
import json
import os
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _mrbayes as mrbayes
from _common import RESULTS, save, split_options, without_local_paths
from _program import run_program
from _splits import differences, listed, read_split_table, split_frequencies

GENERATIONS = {
    "DS1": 3_500_000,
    "DS2": 1_500_000,
    "DS3": 1_500_000,
    "DS4": 3_500_000,
    "DS5": 400_000,
    "DS6": 400_000,
    "DS7": 400_000,
    "DS8": 400_000,
}
"""Generations of the chains: on two cores of the first machine about 15 minutes of DS1 and DS4, 6 of DS2 and
DS3; of the others only as many as split frequencies need."""

STEPPING_STONES = (1_000_000, 50)
"""Generations in all, and steps."""

BUDGETS = (10, 20, 30, 60, 120)
"""Seconds of wall-clock that runs of ours are to take: with two seeds some six minutes a data set."""

SEEDS_UP_TO = 60
"""Budgets above this many seconds are run with the first seed only."""

RESERVE = 0.1
"""Share of a budget that a plan leaves, so that a slower minute does not exceed it."""

CALIBRATION = (4_000, 40)
"""Iterations and repeats of the first run, which warms the caches and tells what things cost."""

MIN_ITERATIONS = 200
REPEATS = (5, 1_000)
"""Fewest and most repeats of the evaluation: each is 1,000 likelihood evaluations."""


@dataclass(frozen=True)
class Costs:
    """What a run of ours costs, in seconds: once, an iteration, and a repeat of the evaluation."""

    fixed: float
    iteration: float
    repeat: float


def costs_of(run: dict[str, Any]) -> Costs:
    """Costs of a measured run, of which everything but training and evaluation is fixed."""
    seconds = run["result"]["seconds"]
    return Costs(
        fixed=run["wall_seconds"] - seconds["training"] - seconds["evaluation"],
        iteration=seconds["training"] / run["result"]["iterations"],
        repeat=seconds["evaluation"] / run["repeats"],
    )


def plan(budget: float, costs: Costs, evaluation_share: float) -> tuple[int, int]:
    """Iterations and repeats of the evaluation that use up a budget, but for `RESERVE`.

    Args:
        budget: Seconds of wall-clock in all.
        costs: What things cost.
        evaluation_share: Part of what is left after the fixed costs that the evaluation may take.
    """
    left = max(0.0, (1 - RESERVE) * budget - costs.fixed)
    repeats = min(max(REPEATS[0], int(evaluation_share * left / costs.repeat)), REPEATS[1])
    iterations = int((left - repeats * costs.repeat) / costs.iteration)
    return max(MIN_ITERATIONS, iterations // 100 * 100), repeats


def chains(dataset: str, seed: int, generations: int, work: Path) -> dict[str, Any]:
    """Run, or continue, the chains of a data set, and see how they converge."""
    folder = work / f"chains.{dataset}.seed{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        trees = [folder / f"chain.run{run}.t" for run in range(1, mrbayes.NUM_RUNS + 1)]
        if min(map(mrbayes.last_generation, trees)) < generations:
            is_continued = (folder / "chain.ckp").exists()
            command = mrbayes.mcmc(generations, mrbayes.NUM_RUNS, mrbayes.DIAGNOSE_EVERY, is_continued)
            mrbayes.write_alignment(dataset, folder / "alignment.nex")
            (folder / "run.nex").write_text(mrbayes.commands(command, seed, mrbayes.CHAIN_LIKELIHOOD))
            mrbayes.run([([mrbayes.program()], folder)])
    return {
        "dataset": dataset,
        "seed": seed,
        "generations": generations,
        "sample_every": mrbayes.SAMPLE_EVERY,
        "burn_in": mrbayes.BURN_IN,
        "program": mrbayes.version(),
        "commands": (folder / "run.nex").read_text().splitlines(),
        **summarise_chains(dataset, trees, folder / "chain.mcmc", generations),
    }


def summarise_chains(dataset: str, trees: list[Path], diagnostics: Path, generations: int) -> dict[str, Any]:
    """Convergence of chains on the reference of their data set, and the runs' split frequencies."""
    from vbpi_mix.datasets import load_dataset
    from vbpi_mix.trees.samples import read_tree_draws, read_tree_sample

    taxa = load_dataset(dataset).taxa
    num = generations // mrbayes.SAMPLE_EVERY + 1
    runs = [read_tree_draws(path, taxa).children[:num] for path in trees]
    kept = [split_frequencies(run[int(mrbayes.BURN_IN * num) :], minimum=0.01) for run in runs]
    mean = {split: sum(run.get(split, 0.0) for run in kept) / len(kept) for split in set().union(*kept)}
    deviations = mrbayes.read_split_deviations(diagnostics)
    summary: dict[str, Any] = {
        "split_deviations": [[at, value] for at, value in deviations.items() if at <= generations],
        "splits": dict(sorted(mean.items(), key=lambda item: -item[1])),
        "splits_between_runs": differences(kept[0], listed(kept[1])),
    }
    reference = Path(os.environ.get("VBPI_MIX_REFERENCE", "absent"))
    golden = reference / "golden" / f"{dataset}.tsv.gz"
    table = reference / "mrbayes" / f"{dataset}.splits.tsv.gz"
    if golden.exists():
        sample = read_tree_sample(golden, taxa)
        grid = mrbayes.generation_grid(generations)
        summary["convergence"] = mrbayes.convergence(sample.children, sample.weights, runs, grid)
    if table.exists():
        summary["splits_against_table"] = differences(mean, read_split_table(table, taxa))
    return summary


def stepping_stone(dataset: str, seed: int, generations: int, work: Path) -> dict[str, Any]:
    """Marginal likelihood of a data set by MrBayes."""
    folder = work / f"stepping_stone.{dataset}.seed{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    mrbayes.write_alignment(dataset, folder / "alignment.nex")
    steps = STEPPING_STONES[1]
    commands = mrbayes.commands(mrbayes.stepping_stone(generations, steps), seed, mrbayes.CHAIN_LIKELIHOOD)
    (folder / "run.nex").write_text(commands)
    mrbayes.run([([mrbayes.program()], folder)])
    values = mrbayes.read_marginal_likelihoods((folder / "log").read_text(errors="replace"))
    return {
        "dataset": dataset,
        "seed": seed,
        "generations": generations,
        "steps": steps,
        "marginal_log_likelihood": values,
        "program": mrbayes.version(),
        "commands": commands.splitlines(),
    }


def speed(dataset: str, seconds: float, trial_seconds: float) -> dict[str, Any]:
    """Generations per second of MrBayes on two cores, in the best of several settings."""
    candidates = [c for c in mrbayes.CANDIDATES if not c.is_mpi or mrbayes.mpi_command()]
    trials = []
    with tempfile.TemporaryDirectory(prefix="race-") as folder:
        for number, candidate in enumerate(candidates):
            trial = measure_speed(dataset, candidate, trial_seconds, Path(folder) / str(number))
            mrbayes.say(f"{dataset}, {candidate.name}: {trial['generations_per_second']:.0f} generations/s")
            trials.append(trial)
        best = max(range(len(trials)), key=lambda i: trials[i]["generations_per_second"])
        final = measure_speed(dataset, candidates[best], seconds, Path(folder) / "best")
    return {"dataset": dataset, "best": final, "trials": trials, "program": mrbayes.version()}


def measure_speed(dataset: str, settings: mrbayes.Settings, seconds: float, work: Path) -> dict[str, Any]:
    """Start-up and generations per second of some settings, from an analysis of about `seconds`."""
    short = 1_000
    before = _timed(dataset, settings, short, work)
    first = _timed(dataset, settings, 3 * short, work)
    rate = 2 * short / max(first.wall_seconds - before.wall_seconds, 1e-3)
    generations = max(5 * short, int(rate * seconds) // 100 * 100)
    timing = _timed(dataset, settings, generations, work)
    per_second = (generations - short) / (timing.wall_seconds - before.wall_seconds)
    return {
        "settings": settings.name,
        "likelihood": settings.likelihood,
        "generations": generations,
        "generations_per_second": per_second,
        "startup_seconds": max(0.0, before.wall_seconds - short / per_second),
        "wall_seconds": timing.wall_seconds,
        "cpu_seconds": timing.cpu_seconds,
        "cpu_per_wall": timing.cpu_seconds / timing.wall_seconds,
    }


def _timed(dataset: str, settings: mrbayes.Settings, generations: int, work: Path) -> mrbayes.Timing:
    """Time two runs of four chains: by MPI, or a process each."""
    runs_of = [mrbayes.NUM_RUNS] if settings.is_mpi else [1] * mrbayes.NUM_RUNS
    command = mrbayes.mpi_command() if settings.is_mpi else [mrbayes.program()]
    processes = []
    for number, runs in enumerate(runs_of):
        folder = work / f"run{number}"
        folder.mkdir(parents=True, exist_ok=True)
        mrbayes.write_alignment(dataset, folder / "alignment.nex")
        analysis = mrbayes.mcmc(generations, runs, diagnose_every=generations)
        (folder / "run.nex").write_text(mrbayes.commands(analysis, number + 1, settings.likelihood))
        processes.append((command, folder))
    return mrbayes.run(processes)


def ours(
    dataset: str, seed: int, iterations: int, repeats: int, options: list[str], budget: float | None
) -> dict[str, Any]:
    """One run of ours from the alignment's file: what it took and what it found."""
    from vbpi_mix.datasets import dataset_info

    alignment = str(dataset_info(dataset).alignment_path)
    settings = ["--iterations", str(iterations), "--repeats", str(repeats), "--seed", str(seed)]
    with tempfile.TemporaryDirectory(prefix="race-") as folder:
        arguments = [alignment, "--model", "JC", *settings, *options, "--quiet"]
        measured = run_program(dataset, arguments, Path(folder) / "run")
    return {
        "dataset": dataset,
        "seed": seed,
        "budget": budget,
        "options": without_local_paths(options),
        "repeats": repeats,
        **measured,
    }


def race_ours(
    dataset: str, budgets: list[float], seeds: list[int], share: float, options: list[str], again: bool
) -> None:
    """Runs of ours of one data set, from small budgets to large; each plans by the longest one before."""
    longest: dict[str, Any] | None = None
    for budget in sorted(budgets):
        for seed in seeds if budget <= SEEDS_UP_TO else seeds[:1]:
            name = f"race/ours/{dataset}.budget{budget:g}.seed{seed}"
            path = RESULTS / f"{name}.json"
            if again or not path.exists():
                longest = longest or ours(dataset, seed, *CALIBRATION, options, budget=None)
                iterations, repeats = plan(budget, costs_of(longest), share)
                save(name, ours(dataset, seed, iterations, repeats, options, budget))
            run = json.loads(path.read_text())
            if longest is None or run["result"]["iterations"] > longest["result"]["iterations"]:
                longest = run


def main() -> None:
    """Command line."""
    arguments, options = split_options(sys.argv[1:])
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=("chains", "stepping_stone", "speed", "ours"))
    parser.add_argument("datasets", nargs="+")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "vbpi-mix-race")
    parser.add_argument("--seeds", type=int, nargs="+", help="of MrBayes: 1; of ours: 0 and 1")
    parser.add_argument("--generations", type=int, help="of chains or stepping stones, not the usual ones")
    parser.add_argument("--budgets", type=float, nargs="+", default=list(BUDGETS), help="seconds")
    parser.add_argument("--evaluation-share", type=float, default=0.4)
    parser.add_argument("--threads", type=int, default=2, help="of ours")
    parser.add_argument("--seconds", type=float, default=60.0, help="of the speed in the best settings")
    parser.add_argument("--trial-seconds", type=float, default=8.0, help="of the speed in every setting")
    parser.add_argument("--again", action="store_true", help="measure what has been measured already, too")
    chosen = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # and so end MrBayes, too
    for dataset in chosen.datasets:
        if chosen.part == "ours":
            options_of_ours = ["--threads", str(chosen.threads), *options]
            seeds = chosen.seeds or [0, 1]
            race_ours(dataset, chosen.budgets, seeds, chosen.evaluation_share, options_of_ours, chosen.again)
        elif chosen.part == "speed":
            if chosen.again or not (RESULTS / "race" / "speed" / f"{dataset}.json").exists():
                save(f"race/speed/{dataset}", speed(dataset, chosen.seconds, chosen.trial_seconds))
        else:
            for seed in chosen.seeds or [1]:
                name = f"race/{chosen.part}/{dataset}.seed{seed}"
                if chosen.again or not (RESULTS / f"{name}.json").exists():
                    if chosen.part == "chains":
                        generations = chosen.generations or GENERATIONS[dataset]
                        save(name, chains(dataset, seed, generations, chosen.work))
                    else:
                        generations = chosen.generations or STEPPING_STONES[0]
                        save(name, stepping_stone(dataset, seed, generations, chosen.work))


if __name__ == "__main__":
    main()
