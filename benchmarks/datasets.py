"""Claim: `vbpi-mix run --dataset DSn --runs 1` with default settings, from the shell prompt to all files.

Runs the program once for each data set and records wall-clock seconds, peak memory, the run's result and,
where a reference posterior exists (``VBPI_MIX_REFERENCE``), the agreement with it. One JSON file a data
set; those that exist are skipped unless ``--again``.

    python benchmarks/datasets.py DS1 DS2 ... [--seeds 0 1 2] [--again] [-- further options of vbpi-mix run]
"""

import argparse
import sys
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

from _common import RESULTS, save, split_options, without_local_paths
from _program import run_program


def measure(dataset: str, seed: int, options: list[str]) -> dict[str, Any]:
    """One run: what it took and what it found."""
    with tempfile.TemporaryDirectory(prefix="datasets-") as folder:
        arguments = ["--dataset", dataset, "--seed", str(seed), *options]
        measured = run_program(dataset, arguments, Path(folder) / "run")
    return {"dataset": dataset, "seed": seed, "options": without_local_paths(options), **measured}


def main() -> None:
    """Command line."""
    arguments, options = split_options(sys.argv[1:])
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("datasets", nargs="+")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--name", default="datasets", help="folder of the results")
    parser.add_argument("--again", action="store_true", help="measure what has been measured already, too")
    chosen = parser.parse_args(arguments)
    for dataset, seed in product(chosen.datasets, chosen.seeds):
        name = f"{chosen.name}/{dataset}.seed{seed}"
        if chosen.again or not (RESULTS / f"{name}.json").exists():
            save(name, measure(dataset, seed, options))


if __name__ == "__main__":
    main()
