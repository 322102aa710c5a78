"""Posteriors of topologies against golden ones, and clade probabilities against MrBayes' split tables.

From ``race.py``, ``topologies.py`` and ``datasets.py``.
"""

from pathlib import Path
from typing import Any

from _common import load
from _sections import Figure, Section, Table
from _splits import differences, listed

KINDS = ("raw", "refitted", "corrected")
MEASURES = {"total_variation": "total variation", "kl": "KL(golden ‖ q)", "coverage": "coverage"}
TARGETS = (0.03, 0.005)
"""Largest and mean difference of clade probabilities that are aimed at."""


def section(results: Path) -> Section | None:
    """The section, from ``race/ours``, ``race/chains``, ``topologies`` and ``datasets``."""
    race, defaults = load(results, "race/ours/*.json"), load(results, "datasets/*.json")
    clades, chains = load(results, "topologies/*.json"), load(results, "race/chains/*.json")
    golden = {
        path: run
        for path, run in {**race, **defaults}.items()
        if "total_variation" in run.get("agreement", {})
    }
    clades = {path: run for path, run in clades.items() if "total_variation" not in run.get("agreement", {})}
    parts: list[Table | Figure] = []
    text = []
    if golden:
        runs = sorted(golden.values(), key=lambda r: (r["dataset"], r["wall_seconds"]))
        parts += [_golden_table(runs), _golden_figure(runs)]
    own = {chain["dataset"]: chain for chain in chains.values() if "splits_against_table" in chain}
    if clades:
        runs = sorted(clades.values(), key=lambda r: (r["dataset"], r["seed"]))
        text.append(_clade_finding(runs))
        parts.append(_clade_table(runs, own))
    if not parts:
        return None
    text.append(
        "Trained, refitted: exact probabilities of the mixture. Corrected: importance-sampled. KL is over "
        "the covered topologies, the golden posterior renormalised there."
    )
    used_chains = [path for path, chain in chains.items() if clades and "splits_against_table" in chain]
    return Section("Topologies", text, parts, [*golden, *clades, *used_chains])


def _golden_table(runs: list[dict[str, Any]]) -> Table:
    rows = []
    for run in runs:
        agreement = run["agreement"]
        rows.append(
            [
                run["dataset"],
                f"{run['wall_seconds']:.0f}",
                str(run["seed"]),
                f"{run['result']['iterations']:,}",
                *(
                    " / ".join(_number(agreement[measure].get(kind), digits) for kind in KINDS)
                    for measure, digits in (("total_variation", 3), ("kl", 3), ("coverage", 4))
                ),
            ]
        )
    return Table(
        "Agreement with the golden posteriors, a row a run, trained / refitted / corrected; seconds of "
        "wall-clock from the prompt to all files.",
        ["", "s", "seed", "iterations", *MEASURES.values()],
        rows,
    )


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _golden_figure(runs: list[dict[str, Any]]) -> Figure:
    def draw(canvas: Any) -> None:
        canvas.set_size_inches(9.0, 3.4)
        names = sorted({run["dataset"] for run in runs})
        for panel, kind in zip(canvas.subplots(1, len(KINDS), sharey=True), KINDS, strict=True):
            for name in names:
                points = [
                    (run["wall_seconds"], value)
                    for run in runs
                    if run["dataset"] == name
                    and (value := run["agreement"]["total_variation"].get(kind)) is not None
                ]
                if points:
                    panel.plot(*zip(*points, strict=True), "o", ms=4, label=name)
            panel.set_xscale("log")
            panel.set_yscale("log")
            panel.set_title(kind)
            panel.set_xlabel("wall-clock seconds")
            panel.grid(visible=True, which="both", alpha=0.2)
        canvas.axes[0].set_ylabel("total variation")
        canvas.axes[0].legend(fontsize=8)
        canvas.tight_layout()

    return Figure(
        "topologies",
        "Total variation to the golden posterior against wall-clock seconds, each dot one run: as trained "
        "(raw), refitted, corrected.",
        draw,
    )


def _clade_finding(runs: list[dict[str, Any]]) -> str:
    within = [
        run
        for run in runs
        if run["agreement"]["splits"]["maximum"] <= TARGETS[0]
        and run["agreement"]["splits"]["mean"] <= TARGETS[1]
    ]
    missed = ", ".join(f"{run['dataset']} seed {run['seed']}" for run in runs if run not in within)
    return (
        f"Clade probabilities are within {TARGETS[0]} of MrBayes' at most and {TARGETS[1]} on average in "
        f"{len(within)} of {len(runs)} runs{f'; not in {missed}' if missed else ''}."
    )


def _clade_table(runs: list[dict[str, Any]], chains: dict[str, dict[str, Any]]) -> Table:
    rows = []
    for run in runs:
        chain = chains.get(run["dataset"])
        against = differences(run["splits"], listed(chain["splits"])) if chain else None
        rows.append(
            [
                run["dataset"],
                str(run["seed"]),
                f"{run['wall_seconds']:.0f}",
                _pair(run["agreement"]["splits"]),
                _pair(against),
                _pair(chain and chain["splits_against_table"]),
                _pair(chain and chain["splits_between_runs"]),
                f"{chain['generations']:,}" if chain else "-",
            ]
        )
    return Table(
        "Differences of clade probabilities, largest / mean, over the clades that MrBayes gives at least "
        "0.1. Ours: corrected. Table: two runs of 2,000,000 generations. Chains: two runs of our own.",
        [
            "",
            "seed",
            "s",
            "ours and table",
            "ours and chains",
            "chains and table",
            "chain and chain",
            "generations of the chains",
        ],
        rows,
    )


def _pair(found: dict[str, float] | None) -> str:
    return f"{found['maximum']:.3f} / {found['mean']:.4f}" if found else "-"
