"""What value and all gradients cost under estimated models: from ``model_kernel.py``."""

from pathlib import Path
from typing import Any

from _common import load
from _sections import Section, Table

MAX_TIMES_JC = {"GTR+F": 2.2, "GTR+F+G4": 8.0}
"""Value and all gradients over those of JC69, in either precision on any data set."""

DTYPES = ("float64", "float32")


def section(results: Path) -> Section | None:
    """The section, from ``model_kernel/*.json``."""
    found = load(results, "model_kernel/*.json")
    if not found:
        return None
    measured = sorted(found.values(), key=lambda one: one["dataset"])
    return Section(
        "Kernels of estimated models",
        [_finding(model, measured) for model in MAX_TIMES_JC],
        [_times(measured, dtype) for dtype in DTYPES],
        [*found],
    )


def largest(measured: list[dict[str, Any]], model: str, dtype: str) -> float:
    """Largest multiple of JC69's time over the data sets."""
    return max(float(one["times_jc"][model][dtype]) for one in measured)


def _finding(model: str, measured: list[dict[str, Any]]) -> str:
    worst = {dtype: largest(measured, model, dtype) for dtype in DTYPES}
    limit = MAX_TIMES_JC[model]
    verdict = "met" if max(worst.values()) <= limit else "**missed**"
    each = " and ".join(f"{ratio:.2f} ({dtype})" for dtype, ratio in worst.items())
    return (
        f"{model}: value and all gradients cost at most {each} times those of JC69 over "
        f"{len(measured)} data sets; target {limit:.1f}: {verdict}."
    )


def _times(measured: list[dict[str, Any]], dtype: str) -> Table:
    models = list(measured[0]["times_jc"])
    rows = []
    for one in measured:
        times = {name: row["median"] for name, row in one["milliseconds"].items()}
        rows.append(
            [
                one["dataset"],
                f"{one['num_patterns']:,} ({one['num_merged_patterns']:,})",
                f"{times[f'JC {dtype}']:.2f}",
                *(
                    f"{times[f'{model} {dtype}']:.2f} ({one['times_jc'][model][dtype]:.2f}; "
                    f"{times[f'{model} {dtype}, kernel alone'] / times[f'JC {dtype}']:.2f})"
                    for model in models
                ),
            ]
        )
    return Table(
        f"{measured[0]['num_trees']} random trees with models of their own, {dtype}, one thread: distinct "
        "patterns (for JC69: up to relabelling), milliseconds for value and all gradients, medians of calls "
        "taken in turns, and in parentheses the multiple of JC69's, in all and of the compiled kernel alone.",
        ["", "patterns", "JC", *models],
        rows,
    )
