"""Tables from the JSON files in ``results/``: the only source of figures in README and docs.

Writes ``results/REPORT.md`` and the part of README.md between the lines ``<!-- measured -->``. Published
figures stand beside ours where ``VBPI_MIX_REFERENCE`` holds ``published.csv``.

    python benchmarks/report.py
"""

import csv
import json
import os
from pathlib import Path
from statistics import median
from typing import Any

from _common import RESULTS

MARK = "<!-- measured -->"
PUBLISHED_METHODS = ("MrBayes stepping stone", "VBPI (PSP)", "VBPI-GNN (EDGE)")


def load(pattern: str) -> list[dict[str, Any]]:
    """Contents of the result files that match, in the order of their names."""
    return [json.loads(path.read_text()) for path in sorted(RESULTS.glob(pattern))]


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def published() -> dict[tuple[str, str, str], str]:
    """Published marginal log-likelihoods and their standard deviations by (quantity, method, data set)."""
    path = Path(os.environ.get("VBPI_MIX_REFERENCE", "")) / "published.csv"
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8") as file:
        return {
            (row["quantity"], row["method"], name): row[name]
            for row in csv.DictReader(file)
            for name in row
            if name.startswith("DS") and row[name]
        }


def evidence_table(runs: list[dict[str, Any]]) -> str:
    """Marginal likelihoods beside published ones."""
    known = published()
    methods = [m for m in PUBLISHED_METHODS if ("log_marginal_likelihood", m, "DS1") in known]
    rows = []
    for run in runs:
        ml, name = run["result"]["marginal_log_likelihood"], run["dataset"]
        theirs = [
            f"{known['log_marginal_likelihood', m, name]} ({known['log_marginal_likelihood_std', m, name]})"
            for m in methods
        ]
        rows.append(
            [
                name,
                f"{ml['mean']:.2f} ({ml['std']:.3f})",
                f"{ml['pooled']:.3f} ± {ml['standard_error']:.3f}",
                f"{run['result']['lower_bound_1']:.2f}",
                f"{run['result']['lower_bound_10']:.2f}",
                *theirs,
            ]
        )
    return table(["", "log ML (std)", "pooled ± s.e.", "LB-1", "LB-10", *methods], rows)


def diagnostics_table(runs: list[dict[str, Any]]) -> str:
    """Trust and cost of every run."""
    rows = []
    for run in runs:
        result = run["result"]
        seconds = result["seconds"]
        rows.append(
            [
                run["dataset"],
                f"{result['pareto_k']:.2f}",
                f"{result['ess_percent']:.1f}",
                f"{result['refit']}",
                f"{result['ms_per_iteration']:.2f}",
                f"{seconds['support']:.1f} / {seconds['training']:.0f} / {seconds['evaluation']:.0f}",
                f"{run['wall_seconds']:.0f}",
                f"{run['peak_memory_gib']:.2f}",
            ]
        )
    return table(
        [
            "",
            "k-hat",
            "ESS %",
            "refit",
            "ms / iteration",
            "s: support / training / evaluation",
            "s in all",
            "GiB",
        ],
        rows,
    )


def agreement_table(runs: list[dict[str, Any]]) -> str:
    """Agreement with reference posteriors of topologies, and of splits."""
    rows = []
    for run in runs:
        if "agreement" not in run:
            continue
        agreement = run["agreement"]
        splits = agreement.get("splits") or {}

        def three(quantity: str, digits: int, agreement: dict[str, Any] = agreement) -> str:
            values = agreement.get(quantity) or {}
            return " / ".join(
                f"{values[kind]:.{digits}f}" for kind in ("raw", "refitted", "corrected") if kind in values
            )

        rows.append(
            [
                run["dataset"],
                agreement["reference"],
                three("total_variation", 3) or "-",
                three("kl", 3) or "-",
                three("coverage", 4) or "-",
                f"{splits['maximum']:.3f} / {splits['mean']:.4f}" if splits else "-",
            ]
        )
    return table(
        [
            "",
            "reference",
            "total variation",
            "KL(reference ‖ q)",
            "coverage",
            "splits, corrected: max / mean difference",
        ],
        rows,
    )


def speed_section() -> str:
    """Iteration, support and start-up times."""
    parts = []
    iterations = load("iteration/*.json")
    if iterations:
        rows = [
            [
                r["dataset"],
                f"{r['mixture']['estimator']}, A={r['mixture']['components']}, S={r['mixture']['sampled']}",
                f"{r['milliseconds']['median']:.2f}",
                " ".join(f"{m:.2f}" for m in sorted(r["milliseconds"]["medians_of_passes"])),
                f"{r['milliseconds']['min']:.2f}",
                f"{r['breakdown_microseconds']['likelihood + gradient'] / 1e3:.2f}",
                str(r["steps"]),
            ]
            for r in iterations
        ]
        parts.append(
            "## An iteration, one thread, K = 10, milliseconds\n\n"
            + table(
                [
                    "",
                    "",
                    "median",
                    "medians of the passes",
                    "fastest",
                    "of it likelihood + gradient (median)",
                    "steps timed",
                ],
                rows,
            )
        )
    for r in load("support/*.json"):
        parts.append(
            f"## Support\n\n{r['num_trees']:,} {r['dataset']} trees "
            f"({r['file_megabytes']:.0f} MB of Newick), file "
            f"to tables: median {median(r['read_seconds']):.2f} s reading and "
            f"{median(r['build_seconds']):.2f} s "
            f"building, {len(r['read_seconds'])} repeats; {r['num_topologies']:,} topologies, "
            f"{r['num_parameters']:,} parameters.\n"
        )
    for r in load("startup.json"):
        parts.append(
            f"## Start-up\n\n`vbpi-mix --help`: median {median(r['help_seconds']):.2f} s of "
            f"{len(r['help_seconds'])}; `vbpi-mix run --help`: "
            f"{median(r['run_help_seconds']):.2f} s. First run of "
            f"DS1 with an empty cache of compiled code, to all files: "
            f"{r['first_run_seconds']:.0f} s; the next: "
            f"{r['second_run_seconds']:.0f} s.\n"
        )
    return "\n".join(parts)


def summary(runs: list[dict[str, Any]]) -> str:
    """What README quotes."""
    rows = []
    for run in runs:
        result, agreement = run["result"], run.get("agreement", {})
        ml = result["marginal_log_likelihood"]
        if "total_variation" in agreement:
            agrees = f"total variation {agreement['total_variation']['corrected']:.3f}"
        elif agreement.get("splits"):
            agrees = (
                f"splits: max {agreement['splits']['maximum']:.3f}, mean {agreement['splits']['mean']:.4f}"
            )
        else:
            agrees = "-"
        rows.append(
            [
                run["dataset"],
                str(result["provenance"]["num_taxa"]),
                f"{ml['mean']:.2f} ({ml['std']:.3f})",
                f"{result['pareto_k']:.2f}",
                agrees,
                f"{run['wall_seconds']:.0f}",
                f"{run['peak_memory_gib']:.2f}",
            ]
        )
    header = [
        "",
        "taxa",
        "log marginal likelihood (std)",
        "k-hat",
        "corrected, against MrBayes",
        "seconds",
        "GiB",
    ]
    machine = runs[0]["provenance"]["machine"]
    text = (
        "`vbpi-mix run --dataset DSn` with default settings, one run each, "
        f"seed {runs[0]['seed']}, one thread ({machine['processor']}, shared with others); "
        "seconds from prompt to all files:\n\n" + table(header, rows)
    )
    for r in load("iteration/DS1.a2a.A1.S1.json"):
        text += (
            "\nAn iteration on DS1 (one component, ten particles, one thread) takes "
            f"{r['milliseconds']['median']:.2f} ms: the median of {r['steps']:,} in passes between "
            f"{min(r['milliseconds']['medians_of_passes']):.2f} and "
            f"{max(r['milliseconds']['medians_of_passes']):.2f} ms, the machine being shared.\n"
        )
    return text


def update_readme(text: str) -> None:
    """Put the summary between the two marks of README.md."""
    path = RESULTS.parent.parent / "README.md"
    before, _, after = path.read_text(encoding="utf-8").split(MARK)
    path.write_text(f"{before}{MARK}\n{text}{MARK}{after}", encoding="utf-8")


def main() -> None:
    """Write the report."""
    runs = load("datasets/*.json")
    made = runs[0]["provenance"] if runs else {}
    seeds = sorted({run["seed"] for run in runs})
    commits = sorted({run["provenance"]["commit"] for run in runs})
    text = [
        "# Measured\n",
        "Generated by `benchmarks/report.py` from the JSON files beside it; nothing here is typed by hand.\n",
    ]
    if runs:
        machine = made["machine"]
        text += [
            f"Machine: {machine['processor']}, {machine['cores']} cores, "
            f"{machine['memory_gib']} GiB, shared with "
            f"others. Commits {', '.join(commits)}.\n",
            f"## DS1 to DS8, one run each (seed {', '.join(map(str, seeds))}), "
            f"default settings, one thread\n",
            "Log marginal likelihood in nats: mean (standard deviation) over 100 "
            "repeats of the bound with 1,000 "
            "likelihood evaluations, all draws pooled, and lower bounds. Published figures beside, as "
            "reprinted in the literature.\n",
            evidence_table(runs),
            diagnostics_table(runs),
            "Agreement with other posteriors: of the trained mixture, the refitted mixture and the "
            "importance-corrected probabilities. DS1 to DS4 against long MrBayes "
            "runs (topologies); DS5 to DS8 "
            "against split frequencies of two MrBayes runs, which differ from each other by about 0.01.\n",
            agreement_table(runs),
        ]
    ten = load("ten_replicates/*.json")
    if ten:
        text += [
            "## The same with ten bootstrap replicates in the support, not one\n",
            "Where data leave many topologies open, one replicate misses some.\n",
            evidence_table(ten),
            diagnostics_table(ten),
            agreement_table(ten),
        ]
    text.append(speed_section())
    (RESULTS / "REPORT.md").write_text("\n".join(text), encoding="utf-8")
    print(RESULTS / "REPORT.md")
    if runs:
        update_readme(summary(runs))


if __name__ == "__main__":
    main()
