"""Claim: clade probabilities agree with MrBayes where no golden posterior is known, DS5 to DS8.

Runs `vbpi-mix run --dataset DSn` and keeps the corrected split probabilities, which the report compares with
the split tables of ``VBPI_MIX_REFERENCE`` and with chains of our own (``race.py chains``). DS1 to DS4 against
the golden posteriors come from ``race.py ours``. What has a result is skipped unless ``--again``.

    python benchmarks/topologies.py DS5 DS6 ... [--seeds 0 1 2] [--again] [-- options of vbpi-mix run]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from _agreement import agreement_with_reference
from _common import RESULTS, save, without_local_paths
from _splits import split_frequencies


def measure(dataset: str, seed: int, options: list[str]) -> dict[str, Any]:
    """One run: what it took, and its split probabilities."""
    from vbpi_mix.results.posterior_files import load_final
    from vbpi_mix.results.run_directory import RunDirectory

    program = str(Path(sys.executable).parent / "vbpi-mix")
    with tempfile.TemporaryDirectory(prefix="topologies-") as folder:
        out = Path(folder) / "run"
        command = [program, "run", "--dataset", dataset, "--seed", str(seed), *options, "--out", str(out)]
        began = time.perf_counter()
        process = subprocess.Popen([*command, "--quiet"])
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            raise SystemExit(f"{' '.join(command)}: failed with exit status {process.returncode}")
        final = load_final(RunDirectory(out).final_posterior)
        measured: dict[str, Any] = {
            "dataset": dataset,
            "seed": seed,
            "options": options,
            "wall_seconds": wall,
            "cpu_seconds": usage.ru_utime + usage.ru_stime,
            "peak_memory_gib": usage.ru_maxrss / 2**20,
            "result": json.loads((out / "result.json").read_text()),
            "splits": split_frequencies(
                final.topologies, np.exp(final.log_topology_probabilities), minimum=0.01
            ),
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
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--again", action="store_true", help="measure what has been measured already, too")
    chosen = parser.parse_args(arguments)
    for dataset in chosen.datasets:
        for seed in chosen.seeds:
            name = f"topologies/{dataset}.seed{seed}"
            if chosen.again or not (RESULTS / f"{name}.json").exists():
                save(name, measure(dataset, seed, ["--threads", str(chosen.threads), *options]))


if __name__ == "__main__":
    main()
