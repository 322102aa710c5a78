"""What each way to make a support's trees covers, and costs: from ``support_routes.py``."""

from pathlib import Path
from typing import Any

from _common import load
from _sections import Section, Table

ROUTES = ("bundled", "iqtree", "piqtree", "neighbour-joining")
"""Routes in the order in which a run would take them."""

MIN_COVERAGE = 0.99
"""Least golden probability that a support is to hold."""


def section(results: Path) -> Section | None:
    """The section, from ``support_routes/*.json``."""
    found = load(results, "support_routes/*.json")
    if not found:
        return None
    measured = sorted(found.values(), key=lambda one: (one["dataset"], ROUTES.index(one["route"])))
    whole = [one for one in measured if not one["is_spoilt"]]
    grown = [one for one in measured if one["grown"] is not None]
    parts = [_routes(whole)] if whole else []
    if grown:
        parts.append(_growth(grown))
    return Section("Where the support's trees come from", _findings(whole, grown), parts, [*found])


def _percent(share: float) -> str:
    """A share in percent."""
    return f"{100 * share:.2f}%"


def _findings(measured: list[dict[str, Any]], grown: list[dict[str, Any]]) -> list[str]:
    """The least that each route covers, and what growth makes of the worst support."""
    text = []
    for route in ROUTES:
        own = [one for one in measured if one["route"] == route]
        if own:
            worst = min(own, key=lambda one: one["coverage"])
            text.append(
                f"Route {route}: supports cover {_percent(worst['coverage'])} of the golden posterior or "
                f"more ({worst['dataset']} least) over {len(own)} data sets."
            )
    if grown:
        worst = min(grown, key=lambda one: one["coverage"])
        text.append(
            f"A support of {worst['dataset']} by route {_name(worst)} grows from "
            f"{_percent(worst['coverage'])} to {_percent(worst['grown']['coverage'])}."
        )
    return text


def _name(one: dict[str, Any]) -> str:
    """Name of the route, and whether its trees are all there."""
    return one["route"] + (", spoilt" if one["is_spoilt"] else "")


def _routes(measured: list[dict[str, Any]]) -> Table:
    """Size, cost and coverage of every route."""
    rows = [
        [
            one["dataset"],
            one["route"],
            f"{one['num_topologies']:,}",
            f"{one['num_parameters']:,}",
            _percent(one["coverage_of_trees"]),
            _percent(one["coverage"]),
            f"{one['processor_seconds']:.1f}",
            f"{one['seconds']:.1f}",
        ]
        for one in measured
    ]
    return Table(
        "Trees by each route, one seed and one thread each: distinct topologies, the support's parameters, "
        "golden probability of the topologies among the trees and in the support, and the processor and "
        "wall-clock time to make the trees (read them, where bundled).",
        ["", "route", "topologies", "parameters", "trees cover", "support covers", "s: processor", "s: wall"],
        rows,
    )


def _growth(grown: list[dict[str, Any]]) -> Table:
    """What training with growth has made of some of these supports."""
    rows = []
    for one in grown:
        after, growth = one["grown"], one["grown"]["support_growth"]
        first = growth["rounds"][0]["mass_outside"] if growth["rounds"] else growth["mass_outside"]
        rows.append(
            [
                one["dataset"],
                _name(one),
                str(len(growth["rounds"])),
                f"{after['num_topologies'] - one['num_topologies']:,}",
                f"{after['num_parameters'] - one['num_parameters']:,}",
                f"{100 * first:.2g}%",
                f"{100 * growth['mass_outside']:.2g}%",
                _percent(one["coverage"]),
                _percent(after["coverage"]),
            ]
        )
    return Table(
        "Supports after training with growth, one seed each (spoilt: without the trees that have the least "
        "probable split of the best topology): what was added, the posterior mass "
        "estimated just outside the support before and after, and the golden probability that it covers.",
        ["", "route", "rounds", "topologies", "parameters", "outside before", "after", "covers", "then"],
        rows,
    )
