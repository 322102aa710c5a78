"""Seconds an epoch of MISVAE, and what components cost: from ``misvae.py``."""

from pathlib import Path
from statistics import median
from typing import Any

from _common import load
from _sections import Section, Table

MAX_EPOCH = 60.0
"""Seconds that an epoch of the default model may take, with two threads."""

MAX_RATIO = {"s2a": 1.25, "s2s": 1.05}
"""How many times as long as with one component an epoch may take, S=1."""


def section(results: Path) -> Section | None:
    """The section, from ``misvae.json``."""
    found = load(results, "misvae.json")
    if not found:
        return None
    (measured,) = found.values()
    parts = [_table(one) for one in measured["measured"]]
    return Section(
        "Seconds an epoch of MISVAE", [_findings(one) for one in measured["measured"]], parts, [*found]
    )


def _name(run: dict[str, Any]) -> str:
    mixture = (
        "A=1"
        if run["components"] == 1
        else f"{run['estimator'].upper()}, A={run['components']}, S={run['sampled']}"
    )
    return f"{mixture}, {run['decoder']} pixels"


def times_single(run: dict[str, Any], single: dict[str, Any]) -> float:
    """How many times as long a step takes: median of the quotients of steps taken one after the other."""
    pairs = zip(run["milliseconds"], single["milliseconds"], strict=True)
    return median(own / other for own, other in pairs)


def _findings(measured: dict[str, Any]) -> str:
    single, *others = measured["runs"]
    seconds = single["seconds_per_epoch"]
    texts = [
        f"**{measured['threads']} thread{'s' if measured['threads'] > 1 else ''}**: an epoch of the default "
        f"model ({single['steps_in_epoch']} steps of {single['batch_size']} images) takes {seconds:.0f} s"
        + (
            f", {'within' if seconds <= MAX_EPOCH else 'beyond'} the {MAX_EPOCH:.0f} s asked for"
            if measured["threads"] == 2
            else ""
        )
    ]
    for run in others:
        if run["decoder"] == single["decoder"]:
            ratio, most = times_single(run, single), MAX_RATIO[run["estimator"]]
            verdict = "met" if ratio <= most else "missed"
            texts.append(f"{_name(run)} takes {ratio:.2f} times as long (at most {most}: {verdict})")
    return "; ".join(texts) + "."


def _table(measured: dict[str, Any]) -> Table:
    single = measured["runs"][0]
    rows = [
        [
            _name(run),
            f"{run['num_parameters']:,}",
            f"{median(run['milliseconds']):.1f}",
            f"{min(run['milliseconds']):.1f}",
            f"{run['seconds_per_epoch']:.1f}",
            f"{times_single(run, single):.2f}",
        ]
        for run in measured["runs"]
    ]
    return Table(
        f"Training steps on MNIST, interleaved, {len(single['milliseconds'])} of each, "
        f"{measured['threads']} thread(s); seconds an epoch from the median.",
        ["model", "parameters", "ms / step, median", "fastest", "s / epoch", "times A=1"],
        rows,
    )
