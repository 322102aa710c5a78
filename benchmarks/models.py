"""Claim: an alignment gets MrBayes' posterior under the same model and priors, with a verdict, in a minute.

``chains`` runs MrBayes, two runs each, and keeps a summary of what they found. They are the slow part, and no
change of ours changes them: they are made once, and killed ones continue from their files in --work.
``runs`` makes runs of ``vbpi-mix`` with its defaults, the support made by IQ-TREE under the run's model. It
times them from the prompt to the report, and lays their clades, branch lengths, parameters and topologies
beside MrBayes', with the differences between MrBayes' own runs. What has a result is skipped without --again.

    python benchmarks/models.py chains [primates.GTR+F+G4 ...] [--work FOLDER] [--again]
    python benchmarks/models.py runs [primates.GTR+F+G4 ...] [--seeds 0 2 4] [--again]
        [-- options of vbpi-mix run]

Analyses are those of ``_model_chains.ANALYSES``: of the primates of MrBayes' examples, the woodmice of R's
package ape, and DS2.
"""

import argparse
import json
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
from _common import RESULTS, save, split_options, without_local_paths
from _model_chains import ANALYSES, Analysis, alignment_path, length_table, run_chains, topology_name
from _program import NOT_CONVERGED, time_program
from _splits import LISTED_FROM, split_names

SEEDS = (0, 2, 4)
"""An analysis has two runs, with its seed and the one after."""

WARM_UP = ("--iterations", "200", "--repeats", "4")
"""Options of a run after which everything is compiled."""

MAJORITY = 0.5
"""Least probability, in MrBayes' posterior, of splits whose branch lengths are compared: of rarer ones few
samples have the branch."""


def run_ours(analysis: Analysis, seed: int, options: list[str]) -> dict[str, Any]:
    """A run of ``vbpi-mix``: what it took, and what it found."""
    from vbpi_mix.report.run_files import read_splits, read_traces
    from vbpi_mix.results.run_directory import RunDirectory
    from vbpi_mix.trees.samples import read_tree_sample

    with tempfile.TemporaryDirectory(prefix="models-") as folder:
        out = Path(folder) / "run"
        path = alignment_path(analysis.data, Path(folder))
        arguments = [str(path), "--model", analysis.model, "--seed", str(seed), "--quiet", *options]
        measured = time_program(arguments, out, statuses=(0, NOT_CONVERGED))
        directory = RunDirectory(out)
        splits = read_splits(directory.splits)
        topologies = read_tree_sample(directory.topology_probabilities, splits.taxa)
        likelihoods = read_traces(directory)["LnL"]
        rounds = max(_rounds(member.config) for member in directory.members())
        result = json.loads(json.dumps(measured["result"]).replace(f"{folder}/", ""))
    shares = topologies.weights / topologies.weights.sum()
    return {
        "measured": {**measured, "result": result, "rounds": rounds},
        "parameters": {
            "LnL": {"mean": float(likelihoods.mean()), "sd": float(likelihoods.std())},
            "TL": result["tree_length"],
            **result["model"],
        },
        "splits": {
            name: float(frequency)
            for name, frequency in zip(split_names(splits.table), splits.table.frequencies, strict=True)
            if "," in name
        },
        "lengths": length_table(splits.table),
        "topologies": {
            topology_name(children): float(share)
            for children, share in zip(topologies.children, shares, strict=True)
        },
    }


def _rounds(config: Path) -> int:
    """Rounds of training of a single run."""
    return int(tomllib.loads(config.read_text(encoding="utf-8"))["optimisation"]["rounds"])


def side_by_side(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """All that both have, and the largest differences, beside those between MrBayes' runs.

    A difference of means is in standard deviations of MrBayes' posterior. MrBayes' pooled posterior errs by
    about half of the difference between its two runs.
    """
    return {
        "splits": _probabilities(ours["splits"], theirs["splits"], "frequency"),
        "topologies": _probabilities(
            ours["topologies"], theirs["topologies"]["probabilities"], "probability"
        ),
        "lengths": _lengths(ours["lengths"], theirs["lengths"]),
        "parameters": {
            name: _parameter(mine, theirs["parameters"][name]) for name, mine in ours["parameters"].items()
        },
    }


def _probabilities(
    ours: dict[str, float], theirs: dict[str, dict[str, Any]], probability: str
) -> dict[str, Any]:
    """Differences of probabilities; those of what either has from `LISTED_FROM` on are in the mean.

    What MrBayes' table leaves out for being rare has probability zero there.
    """
    known = {name: row[probability] for name, row in theirs.items()}
    both = {name: (ours.get(name, 0.0), known.get(name, 0.0)) for name in ours.keys() | known.keys()}
    listed = [name for name, pair in both.items() if max(pair) >= LISTED_FROM]
    of_runs = {name: _spread(row["of_runs"]) for name, row in theirs.items()}
    return {
        "largest_difference": max(abs(mine - other) for mine, other in both.values()),
        "mean_difference": _mean([abs(both[name][0] - both[name][1]) for name in listed]),
        "largest_difference_of_mrbayes_runs": max(of_runs.values(), default=0.0),
        "mean_difference_of_mrbayes_runs": _mean([of_runs.get(name, 0.0) for name in listed]),
        "listed": {
            name: {"ours": both[name][0], "mrbayes": both[name][1]}
            for name in sorted(listed, key=lambda name: (-both[name][1], name))
        },
    }


def _lengths(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Differences of mean branch lengths where MrBayes has the split in half of the trees or more."""
    pairs = [
        (ours[name], row) for name, row in theirs.items() if row["frequency"] >= MAJORITY and name in ours
    ]
    differences = np.array([abs(mine["mean"] - row["mean"]) for mine, row in pairs])
    of_runs = np.array([_spread(row["means_of_runs"]) for _, row in pairs])
    means, sds = (np.array([row[key] for _, row in pairs]) for key in ("mean", "sd"))
    ratios = [mine["sd"] / row["sd"] for mine, row in pairs]
    return {
        "num_branches": len(pairs),
        "largest_difference_in_sds": float((differences / sds).max()),
        "largest_relative_difference": float((differences / means).max()),
        "largest_difference_of_mrbayes_runs_in_sds": float((of_runs / sds).max()),
        "largest_relative_difference_of_mrbayes_runs": float((of_runs / means).max()),
        "ratios_of_sds": [min(ratios), max(ratios)],
    }


def _parameter(mine: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Mean and standard deviation of a number in both posteriors."""
    means, sds = other["means_of_runs"], other["sds_of_runs"]
    return {
        "ours": {key: mine[key] for key in ("mean", "sd", "hpd95") if key in mine},
        "mrbayes": {key: other[key] for key in ("mean", "sd", "hpd95")},
        "difference_in_sds": (mine["mean"] - other["mean"]) / other["sd"],
        "ratio_of_sds": mine["sd"] / other["sd"],
        "difference_of_mrbayes_runs_in_sds": (means[0] - means[1]) / other["sd"],
        "ratio_of_sds_of_mrbayes_runs": sds[0] / sds[1],
    }


def _spread(values: list[float]) -> float:
    return max(values) - min(values)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def chains(names: list[str], work: Path, again: bool) -> None:
    """Run MrBayes where there is no result yet."""
    for name in names:
        if again or not (RESULTS / f"models/{name}.mrbayes.json").exists():
            save(f"models/{name}.mrbayes", run_chains(ANALYSES[name], work))


def runs(names: list[str], seeds: list[int], again: bool, options: list[str]) -> None:
    """Make our runs where there is no result yet, and lay them beside MrBayes'."""
    for name in names:
        analysis, reference = ANALYSES[name], RESULTS / f"models/{name}.mrbayes.json"
        if not reference.exists():
            raise SystemExit(f"{reference}: missing; first do: python benchmarks/models.py chains {name}")
        open_seeds = [
            seed for seed in seeds if again or not (RESULTS / f"models/{name}.seed{seed}.json").exists()
        ]
        if open_seeds:
            run_ours(analysis, 0, list(WARM_UP))
        for seed in open_seeds:
            ours = run_ours(analysis, seed, options)
            content = {
                "alignment": analysis.data,
                "model": analysis.model,
                "seed": seed,
                "options": without_local_paths(options),
                **ours["measured"],
                **side_by_side(ours, json.loads(reference.read_text())),
            }
            save(f"models/{name}.seed{seed}", content)


def main() -> None:
    """Command line."""
    own, options = split_options(sys.argv[1:])
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("chains", "runs"))
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ANALYSES)}; all by default")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="of our runs")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path(tempfile.gettempdir()) / "vbpi-mix-models",
        help="folder of MrBayes' chains",
    )
    parser.add_argument("--again", action="store_true", help="measure what has been measured already, too")
    chosen = parser.parse_args(own)
    unknown = set(chosen.names) - ANALYSES.keys()
    if unknown:
        parser.error(f"expected names of {', '.join(ANALYSES)}, got {', '.join(sorted(unknown))}")
    names = chosen.names or list(ANALYSES)
    if chosen.what == "chains":
        chains(names, chosen.work, chosen.again)
    else:
        runs(names, chosen.seeds, chosen.again, options)


if __name__ == "__main__":
    main()
