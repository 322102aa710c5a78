"""Claim: `vbpi-mix run --dataset DSn` with default settings, from the shell prompt to all files.

Runs the program once for each data set and records wall-clock seconds, peak memory, the run's result and,
where a reference posterior exists (``VBPI_MIX_REFERENCE``), the agreement with it. One JSON file a data
set; those that exist are skipped unless ``--again``.

    python benchmarks/datasets.py DS1 DS2 ... [--seed 0] [--again] [-- further options of vbpi-mix run]
"""

import argparse
import gzip
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from _common import RESULTS, save


def measure(dataset: str, seed: int, options: list[str], out: Path) -> dict[str, Any]:
    """One run: what it took and what it found."""
    program = str(Path(sys.executable).parent / "vbpi-mix")
    command = [program, "run", "--dataset", dataset, "--seed", str(seed), "--out", str(out), *options]
    began = time.perf_counter()
    subprocess.run(command, check=True)
    wall = time.perf_counter() - began
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    measured: dict[str, Any] = {
        "dataset": dataset,
        "seed": seed,
        "options": options,
        "wall_seconds": wall,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_memory_gib": usage.ru_maxrss / 2**20,
        "result": json.loads((out / "result.json").read_text()),
    }
    reference = Path(os.environ.get("VBPI_MIX_REFERENCE", "absent"))
    golden = reference / "golden" / f"{dataset}.tsv.gz"
    splits = reference / "mrbayes" / f"{dataset}.splits.tsv.gz"
    if golden.exists():
        arguments = ["compare", str(out), "--reference", str(golden), "--json"]
        compared = subprocess.run([program, *arguments], capture_output=True, text=True, check=True)
        measured["agreement"] = {**json.loads(compared.stdout), "reference": f"golden/{golden.name}"}
    elif splits.exists():
        agreement = compare_with_split_table(out, splits)
        measured["agreement"] = {"splits": agreement, "reference": f"mrbayes/{splits.name}"}
    return without_local_paths(measured, out)


def without_local_paths(value: Any, out: Path) -> Any:
    """The same plain value with folders of this machine replaced by names that mean something elsewhere."""
    match value:
        case str():
            folders = [
                (os.environ.get("VBPI_MIX_REFERENCE"), "$VBPI_MIX_REFERENCE"),
                (str(RESULTS.parent.parent), "."),
                (str(Path(sys.executable).parent), "$VENV/bin"),
                (str(out), "$OUT"),
            ]
            for folder, name in folders:
                value = value.replace(folder, name) if folder else value
            return value
        case dict():
            return {key: without_local_paths(item, out) for key, item in value.items()}
        case list():
            return [without_local_paths(item, out) for item in value]
        case _:
            return value


def compare_with_split_table(out: Path, table: Path) -> dict[str, float]:
    """Differences between corrected split probabilities of a run and a table of split frequencies.

    The table lists splits of frequency 0.1 and above; of others, only what exceeds 0.1 counts.
    """
    from vbpi_mix.results.posterior_files import load_final
    from vbpi_mix.results.run_directory import RunDirectory
    from vbpi_mix.training.checkpoint import Checkpoint
    from vbpi_mix.trees.summaries import split_table

    directory = RunDirectory(out)
    taxa = Checkpoint.load(directory.checkpoint).patterns.taxa
    final = load_final(directory.final_posterior)
    ours = split_table(final.topologies, np.exp(final.log_topology_probabilities))
    mine = {
        frozenset(t for t in range(len(taxa)) if int(mask[t // 64]) >> (t % 64) & 1): float(frequency)
        for mask, frequency in zip(ours.masks, ours.frequencies, strict=True)
    }
    theirs = {}
    with gzip.open(table, "rt", encoding="utf-8") as file:
        for line in list(file)[1:]:
            frequency, _, names = line.rstrip("\n").split("\t")
            side = frozenset(taxa.index(name) for name in names.split(","))
            if len(taxa) - 1 in side:  # splits are named by the side without the last taxon
                side = frozenset(range(len(taxa))) - side
            theirs[side] = float(frequency)
    differences = [
        abs(mine.get(side, 0.0) - theirs.get(side, 0.1))
        for side in mine.keys() | theirs.keys()
        if 1 < len(side) < len(taxa) - 1 and (side in theirs or mine[side] > 0.1)
    ]
    return {
        "maximum": max(differences),
        "mean": sum(differences) / len(differences),
        "num_splits": len(differences),
    }


def main() -> None:
    """Command line."""
    arguments, options = sys.argv[1:], []
    if "--" in arguments:
        at = arguments.index("--")
        arguments, options = arguments[:at], arguments[at + 1 :]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("datasets", nargs="+")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", default="datasets", help="folder of the results")
    parser.add_argument("--again", action="store_true", help="measure what has been measured already, too")
    chosen = parser.parse_args(arguments)
    for dataset in chosen.datasets:
        name = f"{chosen.name}/{dataset}.seed{chosen.seed}"
        if chosen.again or not (RESULTS / f"{name}.json").exists():
            with tempfile.TemporaryDirectory() as folder:
                # A process of its own for each, so that its peak memory is its own.
                child = os.fork()
                if child == 0:
                    save(name, measure(dataset, chosen.seed, options, Path(folder) / "run"))
                    os._exit(0)
                if os.waitpid(child, 0)[1] != 0:
                    raise SystemExit(f"{dataset}: failed")


if __name__ == "__main__":
    main()
