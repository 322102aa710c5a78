"""Whether to believe a result: criteria, each with a threshold, and the verdict that they add up to.

Of every run: whether training came to its end, and whether the bound still climbed then; the shape k-hat of
the tail of the importance weights, and their effective sample size. Of several runs together: the average
standard deviation of their split frequencies (ASDSF), and the differences of their estimates of the marginal
likelihood. Runs of different seeds share the data and the support, and nothing else.

ASDSF is MrBayes': over the splits whose frequency is at least ``MIN_FREQUENCY`` in one run or more, the mean
of the standard deviation (divisor runs - 1) of the split's frequencies. The splits that cut off a single
taxon are in every tree and are left out.

The rise of a bound is that of a straight line through the reports of the last tenth of training, over that
tenth, with its standard error from the residuals.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from vbpi_mix.results.comparison import inner_splits
from vbpi_mix.results.diagnostics import PARETO_K_GOOD, Reliability
from vbpi_mix.trees.summaries import SplitTable

MAX_ASDSF = 0.01
"""Largest ASDSF: MrBayes' manual takes 0.01 as very good."""

MIN_FREQUENCY = 0.1
"""Splits that are rarer in all runs do not count for the ASDSF: MrBayes' default."""

MIN_ESS = 400.0
"""Least effective sample size of a run's draws: the standard error of a probability is then 0.025 at most."""

MAX_RISE = 0.1
"""Largest certain rise of the bound in the last tenth of training, in nats."""

MIN_REPORTS = 8
"""Reports that a line through the bound needs; with fewer, nothing is said of it."""

MAX_EVIDENCE_DIFFERENCE = 0.1
"""Largest difference of log marginal likelihoods in nats: a factor of 1.1, too little for any
Bayes factor. More is no disagreement within ``STANDARD_ERRORS`` standard errors of the difference."""

STANDARD_ERRORS = 3.0
"""Standard errors within which estimates are taken to agree."""


class Criterion(BaseModel):
    """One thing that is looked at."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    """Short name, as in ``docs/diagnostics.md``."""
    value: float | None
    """What was found, of several runs the worst; None where it cannot be known."""
    threshold: float
    """What it is compared with."""
    passed: bool | None
    """Whether it is good enough; None where it cannot be known."""
    reason: str
    """What was found, in words."""
    cure: str
    """What to do if it is not good enough; alternatives are joined by "or"."""


@dataclass(frozen=True)
class Verdict:
    """What the criteria say together.

    Attributes:
        converged: Whether all criteria are met; None where they are, as far as a single run can tell.
        line: The verdict in words, with its reason.
        criteria: What it rests on.
    """

    converged: bool | None
    line: str
    criteria: tuple[Criterion, ...]

    @property
    def asks_for_training(self) -> bool:
        """Whether a criterion is not met that further training may help."""
        return any(c.passed is False and c.name not in ("training", "support") for c in self.criteria)


@dataclass(frozen=True)
class RunEvidence:
    """What one run brings to the verdict.

    Attributes:
        pareto_k: Shape of the weights' tail; None where all weights are equal, or draws are too few.
        ess: Effective sample size of its draws.
        log_marginal: Log marginal likelihood, pooled over all draws, in nats.
        standard_error: Of that.
        rise: Rise of the bound at the end of training and its standard error, in nats; None if unknown.
        trained: Share of the planned iterations that were done: below 1 where time ran out.
        outside: Estimated posterior probability just outside the support, and how much is tolerated there;
            None where that was not looked at.
        splits: Split frequencies of its posterior; None where it is the only run.
    """

    pareto_k: float | None
    ess: float
    log_marginal: float
    standard_error: float
    rise: tuple[float, float] | None
    trained: float = 1.0
    outside: tuple[float, float] | None = None
    splits: SplitTable | None = None


def judge(runs: Sequence[RunEvidence], together: Reliability | None = None) -> Verdict:
    """The verdict on one run or several.

    Args:
        runs: What each brings.
        together: Reliability of fresh draws from all of them, once there are such. Runs that stop drawing
            when they have enough may have been lucky.
    """
    criteria = [_training(runs), _bound(runs), _pareto_k(runs, together), _ess(runs, together)]
    tables = [run.splits for run in runs if run.splits is not None]
    if len(runs) > 1:
        criteria += [_asdsf(tables), _evidence(runs)]
    if any(run.outside is not None for run in runs):
        criteria.append(_support(runs))
    failed = [criterion for criterion in criteria if criterion.passed is False]
    if failed:
        cures = dict.fromkeys(cure for criterion in failed for cure in criterion.cure.split(" or "))
        line = f"converged: no - {'; '.join(c.reason for c in failed)}: {' or '.join(cures)}"
        return Verdict(False, line, tuple(criteria))
    known = ", ".join(criterion.reason for criterion in criteria if criterion.passed is not None)
    if len(runs) == 1:
        line = f"converged: unknown - one run cannot show agreement (--runs 2 can); {known}"
        return Verdict(None, line, tuple(criteria))
    return Verdict(True, f"converged: yes - {known}", tuple(criteria))


def average_standard_deviation(tables: Sequence[SplitTable], minimum: float = MIN_FREQUENCY) -> float:
    """ASDSF of two runs or more; 0 where no inner split is frequent enough.

    Args:
        tables: Split frequencies of each run, of the same taxa in the same order.
        minimum: Least frequency, in one run or more, of a split that counts.
    """
    frequencies = [inner_splits(table) for table in tables]
    masks = {mask for of_run in frequencies for mask, p in of_run.items() if p >= minimum}
    if not masks:
        return 0.0
    deviations = [np.std([of_run.get(mask, 0.0) for of_run in frequencies], ddof=1) for mask in masks]
    return math.fsum(deviations) / len(deviations)


def bound_rise(records: Sequence[dict[str, Any]]) -> tuple[float, float] | None:
    """Rise of the bound over the last tenth of training and its standard error, in nats.

    Args:
        records: Reports of training, in order, as in ``metrics.jsonl``.

    Returns:
        None where fewer than ``MIN_REPORTS`` of these are at full inverse temperature.
    """
    if not records:
        return None
    start = 0.9 * records[-1]["iteration"]
    last = [r for r in records if r["iteration"] > start and r["inverse_temperature"] == 1.0]
    if len(last) < MIN_REPORTS:
        return None
    step = np.array([record["iteration"] for record in last], float)
    bound = np.array([record["bound"] for record in last])
    share = (step - step.mean()) / (step[-1] - step[0])
    rise = float(share @ bound / (share @ share))
    residual = bound - bound.mean() - rise * share
    return rise, float(np.sqrt(residual @ residual / (len(last) - 2) / (share @ share)))


def _training(runs: Sequence[RunEvidence]) -> Criterion:
    """Whether training came to its end."""
    value = min(run.trained for run in runs)
    passed = value >= 1
    return Criterion(
        name="training",
        value=value,
        threshold=1.0,
        passed=passed,
        reason="training complete" if passed else f"time ran out after {100 * value:.0f}% of training",
        cure="give more time (--budget)",
    )


def _pareto_k(runs: Sequence[RunEvidence], together: Reliability | None) -> Criterion:
    """The tails of the importance weights, of each run and of all draws together."""
    each = [run.pareto_k for run in runs] + ([] if together is None else [together.pareto_k])
    known = [k for k in each if k is not None]
    worst = max(known) if known else None
    passed = None if worst is None else worst < PARETO_K_GOOD
    found = "no k-hat" if worst is None else f"k-hat {worst:.2f}"
    return Criterion(
        name="pareto_k",
        value=worst,
        threshold=PARETO_K_GOOD,
        passed=passed,
        reason=f"{found} is not below {PARETO_K_GOOD}, so a few draws dominate" if passed is False else found,
        cure="train longer (--iterations) or add components (--components)",
    )


def _ess(runs: Sequence[RunEvidence], together: Reliability | None) -> Criterion:
    """The effective sample sizes, of each run and of all draws together."""
    least = min(run.ess for run in runs)
    if together is not None:
        least = min(least, together.ess)
    passed = least >= MIN_ESS
    return Criterion(
        name="ess",
        value=least,
        threshold=MIN_ESS,
        passed=passed,
        reason=f"effective sample size {least:,.0f}" + ("" if passed else f" is below {MIN_ESS:.0f}"),
        cure="train longer (--iterations) or draw more (--repeats)",
    )


def _bound(runs: Sequence[RunEvidence]) -> Criterion:
    """The ends of training: the run whose bound climbs most for certain."""
    rises = [run.rise for run in runs if run.rise is not None]
    if len(rises) < len(runs):
        rise = error = None
    else:
        rise, error = max(rises, key=lambda pair: pair[0] - 2 * pair[1])
    passed = None if rise is None or error is None else rise - 2 * error <= MAX_RISE
    if passed is None:
        reason = "too few reports at the end of training to see whether the bound was flat"
    elif passed:
        reason = "flat bound"
    else:
        reason = f"the bound rose by {rise:.2f} nats in the last tenth of training"
    return Criterion(
        name="bound", value=rise, threshold=MAX_RISE, passed=passed, reason=reason,
        cure="train longer (--iterations)",
    )  # fmt: skip


def _support(runs: Sequence[RunEvidence]) -> Criterion:
    """What lies just outside the support of the run where that is most, beside what is tolerated."""
    known = [run.outside for run in runs if run.outside is not None]
    mass, threshold = max(known, key=lambda pair: pair[0] - pair[1])
    passed = mass <= threshold
    return Criterion(
        name="support",
        value=mass,
        threshold=threshold,
        passed=passed,
        reason=f"{100 * mass:.3g}% of the posterior just outside the support"
        + ("" if passed else f", more than {100 * threshold:.3g}%"),
        cure="give trees that hold more of it (--support)",
    )


def _asdsf(tables: Sequence[SplitTable]) -> Criterion:
    """The agreement about splits."""
    value = average_standard_deviation(tables)
    passed = value <= MAX_ASDSF
    return Criterion(
        name="asdsf",
        value=value,
        threshold=MAX_ASDSF,
        passed=passed,
        reason=f"ASDSF {value:.4f}"
        if passed
        else f"the runs disagree about clades (ASDSF {value:.3f} > {MAX_ASDSF})",
        cure="train longer (--iterations) or add components (--components)",
    )


def _evidence(runs: Sequence[RunEvidence]) -> Criterion:
    """The agreement about the marginal likelihood: the pair of runs that differs most beyond its error."""
    pairs = [
        (abs(a.log_marginal - b.log_marginal), math.hypot(a.standard_error, b.standard_error))
        for i, a in enumerate(runs)
        for b in runs[:i]
    ]
    difference, error = max(pairs, key=lambda pair: pair[0] - STANDARD_ERRORS * pair[1])
    threshold = max(MAX_EVIDENCE_DIFFERENCE, STANDARD_ERRORS * error)
    passed = difference <= threshold
    return Criterion(
        name="marginal_likelihood",
        value=difference,
        threshold=threshold,
        passed=passed,
        reason=f"log marginal likelihoods {difference:.2f} nats apart"
        + ("" if passed else f", where errors explain {STANDARD_ERRORS * error:.2f}"),
        cure="train longer (--iterations) or add components (--components)",
    )
