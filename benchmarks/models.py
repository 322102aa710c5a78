"""Claim: clades, branch lengths and parameters of estimated models are MrBayes' under the same priors.

For each model a run of ``vbpi-mix`` with its defaults, and two runs of MrBayes of two chains each, with the
priors that both have by default: Dirichlet(1, ...) on exchangeabilities and frequencies (Beta(1, 1) for
kappa), Exponential(1) on the gamma shape, Exponential(10) on branch lengths. Figures of both stand side by
side, with MrBayes' own uncertainty as the difference between its runs.

    python benchmarks/models.py [HKY+FO GTR+FO+G4 ...] [--alignment primates.nex] [--generations 300000]
        [-- options of vbpi-mix run]

The default alignment is the primates of MrBayes' examples.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import _mrbayes as mrbayes
import numpy as np
from _common import save, split_options, without_local_paths
from _splits import LISTED_FROM, split_frequencies

PRIMATES = Path("/usr/share/doc/mrbayes/examples/primates.nex")
MODELS = ("HKY+FO", "GTR+FO+G4")
NUM_CHAINS = 2
BURN_IN = 0.25
SAMPLE_EVERY = 50
SEED = 1

EXCHANGEABILITIES = {
    "JC": ("nst=1", "statefreqpr=fixed(equal)"),
    "F81": ("nst=1", ""),
    "K80": ("nst=2", "statefreqpr=fixed(equal) tratiopr=beta(1.0,1.0)"),
    "HKY": ("nst=2", "tratiopr=beta(1.0,1.0)"),
    "SYM": ("nst=6", "statefreqpr=fixed(equal) revmatpr=dirichlet(1,1,1,1,1,1)"),
    "GTR": ("nst=6", "revmatpr=dirichlet(1,1,1,1,1,1)"),
}
"""Options of MrBayes' lset and prset for each family."""


def mrbayes_model(name: str) -> str:
    """Commands of MrBayes for a model of ours.

    Raises:
        SystemExit: MrBayes has no such model, or does not estimate what it estimates.
    """
    from vbpi_mix.likelihood.model_names import EQUAL_FREQUENCIES, parse_model

    spec = parse_model(name)
    if spec.family not in EXCHANGEABILITIES or spec.exchangeabilities not in (None, (1.0,) * 6):
        raise SystemExit(f"{name}: expected a model that MrBayes has and estimates, such as {MODELS[0]}")
    if spec.family not in EQUAL_FREQUENCIES and spec.frequencies != "estimated":
        raise SystemExit(f"{name}: MrBayes estimates the frequencies, so write +FO")
    if spec.shape is not None or spec.invariable is not None:
        raise SystemExit(f"{name}: expected nothing in braces")
    lset, prset = EXCHANGEABILITIES[spec.family]
    rates = {(1, False): "equal", (1, True): "propinv"}.get(
        (spec.num_categories, spec.has_invariable), "invgamma" if spec.has_invariable else "gamma"
    )
    if "statefreqpr" not in prset:
        prset += " statefreqpr=dirichlet(1,1,1,1)"
    if spec.num_categories > 1:
        rates += f" ngammacat={spec.num_categories}"
        prset += " shapepr=exponential(1.0)"
    if spec.has_invariable:
        prset += " pinvarpr=uniform(0.0,1.0)"
    return f"lset {lset} rates={rates};\nprset {prset} brlenspr=unconstrained:exp(10.0);"


def run_mrbayes(name: str, alignment: Path, generations: int, folder: Path) -> None:
    """Let MrBayes sample, with its files named ``chain`` in the folder."""
    shutil.copy(alignment, folder / "alignment.nex")
    (folder / "run.nex").write_text(
        "\n".join(
            [
                f"set autoclose=yes nowarn=yes quitonerror=yes seed={SEED} swapseed={SEED};",
                "execute alignment.nex;",
                mrbayes_model(name),
                f"mcmc nruns=2 nchains={NUM_CHAINS} ngen={generations} samplefreq={SAMPLE_EVERY} "
                f"printfreq=50000 diagnfreq=50000 filename=chain;",
                "quit;",
                "",
            ]
        )
    )
    mrbayes.run([([mrbayes.program()], folder)])


def read_parameters(path: Path) -> dict[str, np.ndarray]:
    """Columns of a ``.p`` file after its burn-in."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("[")]
    names = lines[0].split("\t")
    table = np.array([[float(cell) for cell in line.split("\t")] for line in lines[1:]])
    table = table[int(BURN_IN * len(table)) :]
    return {re.sub(r"\{.*\}", "", name): column for name, column in zip(names, table.T, strict=True)}


def summaries_of_mrbayes(folder: Path, taxa: tuple[str, ...]) -> dict[str, Any]:
    """Parameters and splits of both runs, pooled, and how far the runs are from each other."""
    from vbpi_mix.trees.samples import read_tree_draws

    runs = [read_parameters(folder / f"chain.run{k}.p") for k in (1, 2)]
    trees = [read_tree_draws(folder / f"chain.run{k}.t", taxa, burn_in=BURN_IN).children for k in (1, 2)]
    splits = [split_frequencies(children) for children in trees]
    pooled = split_frequencies(np.concatenate(trees))
    return {
        "num_samples": sum(len(children) for children in trees),
        "parameters": {
            name: {
                "mean": float(np.mean([run[name].mean() for run in runs])),
                "sd": float(np.concatenate([run[name] for run in runs]).std()),
                "difference_of_runs": abs(float(runs[0][name].mean() - runs[1][name].mean())),
            }
            for name in runs[0]
            if name not in ("Gen", "LnPr")
        },
        "splits": pooled,
        "largest_difference_of_runs": max(
            abs(splits[0].get(split, 0.0) - splits[1].get(split, 0.0)) for split in pooled
        ),
    }


def run_ours(name: str, alignment: Path, options: list[str], out: Path) -> dict[str, Any]:
    """Parameters and splits that a run of ``vbpi-mix`` finds."""
    from vbpi_mix.results.posterior_files import load_final
    from vbpi_mix.results.run_directory import RunDirectory

    command = [sys.executable, "-m", "vbpi_mix.cli", "run", str(alignment), "--model", name]
    subprocess.run([*command, *options, "--out", str(out), "--quiet"], check=True, stdout=subprocess.DEVNULL)
    directory = RunDirectory(out)
    result = json.loads(directory.result.read_text())
    final = load_final(directory.final_posterior)
    return {
        "parameters": {"TL": result["tree_length"], **result["model"]},
        "splits": split_frequencies(final.topologies, np.exp(final.log_topology_probabilities)),
        "result": without_local_paths(result, out),
    }


def side_by_side(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Parameters and splits of both, and the largest differences."""
    parameters = {}
    for name, mine in ours["parameters"].items():
        other = theirs["parameters"][name]
        parameters[name] = {
            "ours": {"mean": mine["mean"], "sd": mine["sd"], "hpd95": mine["hpd95"]},
            "mrbayes": other,
            "difference_in_sds": (mine["mean"] - other["mean"]) / other["sd"],
            "ratio_of_sds": mine["sd"] / other["sd"],
        }
    known = ours["splits"].keys() | theirs["splits"].keys()
    splits = {
        split: {"ours": ours["splits"].get(split, 0.0), "mrbayes": theirs["splits"].get(split, 0.0)}
        for split in known
    }
    return {
        "parameters": parameters,
        "splits": {split: row for split, row in sorted(splits.items()) if max(row.values()) >= LISTED_FROM},
        "largest_difference_of_splits": max(abs(row["ours"] - row["mrbayes"]) for row in splits.values()),
        "largest_difference_of_splits_between_mrbayes_runs": theirs["largest_difference_of_runs"],
        "mrbayes_samples": theirs["num_samples"],
    }


def measure(name: str, alignment: Path, generations: int, options: list[str]) -> dict[str, Any]:
    """Both programs under one model."""
    from vbpi_mix.alignment import read_alignment

    taxa = read_alignment(alignment).taxa
    with tempfile.TemporaryDirectory(prefix="models-") as temporary:
        folder = Path(temporary)
        (folder / "mrbayes").mkdir()
        began = time.perf_counter()
        run_mrbayes(name, alignment, generations, folder / "mrbayes")
        theirs = summaries_of_mrbayes(folder / "mrbayes", taxa)
        between = time.perf_counter()
        ours = run_ours(name, alignment, options, folder / "ours")
        seconds = {"mrbayes": between - began, "ours": time.perf_counter() - between}
    return {
        "model": name,
        "alignment": alignment.name,
        "generations": generations,
        "options": without_local_paths(options),
        "mrbayes": mrbayes.version(),
        "wall_seconds": seconds,
        **side_by_side(ours, theirs),
        "result": ours["result"],
    }


def main() -> None:
    """Command line."""
    own, options = split_options(sys.argv[1:])
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", default=list(MODELS))
    parser.add_argument("--alignment", type=Path, default=PRIMATES)
    parser.add_argument("--generations", type=int, default=300_000)
    chosen = parser.parse_args(own)
    os.nice(10)  # nothing is timed here that others should wait for
    for name in chosen.models:
        found = measure(name, chosen.alignment, chosen.generations, options)
        save(f"models/{chosen.alignment.stem}.{name}", found)


if __name__ == "__main__":
    main()
