"""Claim: two runs stop by themselves, not before they can be believed, and within a budget of time.

Makes analyses of bundled data sets with default settings (two runs, rounds of training until the verdict is
yes) and sets their clade probabilities beside reference posteriors (``VBPI_MIX_REFERENCE``): a verdict of yes
with clades far from the reference would be a false stop. With ``--budget`` it records how much of the budget
an analysis takes.

    python benchmarks/stopping.py DS1 DS2 DS3 DS4 [--seeds 0 2 4] [--budget 30s] [--again]
        [-- options of vbpi-mix run]

An analysis has the seeds s and s + 1. One JSON file each; those that exist are skipped unless ``--again``.
"""

import argparse
import os
import sys
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from _common import RESULTS, save, split_options, without_local_paths
from _program import NOT_CONVERGED, time_program
from _splits import differences, listed, read_split_table, split_frequencies


def reference_splits(dataset: str, taxa: tuple[str, ...]) -> dict[str, float] | None:
    """Split frequencies of a data set's reference posterior, of 0.1 or more; None where there is none."""
    from vbpi_mix.trees.samples import read_tree_sample

    folder = Path(os.environ.get("VBPI_MIX_REFERENCE", "absent"))
    golden, table = folder / "golden" / f"{dataset}.tsv.gz", folder / "mrbayes" / f"{dataset}.splits.tsv.gz"
    if golden.exists():
        sample = read_tree_sample(golden, taxa)
        return listed(split_frequencies(sample.children, sample.weights))
    return listed(read_split_table(table, taxa)) if table.exists() else None


def measure(dataset: str, seed: int, budget: str | None, options: list[str]) -> dict[str, Any]:
    """One analysis: what it took, what it says of itself, and how far it is from the reference."""
    from vbpi_mix.results.finished_run import FinishedRuns
    from vbpi_mix.results.run_directory import RunDirectory

    with tempfile.TemporaryDirectory(prefix="stopping-") as folder:
        out = Path(folder) / "run"
        arguments = ["--dataset", dataset, "--seed", str(seed), *options, "--quiet"]
        arguments += [] if budget is None else ["--budget", budget]
        measured = time_program(arguments, out, (0, NOT_CONVERGED))
        runs = FinishedRuns.open(RunDirectory(out))
        topologies, log_probabilities = runs.final_topologies()
        reference = reference_splits(dataset, runs.taxa)
        measured |= {
            "dataset": dataset,
            "seed": seed,
            "budget": budget,
            "options": without_local_paths(options),
            "rounds": runs.config.optimisation.rounds,
        }
        if reference is not None:
            ours = split_frequencies(topologies, np.exp(log_probabilities))
            measured["splits"] = differences(ours, reference)
        return measured


def main() -> None:
    """Command line."""
    arguments, options = split_options(sys.argv[1:])
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("datasets", nargs="+")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--budget", metavar="TIME", help="as of vbpi-mix run")
    parser.add_argument("--again", action="store_true", help="measure what has been measured already, too")
    chosen = parser.parse_args(arguments)
    for dataset, seed in product(chosen.datasets, chosen.seeds):
        name = f"stopping/{dataset}.seed{seed}" + (f".{chosen.budget}" if chosen.budget else "")
        if chosen.again or not (RESULTS / f"{name}.json").exists():
            save(name, measure(dataset, seed, chosen.budget, options))


if __name__ == "__main__":
    main()
