"""Whether analyses stop by themselves, and only when they can be believed: from ``stopping.py``."""

from pathlib import Path
from typing import Any

from _common import load
from _sections import Section, Table

FALSE_STOP = 0.05
"""Difference of a clade's probability from the reference from which on a verdict of yes is a false one."""


def is_false_stop(run: dict[str, Any]) -> bool:
    """Whether the verdict was yes, though a clade's probability is far from the reference."""
    return bool(run["result"]["converged"]) and run["splits"]["maximum"] > FALSE_STOP


def seconds_of(budget: str) -> float:
    """Seconds of a budget as the benchmark is given it, such as 30s or 2m."""
    return float(budget[:-1]) * {"s": 1, "m": 60}[budget[-1]]


def section(results: Path) -> Section | None:
    """The section, from ``stopping/*.json``."""
    found = load(results, "stopping/*.json")
    if not found:
        return None
    free = [run for run in found.values() if run["budget"] is None]
    bound = [run for run in found.values() if run["budget"] is not None]
    judged = [run for run in free if "splits" in run]
    texts = []
    if judged:
        yes = sum(bool(run["result"]["converged"]) for run in judged)
        texts.append(
            f"Of {len(judged)} analyses with a reference {yes} ended with the verdict yes, "
            f"{sum(map(is_false_stop, judged))} of these with a clade probability more than {FALSE_STOP} "
            "from the reference: a false stop."
        )
    if bound:
        kept = sum(run["wall_seconds"] <= seconds_of(run["budget"]) for run in bound)
        texts.append(f"{kept} of {len(bound)} analyses with a budget kept within it.")
    return Section("When analyses stop", texts, [_table(free + bound)], [*found])


def _table(runs: list[dict[str, Any]]) -> Table:
    rows = []
    for run in runs:
        result, splits = run["result"], run.get("splits")
        values = {criterion["name"]: criterion["value"] for criterion in result["criteria"]}
        k = values["pareto_k"]
        rows.append(
            [
                run["dataset"],
                f"{run['seed']}, {run['seed'] + 1}",
                run["budget"] or "-",
                "yes" if result["converged"] else "no",
                str(run["rounds"]),
                f"{result['iterations']:,}",
                "-" if k is None else f"{k:.2f}",
                f"{values['ess']:,.0f}",
                f"{values['asdsf']:.4f}",
                f"{splits['maximum']:.3f} / {splits['mean']:.4f}" if splits else "-",
                f"{run['wall_seconds']:.0f}",
            ]
        )
    return Table(
        "`vbpi-mix run --dataset DSn`: two runs of one thread each at the same time, rounds of 3,000, 6,000, "
        "12,000 and 24,000 iterations until the verdict is yes; seconds from prompt to all files. k-hat, "
        "effective sample size: of the worse run.",
        [
            "",
            "seeds",
            "budget",
            "converged",
            "rounds",
            "iterations",
            "k-hat",
            "ESS",
            "ASDSF",
            "clades against MrBayes: max / mean difference",
            "seconds",
        ],
        rows,
    )
