"""What the estimators reach in a given time on a funnel with binary data: from ``toy.py``."""

from collections import defaultdict
from pathlib import Path
from statistics import fmean
from typing import Any

from _common import load
from _sections import Figure, Section, Table

Configuration = tuple[int, str, int]
"""A, estimator and S."""


def section(results: Path) -> Section | None:
    """The section, from ``toy.json``."""
    found = load(results, "toy.json")
    if not found:
        return None
    (measured,) = found.values()
    groups: dict[Configuration, list[dict[str, Any]]] = defaultdict(list)
    for run in measured["runs"]:
        groups[run["components"], run["estimator"], run["sampled"]].append(run)
    ordered = dict(sorted(groups.items()))
    figure = Figure(
        "toy-course",
        "MISELBO of all components against training time, mean over seeds; a panel for each number of "
        "components, with one component for comparison. Higher is better.",
        lambda canvas: _plot(canvas, ordered),
    )
    return Section("Estimators on a toy", _findings(measured, ordered), [figure, _table(ordered)], [*found])


def _name(configuration: Configuration) -> str:
    num_components, estimator, num_sampled = configuration
    return "A=1" if num_components == 1 else f"{estimator.upper()}, A={num_components}, S={num_sampled}"


def _bound(runs: list[dict[str, Any]], moment: int) -> float:
    return fmean(run["course"][moment]["bound"] for run in runs)


def _findings(measured: dict[str, Any], groups: dict[Configuration, list[dict[str, Any]]]) -> list[str]:
    seeds = sorted({run["seed"] for run in measured["runs"]})
    num_moments = len(measured["runs"][0]["course"])
    texts = [
        f"A funnel of {measured['dimension']} latent variables, {measured['num_data']} binary data, "
        f"{measured['seconds']:g} s of training a run, {len(seeds)} seeds; every estimator is judged by the "
        "same bound, MISELBO of all its components."
    ]
    middle = num_moments // 2
    for num_components in sorted({configuration[0] for configuration in groups} - {1}):
        mine = {c: runs for c, runs in groups.items() if c[0] == num_components}
        early = max(mine, key=lambda configuration: _bound(mine[configuration], middle))
        late = max(mine, key=lambda configuration: _bound(mine[configuration], -1))
        time = fmean(run["course"][middle]["seconds"] for run in mine[early])
        texts.append(
            f"**A={num_components}**: after {time:.2f} s {_name(early)} is highest "
            f"({_bound(mine[early], middle):.2f} nats), at the end {_name(late)} "
            f"({_bound(mine[late], -1):.2f})" + _against_single(groups, mine[late]) + "."
        )
    return texts


def _against_single(groups: dict[Configuration, list[dict[str, Any]]], runs: list[dict[str, Any]]) -> str:
    single = next((group for configuration, group in groups.items() if configuration[0] == 1), None)
    if single is None:
        return ""
    difference = _bound(runs, -1) - _bound(single, -1)
    return f", {abs(difference):.2f} nats {'above' if difference > 0 else 'below'} one component"


def _table(groups: dict[Configuration, list[dict[str, Any]]]) -> Table:
    rows = []
    for configuration, runs in groups.items():
        last = [run["course"][-1] for run in runs]
        rows.append(
            [
                _name(configuration),
                f"{fmean(1000 * point['seconds'] / point['steps'] for point in last):.2f}",
                f"{fmean(point['steps'] for point in last):,.0f}",
                f"{_bound(runs, -1):.2f}",
                ", ".join(f"{point['bound']:.2f}" for point in last),
            ]
        )
    return Table(
        "Steps in the same time, and MISELBO in nats at its end.",
        ["configuration", "ms / step", "steps", "bound, mean", "each seed"],
        rows,
    )


def _plot(canvas: Any, groups: dict[Configuration, list[dict[str, Any]]]) -> None:
    sizes = sorted({configuration[0] for configuration in groups} - {1}) or [1]
    canvas.set_size_inches(9.0, 4.6)
    panels = canvas.subplots(1, len(sizes), squeeze=False, sharey=True)[0]
    ends = [_bound(runs, -1) for runs in groups.values()]
    for axes, num_components in zip(panels, sizes, strict=True):
        for configuration, runs in groups.items():
            if configuration[0] in (1, num_components):
                moments = range(len(runs[0]["course"]))
                seconds = [fmean(run["course"][moment]["seconds"] for run in runs) for moment in moments]
                axes.plot(
                    seconds,
                    [_bound(runs, moment) for moment in moments],
                    "--" if configuration[0] == 1 else "-",
                    label=_name(configuration),
                )
        axes.set_xscale("log")
        axes.set_ylim(min(ends) - 40, max(ends) + 3)
        axes.set_title(f"A={num_components}")
        axes.set_xlabel("training time, s")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), fontsize=8)
    panels[0].set_ylabel("MISELBO, nats")
