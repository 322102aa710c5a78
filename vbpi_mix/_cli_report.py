"""Results as text for people."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vbpi_mix._cli_progress import duration
from vbpi_mix.results.diagnostics import PARETO_K_GOOD
from vbpi_mix.results.result import Estimates, RunResult, Summary, SupportGrowth
from vbpi_mix.results.run_directory import RunDirectory


def run_report(result: RunResult, out: Path) -> str:
    """Summary of a run and where its files are."""
    seconds = result.seconds
    directory = RunDirectory(out)
    files = (
        directory.report,
        directory.result,
        directory.posterior_trees,
        directory.topology_probabilities,
        directory.consensus,
    )
    return "\n".join(
        [
            *([result.verdict] if result.verdict else []),
            estimates_report(result),
            *_member_lines(result),
            f"substitution model         {result.provenance.model}",
            *([growth_report(result.support_growth)] if result.support_growth is not None else []),
            f"time                       {duration(seconds.support)} support, "
            f"{duration(seconds.training)} training ({result.iterations:,} iterations of "
            f"{result.ms_per_iteration:.2f} ms), {duration(seconds.evaluation)} evaluation",
            "files                      " + ", ".join(str(file) for file in files if file.exists()),
        ]
    )


def estimates_report(estimates: Estimates) -> str:
    """Marginal likelihood, bounds and diagnostics, with a judgement of the latter."""
    marginal = estimates.marginal_log_likelihood
    topologies = estimates.topologies
    lines = [
        f"log marginal likelihood    {marginal.mean:.3f} (standard deviation {marginal.std:.3f} over "
        f"{marginal.num_repeats} repeats of {marginal.evaluations_per_repeat} samples)",
        f"  pooled over all draws    {marginal.pooled:.3f} (standard error {marginal.standard_error:.3f})",
        f"lower bounds               {estimates.lower_bound_1:.3f} (1 sample), "
        f"{estimates.lower_bound_10:.3f} (10 samples)",
        f"effective sample size      {estimates.ess:,.0f} of {estimates.num_draws:,} draws "
        f"({estimates.ess_percent:.1f}%)",
        f"Pareto k-hat               {_judged(estimates.pareto_k)}",
        f"topologies                 {topologies.distinct:,} drawn, holding "
        f"{100 * topologies.drawn_mass:.2f}% of the mixture; posterior {topologies.correction.value}",
    ]
    lines.append(f"tree length                {_summary(estimates.tree_length)}")
    lines += [f"{name:<26} {_summary(parameter)}" for name, parameter in estimates.model.items()]
    shares = estimates.components.weight_share
    if len(shares) > 1:
        lines.append(
            f"components                 {len(shares)}, weight shares {100 * min(shares):.1f}% to "
            f"{100 * max(shares):.1f}%, Jensen-Shannon divergence {estimates.jensen_shannon:.3f}"
        )
    return "\n".join(lines)


def _member_lines(result: RunResult) -> list[str]:
    """A line for each of several runs."""
    return [
        f"{member.directory:<26} seed {member.seed}: log marginal likelihood "
        f"{member.log_marginal_likelihood:.3f} (standard error {member.standard_error:.3f}), "
        f"effective sample size {member.ess:,.0f}, Pareto k-hat "
        + ("none" if member.pareto_k is None else f"{member.pareto_k:.2f}")
        for member in result.runs
    ]


def growth_report(growth: SupportGrowth) -> str:
    """What the check of the support has found, and by how much the support has grown."""
    left = f"estimated posterior mass just outside {100 * growth.mass_outside:.3g}%"
    if not growth.is_enough:
        left += " (NOT little: clades may be missing; give more trees with --support)"
    if not growth.rounds:
        return f"support                    {left}"
    topologies = sum(one.num_topologies for one in growth.rounds)
    parameters = sum(one.num_parameters for one in growth.rounds)
    return (
        f"support                    grown in {len(growth.rounds)} round(s) by {topologies:,} topologies and "
        f"{parameters:,} parameters; {left}, {100 * growth.rounds[0].mass_outside:.3g}% before"
    )


def likelihood_report(result: dict[str, Any]) -> str:
    """Log-likelihood, and a line for each branch where there are derivatives."""
    lines = [f"{result['log_likelihood']:.6f}"]
    if "gradient" in result:
        lines.append("derivative\tlength\ttaxa")
        for derivative, branch in zip(result["gradient"], result["branches"], strict=True):
            lines.append(f"{derivative:.6f}\t{branch['length']:.6g}\t{','.join(branch['taxa'])}")
    return "\n".join(lines)


def comparison_report(result: dict[str, Any]) -> str:
    """One line for each version of the run's posterior."""
    rows: list[Sequence[str]] = [("", "coverage", "KL (covered)", "total variation")]
    for name in ("raw", "refitted", "corrected"):
        values = [result[measure][name] for measure in ("coverage", "kl", "total_variation")]
        rows.append((name, *("-" if value is None else f"{value:.5f}" for value in values)))
    lines = [_table(rows), *result["notes"]]
    if result["splits"] is not None:
        splits = result["splits"]
        lines.append(
            f"split probabilities, corrected: largest difference {splits['maximum']:.4f}, "
            f"mean {splits['mean']:.4f} over {splits['num_splits']} splits of probability 0.1 or more"
        )
    return "\n".join(lines)


def datasets_report(content: list[dict[str, Any]]) -> str:
    """A table of the bundled data sets."""
    rows: list[Sequence[str]] = [("name", "taxa", "sites", "patterns", "support trees", "TreeBASE", "source")]
    for entry in content:
        rows.append(
            (
                entry["name"],
                str(entry["num_taxa"]),
                str(entry["num_sites"]),
                str(entry["num_patterns"]),
                f"{entry['num_support_trees']:,}",
                entry["treebase_id"],
                entry["citation"].split(".")[0],
            )
        )
    return _table(rows)


def _summary(one: Summary) -> str:
    """Mean, deviation and interval of a parameter."""
    low, high = one.hpd95
    return f"{one.mean:.4g} (standard deviation {one.sd:.2g}, 95% HPD {low:.4g} to {high:.4g})"


def _judged(pareto_k: float | None) -> str:
    """k-hat and what it means."""
    if pareto_k is None:
        return "none: all weights are equal, or there are too few draws"
    if pareto_k < PARETO_K_GOOD:
        return f"{pareto_k:.2f} (good: below {PARETO_K_GOOD})"
    return (
        f"{pareto_k:.2f} (NOT below {PARETO_K_GOOD}: a few draws dominate, do not rely on these figures; "
        "train longer, or with more components)"
    )


def _table(rows: list[Sequence[str]]) -> str:
    """Rows with columns aligned to the left."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
