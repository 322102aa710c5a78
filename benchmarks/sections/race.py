"""MrBayes and `vbpi-mix run` from the same alignment on the same two cores: from ``race.py``."""

import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from _common import load
from _mrbayes import seconds_of
from _sections import Figure, Section, Table

BUDGETS = (10, 20, 30, 60, 120, 300, 900)
"""Seconds of wall-clock at which the two are compared."""

TOLERANCE = 1.05
"""A run of ours counts for a budget that it exceeds by no more than this factor."""

KINDS = {"raw": "trained", "refitted": "refitted", "corrected": "corrected"}
COLOURS = {"raw": "tab:orange", "refitted": "tab:green", "corrected": "tab:blue"}

Curve = list[tuple[float, float]]


def section(results: Path) -> Section | None:
    """The section, from ``race/*/*.json``."""
    chains, speeds = load(results, "race/chains/*.json"), load(results, "race/speed/*.json")
    stones, ours = load(results, "race/stepping_stone/*.json"), load(results, "race/ours/*.json")
    speed = {content["dataset"]: content["best"] for content in speeds.values()}
    curves = {
        dataset: [
            curve(content["convergence"], speed[dataset])
            for content in chains.values()
            if content["dataset"] == dataset and "convergence" in content
        ]
        for dataset in speed
    }
    curves = {dataset: found for dataset, found in curves.items() if found}
    runs = {dataset: [r for r in ours.values() if r["dataset"] == dataset] for dataset in curves}
    runs = {dataset: found for dataset, found in runs.items() if found}
    curves = {dataset: curves[dataset] for dataset in runs}
    if not runs:
        return None
    parts: list[Table | Figure] = [
        _race_table(curves, runs),
        Figure(
            "race",
            "Total variation to the golden posterior against wall-clock seconds from the bare alignment, one "
            "panel a data set, logarithmic axes. MrBayes: pooled samples of two runs of four chains, 25% "
            "burn-in; ours: each dot one run, support building included.",
            lambda canvas: _draw(canvas, curves, runs),
        ),
    ]
    if stones:
        parts.append(_stone_table(stones.values(), speed, runs))
    parts.append(_speed_table(speeds.values()))
    return Section(
        "Race against MrBayes",
        _findings(curves, runs),
        parts,
        [*chains, *speeds, *stones, *ours],
    )


def curve(convergence: list[dict[str, float]], speed: dict[str, float]) -> Curve:
    """Wall-clock seconds and total variation of chains of which it is known by generation."""
    return [(seconds_of(at["generations"], speed), at["total_variation"]) for at in convergence]


def at_budget(found: Curve, budget: float) -> float | None:
    """Total variation of the last point within a budget; None without one, or if the curve ends early."""
    within = [value for seconds, value in found if seconds <= budget]
    ends = max(seconds for seconds, _ in found)
    return within[-1] if within and ends >= 0.9 * budget else None


def runs_within(runs: list[dict[str, Any]], budget: float) -> list[dict[str, Any]]:
    """Runs of ours of the largest planned budget of which all seeds kept within this one."""
    planned: dict[float, list[dict[str, Any]]] = {}
    for run in runs:
        planned.setdefault(run["budget"], []).append(run)
    kept = [b for b, group in planned.items() if max(r["wall_seconds"] for r in group) <= TOLERANCE * budget]
    return planned[max(kept)] if kept else []


def _variation(runs: list[dict[str, Any]], kind: str) -> list[float]:
    values = [run["agreement"]["total_variation"][kind] for run in runs]
    return [value for value in values if value is not None]


def _cell(values: list[float]) -> str:
    if not values:
        return "-"
    spread = f" ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{spread}"


def _comparisons(
    curves: dict[str, list[Curve]], runs: dict[str, list[dict[str, Any]]]
) -> list[tuple[str, int, list[float], list[dict[str, Any]]]]:
    """For each data set and budget what MrBayes has, and which runs of ours."""
    return [
        (
            dataset,
            budget,
            [value for c in curves[dataset] if (value := at_budget(c, budget)) is not None],
            runs_within(runs[dataset], budget),
        )
        for dataset in curves
        for budget in BUDGETS
    ]


def _lower(theirs: list[float], ours: list[float]) -> str:
    """Who is lower; ours by the worst seed, MrBayes by its mean."""
    if not theirs or not ours:
        return "-"
    return "ours" if max(ours) < statistics.fmean(theirs) else "MrBayes"


def _findings(curves: dict[str, list[Curve]], runs: dict[str, list[dict[str, Any]]]) -> list[str]:
    text = []
    decided = [
        (dataset, budget, _lower(theirs, _variation(ours, "corrected")))
        for dataset, budget, theirs, ours in _comparisons(curves, runs)
    ]
    for wanted in ("ours", "MrBayes"):
        parts = []
        for dataset in curves:
            budgets = [f"{budget}" for d, budget, winner in decided if d == dataset and winner == wanted]
            if budgets:
                parts.append(f"{dataset} at {', '.join(budgets)} s")
        if parts:
            who = (
                "The corrected posterior's total variation, of the worst seed, is below MrBayes'"
                if wanted == "ours"
                else "MrBayes' total variation is the lower, or equal,"
            )
            text.append(f"{who} on {'; '.join(parts)}.")
    text.append(
        "MrBayes' samples by generation do not depend on how busy the machine is: chains and speed were "
        "measured apart, and its seconds are start-up plus generations over the generations per second of "
        "its best settings on both cores. Ours are measured seconds of `vbpi-mix run FILE`, with "
        "compiled code cached."
    )
    return text


def _race_table(curves: dict[str, list[Curve]], runs: dict[str, list[dict[str, Any]]]) -> Table:
    rows = []
    for dataset, budget, theirs, ours in _comparisons(curves, runs):
        rows.append(
            [
                dataset,
                str(budget),
                _cell(theirs),
                *(_cell(_variation(ours, kind)) for kind in KINDS),
                f"{statistics.fmean(r['wall_seconds'] for r in ours):.0f}" if ours else "-",
                _lower(theirs, _variation(ours, "corrected")),
            ]
        )
    return Table(
        "Total variation to the golden posterior within a budget of wall-clock seconds. Ours: the runs "
        "planned for the largest budget that fits, mean (and range) over seeds; the last but one column is "
        "what they took. Lower: corrected, worst seed, against MrBayes. A dash: nothing measured that fits.",
        ["", "budget, s", "MrBayes", *(f"ours, {name}" for name in KINDS.values()), "ours, s", "lower"],
        rows,
    )


def _stone_table(
    stones: Iterable[dict[str, Any]],
    speed: dict[str, dict[str, float]],
    runs: dict[str, list[dict[str, Any]]],
) -> Table:
    rows = []
    for stone in stones:
        dataset, values = stone["dataset"], stone["marginal_log_likelihood"]
        took = f"{seconds_of(stone['generations'], speed[dataset]):.0f}" if dataset in speed else "-"
        spread = f"{statistics.stdev(values):.2f}" if len(values) > 1 else "-"
        theirs = [f"{statistics.fmean(values):.2f} ({spread})", took]
        for run in sorted(runs.get(dataset, []), key=lambda r: (r["budget"], r["seed"])):
            ml, k = run["result"]["marginal_log_likelihood"], run["result"]["pareto_k"]
            rows.append(
                [
                    dataset,
                    *theirs,
                    f"{run['wall_seconds']:.0f}",
                    str(run["seed"]),
                    f"{ml['mean']:.2f} ({ml['std']:.3f})",
                    f"{ml['pooled']:.3f} ± {ml['standard_error']:.3f}",
                    "-" if k is None else f"{k:.2f}",
                ]
            )
    return Table(
        "Log marginal likelihood in nats. MrBayes' stepping stones: mean (standard deviation) of two runs "
        "and seconds on both cores. Ours, a row a run: 1,000-sample bound (standard deviation over repeats), "
        "all draws pooled with standard error, and Pareto k-hat.",
        ["", "stepping stones", "s", "ours: s", "seed", "log ML (std)", "pooled", "k-hat"],
        rows,
    )


def _speed_table(speeds: Iterable[dict[str, Any]]) -> Table:
    rows = []
    for content in speeds:
        best = content["best"]
        trials = sorted(content["trials"], key=lambda t: -t["generations_per_second"])
        others = [t for t in trials if t["settings"] != best["settings"]]
        rows.append(
            [
                content["dataset"],
                best["settings"],
                f"{best['generations_per_second']:,.0f}",
                f"{best['startup_seconds']:.1f}",
                f"{best['cpu_per_wall']:.2f}",
                "; ".join(f"{t['settings']} {t['generations_per_second']:,.0f}" for t in others),
            ]
        )
    return Table(
        "MrBayes' speed, two runs of four chains on two cores: its best settings, generations per second, "
        "seconds of start-up, and seconds of processor by wall-clock second (2 is all of both cores); and "
        "what the other settings reached in a short trial.",
        ["", "best settings", "generations / s", "start-up, s", "CPU / wall", "others, generations / s"],
        rows,
    )


def _draw(canvas: Any, curves: dict[str, list[Curve]], runs: dict[str, list[dict[str, Any]]]) -> None:
    columns = 2 if len(curves) > 1 else 1
    lines = -(-len(curves) // columns)
    canvas.set_size_inches(4.2 * columns, 3.3 * lines)
    panels = canvas.subplots(lines, columns, squeeze=False)
    for panel in panels.flat[len(curves) :]:
        panel.set_visible(False)
    for panel, dataset in zip(panels.flat, curves, strict=False):
        for index, found in enumerate(curves[dataset]):
            seconds, values = zip(*found, strict=True)
            panel.plot(seconds, values, color="black", label="MrBayes" if index == 0 else None)
        for kind, name in KINDS.items():
            points = [
                (run["wall_seconds"], value)
                for run in runs[dataset]
                if (value := run["agreement"]["total_variation"][kind]) is not None
            ]
            if points:
                panel.plot(*zip(*points, strict=True), "o", ms=4, color=COLOURS[kind], label=f"ours, {name}")
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_title(dataset)
        panel.set_xlabel("wall-clock seconds")
        panel.set_ylabel("total variation")
        panel.grid(visible=True, which="both", alpha=0.2)
    panels.flat[0].legend(fontsize=8)
    canvas.tight_layout()
