"""Training with hundreds of taxa: from ``large.py``."""

from pathlib import Path
from typing import Any

from _common import load
from _sections import Figure, Section, Table

TARGET_GIB = 4.0
TRAINED = (250, 1000)


def section(results: Path) -> Section | None:
    """The section, from ``large/*.json``."""
    found = load(results, "large/taxa*.json")
    if not found:
        return None
    runs = sorted(found.values(), key=lambda run: run["num_taxa"])
    trained = [run for run in runs if run["num_taxa"] in TRAINED]
    parts: list[Table | Figure] = [_table(runs)]
    if trained:
        parts.append(
            Figure(
                "large-traces",
                "The bound, as the mean over the steps between reports, where the inverse temperature is 1; "
                "dashed, its mean over the last tenth of the run.",
                lambda figure: _draw(figure, trained),
            )
        )
    return Section("Hundreds of taxa", [*map(_finding, trained), _linearity(runs)], parts, [*found])


def _finding(run: dict[str, Any]) -> str:
    memory = run["peak_memory_gib"]
    return (
        f"{run['num_taxa']:,} taxa, {run['num_sites']:,} sites: {run['iterations']:,} steps in "
        f"{run['training_seconds']:.0f} s after {run['set_up_seconds']:.0f} s of setting up, with at most "
        f"{memory:.2f} GiB (target below {TARGET_GIB:.0f}: "
        f"{'met' if memory < TARGET_GIB else '**missed**'}). The bound ends at {run['final_bound']:,.1f} "
        f"nats, with a standard deviation of {run['std_at_the_end']:.2f} between reports and a rise of "
        f"{run['rise_at_the_end']:.2f} between the halves of the last tenth of the run."
    )


def _linearity(runs: list[dict[str, Any]]) -> str:
    per_taxon = [1e3 * run["milliseconds_per_iteration"] / run["num_taxa"] for run in runs]
    each = ", ".join(f"{run['num_taxa']:,}: {us:.0f}" for run, us in zip(runs, per_taxon, strict=True))
    return (
        f"Microseconds of a step per taxon, by number of taxa: {each}; equal figures mean linear cost. The "
        "support comes from the simulated tree and the ends of random walks of nearest-neighbour "
        "interchanges from it, so this says nothing about finding an unknown tree."
    )


def _table(runs: list[dict[str, Any]]) -> Table:
    return Table(
        "Alignments simulated under JC69, trained through the Python interface with "
        f"{runs[0]['threads']} threads and a {runs[0]['dtype']} likelihood, ten particles a step; each in a "
        "process of its own. Set-up: support, start of the networks, loading of compiled code.",
        ["taxa", "support trees", "steps", "ms a step", "set-up s", "training s", "CPU s", "peak GiB"],
        [
            [
                f"{run['num_taxa']:,}",
                f"{run['num_support_trees']:,}",
                f"{run['iterations']:,}",
                f"{run['milliseconds_per_iteration']:.1f}",
                f"{run['set_up_seconds']:.1f}",
                f"{run['training_seconds']:.0f}",
                f"{run['cpu_seconds']:.0f}",
                f"{run['peak_memory_gib']:.2f}",
            ]
            for run in runs
        ],
    )


def _draw(figure: Any, runs: list[dict[str, Any]]) -> None:
    figure.set_size_inches(9, 3.6)
    for axis, run in zip(figure.subplots(1, len(runs), squeeze=False)[0], runs, strict=True):
        points = [point for point in run["trace"] if point["inverse_temperature"] >= 1.0]
        above = [point["bound"] - run["final_bound"] for point in points]
        axis.plot([point["step"] for point in points], above)
        axis.axhline(0.0, color="grey", linestyle="--")
        axis.set_title(f"{run['num_taxa']:,} taxa")
        axis.set_xlabel("step")
        axis.set_ylabel("bound less final bound, nats")
    figure.tight_layout()
