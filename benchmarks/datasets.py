"""Claim: `vbpi-mix run --dataset DSn` with default settings, from the shell prompt to all files.

Runs the program once for each data set and records wall-clock seconds, peak memory, the run's result and,
where a reference posterior exists (``VBPI_MIX_REFERENCE``), the agreement with it. One JSON file a data
set; those that exist are skipped unless ``--again``.

    python benchmarks/datasets.py DS1 DS2 ... [--seeds 0 1 2] [--again] [-- further options of vbpi-mix run]
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

from _agreement import agreement_with_reference
from _common import RESULTS, save, without_local_paths


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
    agreement = agreement_with_reference(out, dataset)
    if agreement is not None:
        measured["agreement"] = agreement
    return without_local_paths(measured, out)


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
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--name", default="datasets", help="folder of the results")
    parser.add_argument("--again", action="store_true", help="measure what has been measured already, too")
    chosen = parser.parse_args(arguments)
    for dataset, seed in product(chosen.datasets, chosen.seeds):
        name = f"{chosen.name}/{dataset}.seed{seed}"
        if chosen.again or not (RESULTS / f"{name}.json").exists():
            with tempfile.TemporaryDirectory() as folder:
                # A process of its own for each, so that its peak memory is its own.
                child = os.fork()
                if child == 0:
                    save(name, measure(dataset, seed, options, Path(folder) / "run"))
                    os._exit(0)
                if os.waitpid(child, 0)[1] != 0:
                    raise SystemExit(f"{dataset}: failed")


if __name__ == "__main__":
    main()
