"""MrBayes: the commands that it is given, how it is run, and what its files say.

The analysis is JC69 with independent Exp(10) branch lengths, two runs of four chains, as the reference
posteriors were made. A *generation* is one of every chain of every run.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

NUM_RUNS = 2
SAMPLE_EVERY = 100
"""Generations between samples."""

BURN_IN = 0.25
"""Share of the samples so far that is left out."""

DIAGNOSE_EVERY = 10_000
"""Generations between values of the average standard deviation of split frequencies."""

CHECKPOINT_EVERY = 50_000
"""Generations between states that a killed analysis continues from."""


@dataclass(frozen=True)
class Settings:
    """How MrBayes computes.

    Attributes:
        name: For reports.
        likelihood: Its options of ``set``.
        is_mpi: Whether one analysis is spread over two processes by MPI; else each run is a process.
    """

    name: str
    likelihood: str
    is_mpi: bool


_BEAGLE = "usebeagle=yes beagledevice=cpu beaglescaling=dynamic"
LIKELIHOODS = {
    "own kernel": "usebeagle=no",
    "BEAGLE double SSE": f"{_BEAGLE} beagleprecision=double beaglesse=yes",
    "BEAGLE single": f"{_BEAGLE} beagleprecision=single beaglesse=no",
}
"""Options of ``set`` by name. Of single precision with SSE, BEAGLE makes double precision."""

CANDIDATES = tuple(
    Settings(f"{name}, {'mb-mpi, two processes' if is_mpi else 'a process a run'}", likelihood, is_mpi)
    for is_mpi in (False, True)
    for name, likelihood in LIKELIHOODS.items()
)
"""Ways to use two cores, of which the fastest is the best."""

CHAIN_LIKELIHOOD = LIKELIHOODS["BEAGLE double SSE"]
"""Of the long chains, whose samples by generation do not depend on speed."""


@dataclass(frozen=True)
class Timing:
    """Seconds that processes took from the first's start to the last's end, and of processors."""

    wall_seconds: float
    cpu_seconds: float


def mpi_command() -> list[str]:
    """Command that runs MrBayes in two processes; Debian's ``mb-mpi`` is a script that calls ``mpirun``."""
    program = shutil.which("mb-mpi")
    if program is None:
        return []
    is_script = Path(program).read_bytes()[:2] == b"#!"
    return [program] if is_script else ["mpirun", "-np", "2", program]


def nexus_matrix(taxa: Sequence[str], sequences: Sequence[str]) -> str:
    """NEXUS text of an alignment, under names that MrBayes accepts."""
    from vbpi_mix.trees.names import mrbayes_names

    rows = [f"{name} {row}" for name, row in zip(mrbayes_names(tuple(taxa)), sequences, strict=True)]
    return "\n".join(
        [
            "#NEXUS",
            "begin data;",
            f"dimensions ntax={len(taxa)} nchar={len(sequences[0])};",
            "format datatype=dna missing=? gap=-;",
            "matrix",
            *rows,
            ";",
            "end;",
            "",
        ]
    )


def write_alignment(dataset: str, path: Path) -> None:
    """Write the alignment of a bundled data set for MrBayes."""
    from vbpi_mix._nucleotides import SYMBOLS
    from vbpi_mix.datasets import load_dataset

    alignment = load_dataset(dataset)
    symbols = np.frombuffer(SYMBOLS[:15].encode() + b"?", dtype=np.uint8)
    sequences = [symbols[row].tobytes().decode() for row in alignment.states]
    path.write_text(nexus_matrix(alignment.taxa, sequences), encoding="utf-8")


def commands(analysis: str, seed: int, likelihood: str) -> str:
    """Commands for MrBayes: the model and one analysis of ``alignment.nex``."""
    return "\n".join(
        [
            f"set autoclose=yes nowarn=yes quitonerror=yes seed={seed} swapseed={seed};",
            f"set {likelihood};",
            "execute alignment.nex;",
            "lset nst=1 rates=equal;",
            "prset statefreqpr=fixed(equal) brlenspr=unconstrained:exp(10.0);",
            analysis,
            "quit;",
            "",
        ]
    )


def mcmc(generations: int, runs: int, diagnose_every: int, is_continued: bool = False) -> str:
    """Command for so many generations in all, from the last checkpoint on where continued."""
    return (
        f"mcmc nruns={runs} nchains=4 ngen={generations} samplefreq={SAMPLE_EVERY} printfreq=50000 "
        f"diagnfreq={diagnose_every} checkfreq={CHECKPOINT_EVERY} relburnin=yes burninfrac={BURN_IN} "
        f"savebrlens=no append={'yes' if is_continued else 'no'} filename=chain;"
    )


def stepping_stone(generations: int, steps: int) -> str:
    """Command for the marginal likelihood by stepping stones, in so many generations in all.

    Steps are spaced by quantiles of Beta(0.4, 1), and a step's worth of generations comes before the first,
    as by default; a quarter of each step is burn-in.
    """
    return (
        f"ss ngen={generations} nsteps={steps} nruns={NUM_RUNS} nchains=4 samplefreq={SAMPLE_EVERY} "
        f"printfreq=50000 diagnfreq={generations} filename=chain;"
    )


def run(processes: list[tuple[list[str], Path]]) -> Timing:
    """Run programs side by side on ``run.nex`` in their folders, with their output in ``log`` there.

    Raises:
        SystemExit: One failed; says where its output is.
    """
    # MPI refuses to start for the superuser unless told twice.
    environment = {
        **os.environ,
        "MPI_OPTIONS": "-np 2",
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    }
    began = time.perf_counter()
    started: list[subprocess.Popen[bytes]] = []
    cpu, failed = 0.0, []
    try:
        for command, folder in processes:
            with (folder / "log").open("w") as log:
                started.append(
                    subprocess.Popen(
                        [*command, "run.nex"],
                        cwd=folder,
                        env=environment,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                    )
                )
        for process, (_, folder) in zip(started, processes, strict=True):
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            cpu += usage.ru_utime + usage.ru_stime
            if process.returncode != 0:
                failed.append(f"MrBayes failed with exit status {process.returncode}: see {folder / 'log'}")
    finally:
        for process in started:
            if process.returncode is None:
                process.kill()
    if failed:
        raise SystemExit("\n".join(failed))
    return Timing(time.perf_counter() - began, cpu)


def last_generation(trees: Path) -> int:
    """Generation of the last sample in a file of trees that MrBayes writes; 0 where there is none."""
    if not trees.exists():
        return 0
    size = trees.stat().st_size
    with trees.open("rb") as file:
        file.seek(max(0, size - 100_000))
        found = re.findall(rb"^\s*tree gen\.(\d+) ", file.read(), flags=re.MULTILINE)
    return int(found[-1]) if found else 0


def read_split_deviations(path: Path) -> dict[int, float]:
    """Average standard deviation of split frequencies by generation, from a ``.mcmc`` file."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("[")]
    column = lines[0].split("\t").index("AvgStdDev(s)")
    deviations = {}
    for line in lines[1:]:
        cells = line.split("\t")
        if cells[column] != "NA":
            deviations[int(cells[0])] = float(cells[column])
    return deviations


def read_marginal_likelihoods(log: str) -> list[float]:
    """Log marginal likelihood that each run found, in nats, from the output of the stepping stones.

    Raises:
        ValueError: The output has no table of them.
    """
    table = re.search(r"Run\s+Marginal likelihood \(ln\)\s+-+\s+((?:\d+\s+-?[\d.]+\s+)+)-+", log)
    if table is None:
        raise ValueError("expected a table of marginal likelihoods in the output of MrBayes, found none")
    return [float(line.split()[1]) for line in table[1].strip().splitlines()]


def generation_grid(last: int, first: int = 2_000, ratio: float = 1.15) -> list[int]:
    """Generations at which convergence is looked at: a geometric sequence of samples up to the last."""
    num = max(1, int(np.ceil(np.log(last / first) / np.log(ratio))) + 1) if last > first else 1
    grid = np.geomspace(min(first, last), last, num)
    return sorted({round(float(g) / SAMPLE_EVERY) * SAMPLE_EVERY for g in grid} - {0})


def convergence(
    reference: np.ndarray, weights: np.ndarray, runs: list[np.ndarray], generations: list[int]
) -> list[dict[str, float]]:
    """Agreement of the runs' samples so far, pooled and without burn-in, with a reference posterior.

    Args:
        reference: Distinct canonical topologies, int32 [topology, internal, 2].
        weights: Their weights, [topology].
        runs: For each run its samples in order, the start first, int32 [sample, internal, 2].
        generations: Where to look.

    Returns:
        For each: ``generations``, ``total_variation``, ``coverage`` (reference mass on sampled topologies),
        ``kl`` (of the reference on those, in nats) and ``num_topologies`` that were sampled.
    """
    from vbpi_mix.trees.topology import unique_topologies

    distinct, inverse, _ = unique_topologies(np.concatenate([reference, *runs]))
    ends = np.cumsum([len(reference), *(len(run) for run in runs)])
    parts = np.split(inverse, ends[:-1])
    p = np.bincount(parts[0], weights, len(distinct)) / weights.sum()
    found = []
    for generation in generations:
        num = generation // SAMPLE_EVERY + 1
        kept = np.concatenate([part[int(BURN_IN * num) : num] for part in parts[1:]])
        q = np.bincount(kept, minlength=len(distinct)) / len(kept)
        is_covered = (p > 0) & (q > 0)
        coverage = float(p[is_covered].sum())
        kl = float(np.sum(p[is_covered] * np.log(p[is_covered] / q[is_covered])))
        found.append(
            {
                "generations": generation,
                "total_variation": float(0.5 * np.abs(p - q).sum()),
                "coverage": coverage,
                "kl": kl / coverage - float(np.log(coverage)) if coverage > 0 else None,
                "num_topologies": int((q > 0).sum()),
            }
        )
    return found


def program(name: str = "mb") -> str:
    """Path of MrBayes.

    Raises:
        SystemExit: It is not on the PATH.
    """
    path = shutil.which(name)
    if path is None:
        raise SystemExit(f"expected MrBayes as {name} on the PATH, found none; install it (mrbayes)")
    return path


def version() -> str:
    """What MrBayes calls itself."""
    said = subprocess.run([program()], input="quit\n", capture_output=True, text=True, check=False).stdout
    found = re.search(r"MrBayes \S+( \S+)?", said)
    return found[0] if found else "of unknown version"


def seconds_of(generations: float, speed: dict[str, float]) -> float:
    """Wall-clock seconds of so many generations: start-up, then at the measured rate."""
    return speed["startup_seconds"] + generations / speed["generations_per_second"]


def say(text: str) -> None:
    """Tell the user, at once."""
    print(text, file=sys.stderr, flush=True)
