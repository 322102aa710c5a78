"""Claim: clade probabilities agree with MrBayes where no golden posterior is known, DS5 to DS8.

Runs `vbpi-mix run --dataset DSn` and keeps the corrected split probabilities, which the report compares with
the split tables of ``VBPI_MIX_REFERENCE`` and with chains of our own (``race.py chains``). DS1 to DS4 against
the golden posteriors come from ``race.py ours``. What has a result is skipped unless ``--again``.

    python benchmarks/topologies.py DS5 DS6 ... [--seeds 0 1 2] [--again] [-- options of vbpi-mix run]
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from _common import RESULTS, save, split_options, without_local_paths
from _program import run_program
from _splits import split_frequencies


def measure(dataset: str, seed: int, options: list[str]) -> dict[str, Any]:
    """One run: what it took, and its split probabilities."""
    from vbpi_mix.results.posterior_files import load_final
    from vbpi_mix.results.run_directory import RunDirectory

    with tempfile.TemporaryDirectory(prefix="topologies-") as folder:
        out = Path(folder) / "run"
        arguments = ["--dataset", dataset, "--seed", str(seed), *options, "--quiet"]
        measured = run_program(dataset, arguments, out)
        final = load_final(RunDirectory(out).final_posterior)
    splits = split_frequencies(final.topologies, np.exp(final.log_topology_probabilities), minimum=0.01)
    described = {"dataset": dataset, "seed": seed, "options": without_local_paths(options)}
    return {**described, **measured, "splits": splits}


def main() -> None:
    """Command line."""
    arguments, options = split_options(sys.argv[1:])
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
