"""How batch statistics in a decoder fake a gain of up to log A nats: from ``batch_statistics.py``."""

import math
from pathlib import Path
from typing import Any

from _common import load
from _sections import Figure, Section, Table

NAMES = {
    "frozen": "frozen statistics",
    "batch": "batch statistics, batches of one component",
    "mixed": "batch statistics, batches of all components",
}


def section(results: Path) -> Section | None:
    """The section, from ``batch_statistics.json``."""
    found = load(results, "batch_statistics.json")
    if not found:
        return None
    (measured,) = found.values()
    ways: dict[str, dict[int, dict[str, Any]]] = {way: {} for way in NAMES}
    for run in measured["runs"]:
        ways[run["way"]][run["components"]] = run
    figure = Figure(
        "batch-statistics",
        "Mean bound minus log evidence, by number of components; the shift of the components is the best for "
        "each point. Nothing above zero is a bound. Dotted: the bound of one component, plus log A.",
        lambda canvas: _plot(canvas, ways),
    )
    return Section(
        "Batch statistics in a decoder fake a gain of log A",
        _findings(measured, ways),
        [figure, _table(ways)],
        [*found],
    )


def _gain(runs: dict[int, dict[str, Any]], num_components: int) -> float:
    return runs[num_components]["bound"] - runs[1]["bound"]


def _findings(measured: dict[str, Any], ways: dict[str, dict[int, dict[str, Any]]]) -> list[str]:
    most = max(ways["batch"])
    false, true, mixed = (_gain(ways[way], most) for way in ("batch", "frozen", "mixed"))
    above = ways["batch"][most]["above_evidence"]
    return [
        f"{measured['num_data']:,} simulated data of {measured['num_pixels']} binary pixels and "
        f"{measured['latent']} latent variables, whose log evidence is known "
        f"({measured['log_evidence']:.2f} nats a datum). Every datum has its Laplace approximation; "
        "component a shifts all of them by the same vector. Nothing is learnt, and no component is a better "
        "posterior than another.",
        f"**With batch statistics and batches encoded by one component, A={most} components gain {false:.2f} "
        f"nats** (log A = {math.log(most):.2f}): normalising takes the shift out again, so the likelihood "
        f"does not see it, and the components have come apart. The 'bound' is then {above:+.2f} nats from "
        f"the log evidence. With frozen statistics, where log p(x_i|z_i) depends on x_i and z_i alone, the "
        f"same components gain {true:.2f}; with batch statistics of batches that mix the components, "
        f"{mixed:.2f}.",
    ]


def _table(ways: dict[str, dict[int, dict[str, Any]]]) -> Table:
    rows = []
    for num_components in sorted(ways["batch"]):
        row = [str(num_components), f"{math.log(num_components):.2f}"]
        for way in NAMES:
            run = ways[way][num_components]
            row.append(f"{_gain(ways[way], num_components):.2f}")
            row.append(f"{run['above_evidence']:+.2f} ({run['standard_error']:.2f})")
        rows.append(row)
    columns = [
        part for name in NAMES.values() for part in (f"{name}: gain", "minus log evidence (standard error)")
    ]
    return Table(
        "Gain of the mean bound over one component, and mean bound minus log evidence; nats a datum.",
        ["A", "log A", *columns],
        rows,
    )


def _plot(canvas: Any, ways: dict[str, dict[int, dict[str, Any]]]) -> None:
    canvas.set_size_inches(6.5, 4.0)
    axes = canvas.subplots()
    for way, runs in ways.items():
        numbers = sorted(runs)
        axes.plot(numbers, [runs[a]["above_evidence"] for a in numbers], "o-", label=NAMES[way])
    numbers = sorted(ways["batch"])
    start = ways["batch"][1]["above_evidence"]
    axes.plot(numbers, [start + math.log(a) for a in numbers], "k:", label="one component + log A")
    axes.axhline(0.0, color="grey", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlabel("components, A")
    axes.set_ylabel("bound - log evidence, nats")
    axes.legend(fontsize=8)
