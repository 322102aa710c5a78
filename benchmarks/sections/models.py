"""Estimated models on users' alignments, beside MrBayes: from ``models.py``."""

from pathlib import Path
from typing import Any

from _common import load
from _sections import Figure, Section, Table

MAX_SECONDS = 60.0
"""Wall-clock seconds from the prompt to the report, of the primates with the default model."""

MAX_CLADE_DIFFERENCE = 0.02
"""Largest difference of the probability of a clade from MrBayes'."""

MAX_DIFFERENCE_IN_SDS = 0.1
"""Largest difference of a branch's or parameter's mean from MrBayes', in its standard deviations."""

Run = dict[str, Any]


def section(results: Path) -> Section | None:
    """The section, from ``models/*.json``."""
    runs = load(results, "models/*.seed*.json")
    chains = load(results, "models/*.mrbayes.json")
    if not runs:
        return None
    groups = by_analysis(runs)
    parts: list[Table | Figure] = [_program(groups), _agreement(groups), _parameters(groups)]
    if chains:
        parts.append(_chains(chains))
    parts.append(
        Figure(
            "models-splits",
            "Probability of every split that has a tenth or more in either posterior, of the first seed; on "
            "the diagonal both programs agree.",
            lambda figure: _draw(figure, groups),
        )
    )
    return Section("Estimated models beside MrBayes", _findings(groups), parts, [*runs, *chains])


def by_analysis(runs: dict[str, Run]) -> dict[str, list[Run]]:
    """Runs by alignment and model, in the order of their names and seeds."""
    groups: dict[str, list[Run]] = {}
    for run in sorted(runs.values(), key=lambda run: run["seed"]):
        groups.setdefault(f"{run['alignment']} {run['model']}", []).append(run)
    return dict(sorted(groups.items()))


def largest_clade_difference(runs: list[Run]) -> float:
    """Largest difference of a split's probability from MrBayes' over all runs."""
    return max(float(run["splits"]["largest_difference"]) for run in runs)


def largest_length_difference(runs: list[Run]) -> float:
    """Largest difference of a mean branch length from MrBayes' over all runs, in standard deviations."""
    return max(float(run["lengths"]["largest_difference_in_sds"]) for run in runs)


def largest_parameter_difference(runs: list[Run]) -> float:
    """The same of the model's parameters and the tree length."""
    return max(
        abs(float(row["difference_in_sds"]))
        for run in runs
        for name, row in run["parameters"].items()
        if name != "LnL"
    )


def _findings(groups: dict[str, list[Run]]) -> list[str]:
    """The worst of all runs."""
    runs = [run for group in groups.values() for run in group]
    converged = sum(run["result"]["converged"] is True for run in runs)
    return [
        f"Over {len(runs)} runs, {len(groups)} models or data, clade probabilities differ from MrBayes' "
        f"by {largest_clade_difference(runs):.3f} at most, mean branch lengths by "
        f"{largest_length_difference(runs):.2f} and means of parameters by "
        f"{largest_parameter_difference(runs):.2f} standard deviations of its posterior. "
        f"{converged} of the runs say that they have converged.",
        "MrBayes has the same model and priors; its pooled posterior errs by about half of the difference "
        "between its two runs, which stands beside ours. Empirical frequencies are given to it in numbers: "
        "its own count missing data as a quarter of each nucleotide.",
    ]


def _program(groups: dict[str, list[Run]]) -> Table:
    """Verdicts and times of every run."""
    rows = []
    for name, group in groups.items():
        for run in group:
            result, seconds = run["result"], run["result"]["seconds"]
            k = result["pareto_k"]
            rows.append(
                [
                    name,
                    str(run["seed"]),
                    {True: "yes", False: "no", None: "unknown"}[result["converged"]],
                    "-" if k is None else f"{k:.2f}",
                    f"{result['ess']:,.0f}",
                    f"{run['wall_seconds']:.1f}",
                    *(f"{seconds[stage]:.1f}" for stage in ("support", "training", "evaluation")),
                    f"{result['iterations']:,}",
                    str(run["rounds"]),
                ]
            )
    return Table(
        "Runs of `vbpi-mix run ALIGNMENT` with its defaults, all cores, compiled code warm: the verdict, "
        "k-hat and effective sample size of the importance draws; wall-clock seconds from the prompt to the "
        "report, and of the stages; iterations, and rounds of training.",
        [
            "",
            "seed",
            "converged",
            "k-hat",
            "ESS",
            "s: all",
            "support",
            "training",
            "evaluation",
            "steps",
            "rounds",
        ],
        rows,
    )


def _agreement(groups: dict[str, list[Run]]) -> Table:
    """Clades, topologies and branch lengths: the worst of the seeds, with MrBayes' own differences."""
    rows = []
    for name, group in groups.items():
        splits, topologies, lengths = (
            [run[key] for run in group] for key in ("splits", "topologies", "lengths")
        )
        rows.append(
            [
                name,
                str(len(group)),
                *(
                    f"{_worst(one, key):.4f} ({_worst(one, f'{key}_of_mrbayes_runs'):.4f})"
                    for one, key in (
                        (splits, "largest_difference"),
                        (splits, "mean_difference"),
                        (topologies, "largest_difference"),
                    )
                ),
                f"{_worst(lengths, 'largest_difference_in_sds'):.3f} "
                f"({_worst(lengths, 'largest_difference_of_mrbayes_runs_in_sds'):.3f})",
                f"{100 * _worst(lengths, 'largest_relative_difference'):.2f}% "
                f"({100 * _worst(lengths, 'largest_relative_difference_of_mrbayes_runs'):.2f}%)",
                f"{min(one['ratios_of_sds'][0] for one in lengths):.2f} to "
                f"{max(one['ratios_of_sds'][1] for one in lengths):.2f}",
            ]
        )
    return Table(
        "Differences from MrBayes' pooled posterior, the worst of the seeds, and in parentheses between its "
        "two runs: probabilities of clades, the largest of all and the mean of those from a tenth on; "
        "largest of a topology; mean branch lengths of the clades of half the trees or more, in standard "
        "deviations and relative; ratio of their standard deviations, ours over MrBayes', smallest and "
        "largest.",
        ["", "seeds", "clades: largest", "mean", "topologies", "lengths: sd", "relative", "ratio of sd"],
        rows,
    )


def _parameters(groups: dict[str, list[Run]]) -> Table:
    """Every parameter in both posteriors, of the seed that is farthest off."""
    rows = []
    for name, group in groups.items():
        for parameter in group[0]["parameters"]:
            row = max(
                (run["parameters"][parameter] for run in group), key=lambda row: abs(row["difference_in_sds"])
            )
            mine, other = row["ours"], row["mrbayes"]
            rows.append(
                [
                    name,
                    parameter,
                    f"{other['mean']:.5g} ({other['sd']:.3g})",
                    f"{mine['mean']:.5g} ({mine['sd']:.3g})",
                    f"{row['difference_in_sds']:+.3f}",
                    f"{row['difference_of_mrbayes_runs_in_sds']:+.3f}",
                    f"{row['ratio_of_sds']:.3f}",
                    f"{row['ratio_of_sds_of_mrbayes_runs']:.3f}",
                ]
            )
    return Table(
        "Parameters, the log-likelihood (LnL) and the tree length (TL): means (standard deviations) in both "
        "posteriors, ours of the seed that is farthest off; difference of the means in MrBayes' standard "
        "deviations and ratio of the standard deviations, ours against its pooled runs, and its first "
        "against its second.",
        ["", "parameter", "MrBayes", "ours", "difference", "its runs", "ratio", "its runs"],
        rows,
    )


def _chains(chains: dict[str, Run]) -> Table:
    """What MrBayes did."""
    return Table(
        "MrBayes' analyses: generations of each of two runs, chains in each, samples that were kept, and the "
        "average standard deviation of split frequencies between the runs.",
        ["", "generations", "chains", "samples", "ASDSF"],
        [
            [
                f"{one['alignment']} {one['model']}",
                f"{one['generations']:,}",
                str(one["num_chains"]),
                f"{sum(one['samples_of_runs']):,}",
                f"{one['asdsf']:.4f}",
            ]
            for one in sorted(chains.values(), key=lambda one: (one["alignment"], one["model"]))
        ],
    )


def _worst(rows: list[dict[str, Any]], key: str) -> float:
    return max(float(row[key]) for row in rows)


def _draw(figure: Any, groups: dict[str, list[Run]]) -> None:
    figure.set_size_inches(3.0 * len(groups), 3.2)
    for axis, (name, group) in zip(
        figure.subplots(1, len(groups), squeeze=False)[0], groups.items(), strict=True
    ):
        pairs = group[0]["splits"]["listed"].values()
        axis.plot([0, 1], [0, 1], color="tab:gray", linewidth=0.8)
        axis.plot([p["mrbayes"] for p in pairs], [p["ours"] for p in pairs], "o", markersize=4)
        axis.set_title(name)
        axis.set_xlabel("MrBayes")
        axis.set_ylabel("ours")
        axis.set_aspect("equal")
    figure.tight_layout()
