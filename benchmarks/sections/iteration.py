"""What an iteration costs, where the time goes, and how it grows with mixtures: from ``iteration.py``."""

from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from _common import load
from _sections import Figure, Section, Table

Configurations = dict[str, dict[str, Any]]
"""Measured configurations of a data set by name."""

SINGLE = "a2a.A1.S1.float64.t1"
TARGETS = {
    SINGLE: "<= 1.0 ms",
    "a2a.A3.S3.float64.t1": "<= 3.5 ms",
    "s2a.A50.S1.float64.t1": "<= 2x",
    "s2a.A200.S1.float64.t1": "<= 4x",
    "s2s.A200.S1.float64.t1": "<= 1.1x",
}
"""On DS1: milliseconds, or the ratio to one component."""


def section(results: Path) -> Section | None:
    """The section, from ``iteration/DS*.json``."""
    found = {
        name: content
        for name, content in load(results, "iteration/DS*.json").items()
        if "configurations" in content
    }
    if not found:
        return None
    by_dataset = {
        content["dataset"]: {one["name"]: one for one in content["configurations"]}
        for content in found.values()
    }
    textbook = next((content["textbook"] for content in found.values() if "textbook" in content), None)
    parts: list[Table | Figure] = [
        _single(by_dataset),
        Figure(
            "iteration-breakdown",
            "Milliseconds of an iteration with one component, K = 10, float64, one thread, by part: medians "
            "of each part repeated on its own.",
            lambda canvas: _plot_breakdown(canvas, by_dataset),
        ),
    ]
    if "DS1" in by_dataset:
        parts += [
            _targets(by_dataset["DS1"]),
            Figure(
                "iteration-components",
                "DS1: milliseconds of an iteration against the number of components A, with the straight "
                "line of least squares (in A) for each estimator.",
                lambda canvas: _plot_components(canvas, by_dataset["DS1"]),
            ),
        ]
    parts.append(_mixtures(by_dataset))
    return Section("An iteration", _findings(by_dataset, textbook), parts, [*found])


def _milliseconds(configurations: Configurations, name: str) -> float:
    return float(configurations[name]["milliseconds"]["median"])


def ratio(one: dict[str, Any], reference: dict[str, Any]) -> float:
    """Median over passes of the ratio of two configurations' milliseconds."""
    pairs = zip(one["medians_of_passes"], reference["medians_of_passes"], strict=True)
    return median(a / b for a, b in pairs)


def _ratio(configurations: Configurations, name: str, reference: str = SINGLE) -> float:
    return ratio(configurations[name]["milliseconds"], configurations[reference]["milliseconds"])


def _findings(by_dataset: dict[str, Configurations], textbook: dict[str, float] | None) -> list[str]:
    texts = []
    if "DS1" in by_dataset:
        ds1 = by_dataset["DS1"]
        one = ds1[SINGLE]
        parts = one["breakdown_microseconds"]
        share = parts["likelihood + gradient"] / parts["total"]
        texts.append(
            "On DS1 an iteration with one component and ten particles takes "
            f"**{_milliseconds(ds1, SINGLE):.2f} ms** (fastest step {one['milliseconds']['min']:.2f} ms) on "
            f"one thread, {share:.0%} of it likelihood and gradient."
        )
        if textbook is not None:
            texts.append(
                "A textbook implementation (tree objects, dictionaries, automatic differentiation) takes "
                f"{textbook['milliseconds']:.0f} ms in the same minutes, {textbook['ratio_to_ours']:.0f} "
                "times as long."
            )
        texts.append(
            f"S2A with S = 1 costs {_ratio(ds1, 's2a.A50.S1.float64.t1'):.2f} times one component at "
            f"A = 50 and {_ratio(ds1, 's2a.A200.S1.float64.t1'):.2f} at A = 200; S2S with S = 1 costs "
            f"{_ratio(ds1, 's2s.A200.S1.float64.t1'):.2f} times at A = 200: the price of data that have "
            "left the processor's cache by the time their component is drawn again."
        )
    for dataset, configurations in by_dataset.items():
        two = "a2a.A1.S1.float64.t2"
        if two in configurations:
            single, both = SINGLE.replace("64", "32"), two.replace("64", "32")
            texts.append(
                f"Two threads on {dataset}: {1 / _ratio(configurations, two):.2f} times the speed of one in "
                f"float64, {1 / _ratio(configurations, both, single):.2f} in float32."
            )
    return texts


def _single(by_dataset: dict[str, Configurations]) -> Table:
    rows = []
    for dataset, configurations in by_dataset.items():
        one = configurations[SINGLE]
        parts = one["breakdown_microseconds"]
        rows.append(
            [
                dataset,
                f"{_milliseconds(configurations, SINGLE):.2f}",
                f"{one['milliseconds']['min']:.2f}",
                f"{_milliseconds(configurations, SINGLE.replace('64', '32')):.2f}",
                *(f"{parts[part]:.0f}" for part in parts if part != "total"),
            ]
        )
    parts = next(iter(by_dataset.values()))[SINGLE]["breakdown_microseconds"]
    return Table(
        "One component, K = 10, one thread: milliseconds an iteration (median over passes, fastest step, and "
        "in float32), and microseconds of its parts in float64.",
        ["data set", "ms", "min", "float32", *(part for part in parts if part != "total")],
        rows,
    )


def _targets(ds1: Configurations) -> Table:
    return Table(
        "DS1, float64, one thread: what was aimed at.",
        ["estimator", "A", "S", "ms", "times one component", "target"],
        [
            [
                ds1[name]["estimator"].upper(),
                str(ds1[name]["components"]),
                str(ds1[name]["sampled"]),
                f"{_milliseconds(ds1, name):.2f}",
                f"{_ratio(ds1, name):.2f}",
                target,
            ]
            for name, target in TARGETS.items()
            if name in ds1
        ],
    )


def _mixtures(by_dataset: dict[str, Configurations]) -> Table:
    names = [n for n, one in next(iter(by_dataset.values())).items() if one["components"] > 1]
    first = next(iter(by_dataset.values()))
    return Table(
        "Mixtures, float64, one thread: milliseconds an iteration, and in brackets times one component.",
        ["estimator", "A", "S", *by_dataset],
        [
            [
                first[name]["estimator"].upper(),
                str(first[name]["components"]),
                str(first[name]["sampled"]),
                *(
                    f"{_milliseconds(configurations, name):.2f} ({_ratio(configurations, name):.2f})"
                    for configurations in by_dataset.values()
                ),
            ]
            for name in names
        ],
    )


def _plot_breakdown(canvas: Any, by_dataset: dict[str, Configurations]) -> None:
    axes = canvas.add_subplot()
    bottom = np.zeros(len(by_dataset))
    names = [
        part for part in next(iter(by_dataset.values()))[SINGLE]["breakdown_microseconds"] if part != "total"
    ]
    names.sort(key=lambda part: part != "likelihood + gradient")
    for part in names:
        height = np.array(
            [max(0.0, c[SINGLE]["breakdown_microseconds"][part]) / 1e3 for c in by_dataset.values()]
        )
        axes.bar(list(by_dataset), height, bottom=bottom, label=part)
        bottom += height
    axes.set_ylabel("milliseconds an iteration")
    axes.legend(fontsize=8)


def _plot_components(canvas: Any, ds1: Configurations) -> None:
    axes = canvas.add_subplot()
    single = _milliseconds(ds1, SINGLE)
    for estimator, sampled in (("a2a", None), ("s2a", 1), ("s2a", 2), ("s2s", 1), ("s2s", 2)):
        chosen = [
            one
            for one in ds1.values()
            if one["estimator"] == estimator
            and one["components"] > 1
            and sampled in (None, one["sampled"])
            and one["dtype"] == "float64"
        ]
        if len(chosen) < 2:
            continue
        components = np.array([one["components"] for one in chosen], float)
        milliseconds = np.array([one["milliseconds"]["median"] for one in chosen])
        slope, start = np.polyfit(components, milliseconds, 1)
        name = estimator.upper() + (", S = A" if sampled is None else f", S = {sampled}")
        (points,) = axes.plot(components, milliseconds, "o")
        grid = np.geomspace(components.min(), components.max(), 100)
        axes.plot(
            grid,
            start + slope * grid,
            color=points.get_color(),
            label=f"{name}: {start:.2f} + {slope:.4f} A ms",
        )
    axes.axhline(single, color="grey", linestyle=":", label="one component")
    axes.set_xscale("log")
    axes.set_xlabel("components A")
    axes.set_ylabel("milliseconds an iteration")
    axes.legend(fontsize=8)
