"""What `vbpi-mix run` with default settings finds on DS1 to DS8, and what it costs: from ``datasets.py``."""

from pathlib import Path
from typing import Any

from _common import load, published
from _sections import Figure, Section, Table

PUBLISHED_METHODS = ("MrBayes stepping stone", "VBPI (PSP)", "VBPI-GNN (EDGE)")


def section(results: Path) -> Section | None:
    """The section, from ``datasets/*.json``."""
    found = load(results, "datasets/*.json")
    if not found:
        return None
    runs = list(found.values())
    return Section("DS1 to DS8, single runs with default settings", _findings(runs), _tables(runs), [*found])


def headline(results: Path) -> Table | None:
    """The table that README quotes: the first of the section."""
    runs = load(results, "datasets/*.json")
    return _summary(list(runs.values())) if runs else None


def _findings(runs: list[dict[str, Any]]) -> list[str]:
    tame = sum(_k(run) < 0.7 for run in runs)
    known = published()
    text = (
        f"The Pareto k-hat of the importance weights is below 0.7 in {tame} of {len(runs)} runs, which "
        f"took {min(run['wall_seconds'] for run in runs):.0f} to "
        f"{max(run['wall_seconds'] for run in runs):.0f} s from prompt to all files."
    )
    smaller = [
        run
        for run in runs
        if float(known.get(("log_marginal_likelihood_std", "VBPI (PSP)", run["dataset"]), "-inf"))
        > run["result"]["marginal_log_likelihood"]["std"]
    ]
    if known:
        text += (
            " The standard deviation of the 1,000-sample bound is below the published one of VBPI in "
            f"{len(smaller)} of {len(runs)}."
        )
    return [text]


def _k(run: dict[str, Any]) -> float:
    """Pareto k-hat; infinite where there is none, as with too few draws."""
    k = run["result"]["pareto_k"]
    return float("inf") if k is None else k


def _tables(runs: list[dict[str, Any]]) -> list[Table | Figure]:
    tables: list[Table | Figure] = [_summary(runs), _evidence(runs), _cost(runs)]
    if any("agreement" in run for run in runs):
        tables.append(_agreement([run for run in runs if "agreement" in run]))
    return tables


def _threads(runs: list[dict[str, Any]]) -> str:
    numbers = sorted({run["result"]["provenance"]["threads"] for run in runs})
    return "one thread" if numbers == [1] else f"{' or '.join(map(str, numbers))} threads"


def _name(run: dict[str, Any]) -> list[str]:
    return [run["dataset"], str(run["seed"])]


def _summary(runs: list[dict[str, Any]]) -> Table:
    rows = []
    for run in runs:
        ml, agreement = run["result"]["marginal_log_likelihood"], run.get("agreement", {})
        splits = agreement.get("splits")
        if "total_variation" in agreement:
            agrees = f"total variation {agreement['total_variation']['corrected']:.3f}"
        elif splits:
            agrees = f"splits: max {splits['maximum']:.3f}, mean {splits['mean']:.4f}"
        else:
            agrees = "-"
        rows.append(
            [
                *_name(run),
                str(run["result"]["provenance"]["num_taxa"]),
                f"{ml['mean']:.2f} ({ml['std']:.3f})",
                f"{_k(run):.2f}",
                agrees,
                f"{run['wall_seconds']:.0f}",
                f"{run['peak_memory_gib']:.2f}",
            ]
        )
    return Table(
        f"`vbpi-mix run --dataset DSn --runs 1`, one row a run, {_threads(runs)}; seconds from prompt to all "
        "files. Log marginal likelihood in nats: mean (standard deviation) of 100 bounds of 1,000 likelihood "
        "evaluations.",
        [
            "",
            "seed",
            "taxa",
            "log marginal likelihood (std)",
            "k-hat",
            "corrected, against MrBayes",
            "seconds",
            "GiB",
        ],
        rows,
    )


def _evidence(runs: list[dict[str, Any]]) -> Table:
    known = published()
    methods = [m for m in PUBLISHED_METHODS if ("log_marginal_likelihood", m, "DS1") in known]
    rows = []
    for run in runs:
        result, name = run["result"], run["dataset"]
        ml = result["marginal_log_likelihood"]
        theirs = [
            f"{known['log_marginal_likelihood', m, name]} ({known['log_marginal_likelihood_std', m, name]})"
            for m in methods
        ]
        rows.append(
            [
                *_name(run),
                f"{ml['mean']:.2f} ({ml['std']:.3f})",
                f"{ml['pooled']:.3f} ± {ml['standard_error']:.3f}",
                f"{result['lower_bound_1']:.2f}",
                f"{result['lower_bound_10']:.2f}",
                *theirs,
            ]
        )
    return Table(
        "Log marginal likelihood in nats: bound with 1,000 samples (standard deviation of 100), all draws "
        "pooled with standard error, lower bounds with one and ten samples; published figures as "
        "reprinted in the literature.",
        ["", "seed", "log ML (std)", "pooled ± s.e.", "LB-1", "LB-10", *methods],
        rows,
    )


def _cost(runs: list[dict[str, Any]]) -> Table:
    rows = []
    for run in runs:
        result, seconds = run["result"], run["result"]["seconds"]
        rows.append(
            [
                *_name(run),
                f"{result['ess_percent']:.1f}",
                str(result["refit"]),
                f"{result['iterations']:,}",
                f"{result['ms_per_iteration']:.2f}",
                f"{seconds['support']:.1f}",
                f"{seconds['training']:.0f}",
                f"{seconds['evaluation']:.0f}",
                f"{run['cpu_seconds']:.0f}",
            ]
        )
    return Table(
        "Effective sample size in percent of the draws, which refit was kept, and what the runs took.",
        [
            "",
            "seed",
            "ESS %",
            "refit",
            "iterations",
            "ms / iteration",
            "s: support",
            "s: training",
            "s: evaluation",
            "CPU s, all",
        ],
        rows,
    )


def _agreement(runs: list[dict[str, Any]]) -> Table:
    rows = []
    for run in runs:
        agreement = run["agreement"]
        splits = agreement.get("splits")
        rows.append(
            [
                *_name(run),
                Path(agreement["reference"]).name,
                _of_kinds(agreement.get("total_variation"), 3),
                _of_kinds(agreement.get("kl"), 3),
                _of_kinds(agreement.get("coverage"), 4),
                f"{splits['maximum']:.3f} / {splits['mean']:.4f}" if splits else "-",
            ]
        )
    return Table(
        "Agreement with other posteriors, of the trained mixture / the refitted mixture / the "
        "importance-corrected probabilities. DS1 to DS4: long MrBayes runs (topologies). DS5 to DS8: split "
        "frequencies of two MrBayes runs.",
        [
            "",
            "seed",
            "reference",
            "total variation",
            "KL(reference ‖ q)",
            "coverage",
            "splits, corrected: max / mean difference",
        ],
        rows,
    )


def _of_kinds(values: dict[str, float] | None, digits: int) -> str:
    if not values:
        return "-"
    return " / ".join(
        f"{values[kind]:.{digits}f}" for kind in ("raw", "refitted", "corrected") if kind in values
    )
