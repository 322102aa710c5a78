"""What mixtures and the estimators A2A, S2A and S2S buy at equal time: from ``study.py``."""

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from _common import load
from _sections import Figure, Section, Table
from _study import seconds_close

Run = dict[str, Any]
Runs = dict[int, Run]
"""Runs of one configuration by seed."""


@dataclass(frozen=True, order=True)
class Configuration:
    """What the runs of a group have in common, apart from the data set."""

    seconds: float
    components: int
    sampled: int
    estimator: str
    label: str

    @property
    def name(self) -> str:
        """Name in tables."""
        mixture = (
            "A=1"
            if self.components == 1
            else f"{self.estimator.upper()}, A={self.components}, S={self.sampled}"
        )
        return " ".join(filter(None, [mixture, self.label]))

    @property
    def single(self) -> "Configuration":
        """One component that trains for the same time."""
        return Configuration(self.seconds, 1, 1, "a2a", self.label)


@dataclass(frozen=True)
class Quantity:
    """Something measured of a run.

    Attributes:
        name: What it is.
        of: Its value; None where it was not measured.
        digits: After the point.
        is_better_low: Whether lower values are better.
    """

    name: str
    of: Callable[[Run], float | None]
    digits: int
    is_better_low: bool


def _corrected(run: Run) -> float | None:
    """Total variation of the corrected topologies, or largest difference of a split's probability."""
    agreement = run.get("agreement") or {}
    if "total_variation" in agreement:
        return agreement["total_variation"]["corrected"]
    return agreement["splits"]["maximum"] if agreement.get("splits") else None


def _pareto_k(run: Run) -> float:
    k = run["result"]["pareto_k"]
    return math.inf if k is None else k


STD = Quantity("std of ML", lambda run: run["result"]["marginal_log_likelihood"]["std"], 3, True)
ESS = Quantity("ESS %", lambda run: run["result"]["ess_percent"], 1, False)
K_HAT = Quantity("k-hat", _pareto_k, 2, True)
LB_10 = Quantity("LB-10", lambda run: run["result"]["lower_bound_10"], 2, False)
CORRECTED = Quantity("corrected topologies", _corrected, 3, True)
ML = Quantity("log ML", lambda run: run["result"]["marginal_log_likelihood"]["mean"], 2, False)
LB_1 = Quantity("LB-1", lambda run: run["result"]["lower_bound_1"], 2, False)
COMPARED = (STD, ESS, K_HAT, LB_10, CORRECTED)


def section(results: Path) -> Section | None:
    """The section, from ``study/*.json``."""
    found = {path: run for path, run in load(results, "study/*.json").items() if "result" in run}
    if not found:
        return None
    by_dataset: dict[str, dict[Configuration, Runs]] = defaultdict(lambda: defaultdict(dict))
    for run in found.values():
        configuration = Configuration(
            run["seconds"], run["components"], run["sampled"], run["estimator"], run["label"]
        )
        by_dataset[run["dataset"]][configuration][run["seed"]] = run
    datasets = {name: dict(sorted(by_dataset[name].items())) for name in sorted(by_dataset)}
    parts: list[Table | Figure] = [
        _verdict_table(datasets),
        Figure(
            "study-std",
            "Standard deviation of the marginal likelihood's bound (1,000 likelihood evaluations, whatever "
            "the mixture), by configuration; a point a seed. Dashed: the mean of one component trained for "
            "the same time. Lower is better.",
            lambda canvas: _plot_std(canvas, datasets),
        ),
        Figure(
            "study-course",
            "Ten-sample bound of the whole mixture, not tempered, while training goes on: nats below the "
            "best that any configuration ends with, mean over seeds at each checkpoint of the first seed.",
            lambda canvas: _plot_course(canvas, datasets),
        ),
    ]
    for name, groups in datasets.items():
        parts += [_quality_table(name, groups), _cost_table(name, groups)]
    return Section("Mixtures and estimators at equal time", _findings(datasets), parts, list(found))


def verdict(quantity: Quantity, runs: Runs, others: Runs) -> str:
    """Whether runs are better or worse than others on every seed that both have, or mixed; or unknown."""
    pairs = [(quantity.of(runs[seed]), quantity.of(others[seed])) for seed in runs.keys() & others.keys()]
    known = [(mine, theirs) for mine, theirs in pairs if mine is not None and theirs is not None]
    if not known:
        return "unknown"
    gains = [theirs - mine if quantity.is_better_low else mine - theirs for mine, theirs in known]
    if all(gain > 0 for gain in gains):
        return "better"
    return "worse" if all(gain < 0 for gain in gains) else "mixed"


def _mean(quantity: Quantity, runs: Runs) -> float | None:
    values = [value for run in runs.values() if (value := quantity.of(run)) is not None]
    return fmean(values) if values else None


def _listed(quantity: Quantity, runs: Runs) -> str:
    """Mean over seeds, then the value of each."""
    mean = _mean(quantity, runs)
    if mean is None:
        return "-"
    values = [quantity.of(runs[seed]) for seed in sorted(runs)]
    each = ", ".join("-" if value is None else f"{value:.{quantity.digits}f}" for value in values)
    return f"{mean:.{quantity.digits}f} ({each})"


def _against_single(
    datasets: dict[str, dict[Configuration, Runs]],
) -> list[tuple[str, Configuration, Runs, Runs]]:
    """Every mixture beside one component of the same data set and training time."""
    return [
        (dataset, configuration, runs, groups[configuration.single])
        for dataset, groups in datasets.items()
        for configuration, runs in groups.items()
        if configuration.components > 1 and configuration.single in groups
    ]


def _findings(datasets: dict[str, dict[Configuration, Runs]]) -> list[str]:
    compared = _against_single(datasets)
    num_runs = sum(len(runs) for groups in datasets.values() for runs in groups.values())
    seeds = sorted({seed for groups in datasets.values() for runs in groups.values() for seed in runs})
    texts = [
        f"{num_runs} runs on {', '.join(datasets)}, seeds {', '.join(map(str, seeds))}. All configurations "
        "of a data set train for about the same time on one thread, so that a mixture makes fewer steps the "
        "more they cost. Better and worse mean: on every seed that both have; otherwise mixed."
    ]
    for quantity in COMPARED:
        outcomes: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for dataset, configuration, runs, single in compared:
            outcomes[verdict(quantity, runs, single)][dataset].append(configuration.name.replace(",", ""))
        outcomes.pop("unknown", None)
        total = sum(len(names) for by_dataset in outcomes.values() for names in by_dataset.values())
        if total:
            texts.append(
                f"**{quantity.name}**, mixtures against one component at equal time, {total} comparisons: "
                + "; ".join(_counted(outcome, outcomes[outcome]) for outcome in ("better", "worse", "mixed"))
                + "."
            )
    return texts + _cheap_estimators(datasets) + _longer(datasets)


def _counted(outcome: str, by_dataset: dict[str, list[str]]) -> str:
    """How often comparisons ended so, and on which data sets; the configurations of what is better."""
    number = sum(map(len, by_dataset.values()))
    if outcome == "better":
        where = [f"{dataset}: {', '.join(names)}" for dataset, names in by_dataset.items()]
        return f"better in {number}" + (f" ({'; '.join(where)})" if where else "")
    where = [f"{len(names)} on {dataset}" for dataset, names in by_dataset.items()]
    return f"{outcome} in {number}" + (f" ({', '.join(where)})" if where else "")


def _cheap_estimators(datasets: dict[str, dict[Configuration, Runs]]) -> list[str]:
    """S2A and S2S against A2A of as many components, in the same time."""
    outcomes: dict[str, list[str]] = defaultdict(list)
    for dataset, groups in datasets.items():
        for configuration, runs in groups.items():
            full = Configuration(
                configuration.seconds,
                configuration.components,
                configuration.components,
                "a2a",
                configuration.label,
            )
            if configuration.estimator != "a2a" and full in groups:
                name = f"{dataset} {configuration.name}"
                outcomes[verdict(STD, runs, groups[full])].append(name)
    if not outcomes:
        return []
    return [
        "**Sampled components against all** (S2A and S2S against A2A with the same A, at equal time), std of "
        "ML: " + "; ".join(f"{outcome}: {', '.join(outcomes[outcome])}" for outcome in sorted(outcomes)) + "."
    ]


def _longer(datasets: dict[str, dict[Configuration, Runs]]) -> list[str]:
    """One component trained longer, against the best mixture of the shorter time."""
    texts = []
    for dataset, groups in datasets.items():
        singles = [configuration for configuration in groups if configuration.components == 1]
        mixtures = [configuration for configuration in groups if configuration.components > 1]
        if len(singles) > 1 and mixtures:
            longest = singles[-1]
            best = min(mixtures, key=lambda configuration: _mean(STD, groups[configuration]) or math.inf)
            texts.append(
                f"{dataset}: {_mean(STD, groups[longest]):.3f} with A=1 in {longest.seconds:g} s, "
                f"{_mean(STD, groups[best]):.3f} with {best.name} in {best.seconds:g} s"
            )
    return [f"**Longer training of one component**, std of ML: {'; '.join(texts)}."] if texts else []


def _verdict_table(datasets: dict[str, dict[Configuration, Runs]]) -> Table:
    rows = []
    for dataset, configuration, runs, single in _against_single(datasets):
        shared = runs.keys() & single.keys()
        ratios = [STD.of(runs[seed]) / STD.of(single[seed]) for seed in shared]  # type: ignore[operator]
        ratio = math.exp(fmean(map(math.log, ratios))) if ratios else math.nan
        rows.append(
            [
                dataset,
                configuration.name,
                f"{ratio:.2f}",
                *(verdict(quantity, runs, single) for quantity in COMPARED),
                str(len(shared)),
            ]
        )
    return Table(
        "Mixtures against one component at equal training time. Ratio of the standard deviations of the "
        "marginal likelihood's bound, geometric mean over seeds: below 1 the mixture is better.",
        ["", "configuration", "ratio of std", *(quantity.name for quantity in COMPARED), "seeds"],
        rows,
    )


def _quality_table(dataset: str, groups: dict[Configuration, Runs]) -> Table:
    quantities = (ML, STD, LB_1, LB_10, ESS, K_HAT, CORRECTED)
    rows = [
        [
            configuration.name,
            f"{configuration.seconds:g}",
            ", ".join(map(str, sorted(runs))),
            *(_listed(quantity, runs) for quantity in quantities),
        ]
        for configuration, runs in groups.items()
    ]
    agreement = (
        "total variation to golden" if dataset in ("DS1", "DS2", "DS3", "DS4") else "max split difference"
    )
    names = [quantity.name if quantity is not CORRECTED else agreement for quantity in quantities]
    return Table(
        f"{dataset}: mean over seeds (each seed). Marginal likelihood in nats: bound of 1,000 likelihood "
        "evaluations over all components, mean and standard deviation of 100.",
        ["configuration", "s meant", "seeds", *names],
        rows,
    )


def _cost_table(dataset: str, groups: dict[Configuration, Runs]) -> Table:
    def total(run: Run) -> float:
        seconds = run["result"]["seconds"]
        return seconds["support"] + seconds["training"] + seconds["evaluation"]

    best = _best_bound(groups)
    quantities = (
        Quantity("training s", lambda run: run["result"]["seconds"]["training"], 1, True),
        Quantity("evaluation s", lambda run: run["result"]["seconds"]["evaluation"], 1, True),
        Quantity("total s", total, 1, True),
        Quantity("CPU s", lambda run: None if run["continued"] else run["cpu_seconds"], 1, True),
        Quantity("GiB", lambda run: run["peak_memory_gib"], 2, True),
        Quantity("s to its final bound", lambda run: seconds_close(run["trajectory"], _step(run)), 1, True),
        Quantity(
            "s to the best bound", lambda run: seconds_close(run["trajectory"], _step(run), best), 1, True
        ),
    )
    rows = [
        [
            configuration.name,
            f"{configuration.seconds:g}",
            f"{fmean(run['iterations'] for run in runs.values()):,.0f}",
            *(_listed(quantity, runs) for quantity in quantities),
        ]
        for configuration, runs in groups.items()
    ]
    return Table(
        f"{dataset}: what it took, mean over seeds (each seed). Seconds of training after which the "
        "ten-sample bound of the whole mixture, not tempered, stays within 0.1 nat of its last value, or of "
        "the best last value of any run on the data set (-: never), to the next of some 16 checkpoints; "
        "these are steps times the calibrated time of one. The other seconds were measured while other "
        "programs ran beside; CPU seconds, of the whole program on one thread, suffer least from that.",
        ["configuration", "s meant", "iterations", *(quantity.name for quantity in quantities)],
        rows,
    )


def _step(run: Run) -> float:
    """Seconds of a training step, by the calibration."""
    return run["seconds"] / run["iterations"]


def _best_bound(groups: dict[Configuration, Runs]) -> float:
    """Highest ten-sample bound at the end of any run's training, in nats."""
    return max(
        bound
        for runs in groups.values()
        for run in runs.values()
        if (bound := run["trajectory"][-1]["lower_bound_10"]) is not None
    )


def _grid(canvas: Any, num_axes: int) -> list[Any]:
    """Axes for so many data sets, two in a row; the canvas is resized for them."""
    num_rows = math.ceil(num_axes / 2)
    canvas.set_size_inches(9.0, 0.8 + 2.6 * num_rows)
    axes = canvas.subplots(num_rows, 2, squeeze=False).flatten().tolist()
    for unused in axes[num_axes:]:
        unused.set_visible(False)
    return axes[:num_axes]


def _colours(datasets: dict[str, dict[Configuration, Runs]]) -> dict[str, str]:
    names = sorted({configuration.name for groups in datasets.values() for configuration in groups})
    return {name: f"C{number % 8}" for number, name in enumerate(names)}


def _shortest(groups: dict[Configuration, Runs]) -> dict[Configuration, Runs]:
    """The configurations with the time that all of them train for."""
    seconds = min(configuration.seconds for configuration in groups)
    return {configuration: runs for configuration, runs in groups.items() if configuration.seconds == seconds}


def _plot_std(canvas: Any, datasets: dict[str, dict[Configuration, Runs]]) -> None:
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

    colours = _colours(datasets)
    for axes, (dataset, groups) in zip(_grid(canvas, len(datasets)), datasets.items(), strict=True):
        equal = _shortest(groups)
        for position, (configuration, runs) in enumerate(equal.items()):
            values = [STD.of(run) for run in runs.values()]
            axes.plot(
                values,
                [position] * len(values),
                "o",
                color=colours[configuration.name],
                markersize=5,
                alpha=0.8,
            )
            if configuration.components == 1:
                axes.axvline(_mean(STD, runs), linestyle="--", linewidth=1, color=colours[configuration.name])
        axes.set_yticks(range(len(equal)), [configuration.name for configuration in equal])
        axes.invert_yaxis()
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_title(f"{dataset}, {min(c.seconds for c in groups):g} s")
        axes.set_xlabel("std of the ML bound, nats")


def _plot_course(canvas: Any, datasets: dict[str, dict[Configuration, Runs]]) -> None:
    colours = _colours(datasets)
    lines = {}
    for axes, (dataset, groups) in zip(_grid(canvas, len(datasets)), datasets.items(), strict=True):
        best = _best_bound(groups)
        for configuration, runs in _shortest(groups).items():
            points = [
                [
                    (p["iteration"] * _step(run), best - p["lower_bound_10"])
                    for p in run["trajectory"]
                    if p["lower_bound_10"]
                ]
                for _, run in sorted(runs.items())
            ]
            times = [time for time, _ in points[0] if all(len(other) > 1 for other in points)]
            gaps = [fmean(_interpolated(course, time) for course in points) for time in times]
            (line,) = axes.plot(
                times, [max(gap, 0.01) for gap in gaps], color=colours[configuration.name], linewidth=1.3
            )
            lines[configuration.name] = line
        axes.set_yscale("log")
        axes.set_ylim(0.01, 30)
        axes.set_title(dataset)
        axes.set_xlabel("training time by the calibration, s")
        axes.set_ylabel("nats below the best")
    canvas.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=4)


def _interpolated(points: list[tuple[float, float]], time: float) -> float:
    """Value at a time, on straight lines between points; the nearest outside of them."""
    import numpy as np

    times, values = zip(*points, strict=True)
    return float(np.interp(time, times, values))
