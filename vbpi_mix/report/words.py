"""How numbers look on the page, and what diagnostics mean in plain words."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vbpi_mix.results.diagnostics import MIN_ESS, PARETO_K_GOOD

MINUS = "−"


def fixed(value: float | None, decimals: int = 3) -> str:
    """A number with so many decimals, thousands apart; a dash where there is none."""
    if value is None or math.isnan(value):
        return "–"
    return f"{value:,.{decimals}f}".replace("-", MINUS)


def significant(value: float | None, digits: int = 3) -> str:
    """A number with so many significant digits; a dash where there is none."""
    if value is None or math.isnan(value):
        return "–"
    if value == 0:
        return "0"
    power = math.floor(math.log10(abs(value)))
    if not -5 < power < 7:
        return f"{value:.{digits - 1}e}".replace("-", MINUS)
    return fixed(value, max(0, digits - 1 - power))


def percent(share: float | None, decimals: int = 1) -> str:
    """A share in percent."""
    return "–" if share is None else f"{fixed(100 * share, decimals)}%"


def duration(seconds: float) -> str:
    """A time in the unit that suits it."""
    if seconds < 90:
        return f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def size(num_bytes: int) -> str:
    """Size of a file."""
    value = float(num_bytes)
    for unit in ("bytes", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


_UNSEEN = (
    "What a run never draws leaves no trace in this: where much depends on the result, compare a second "
    "seed, more support trees (--support), or your own MCMC run (vbpi-mix report --reference)."
)
_MEANINGS = {
    "pareto_k": (
        f"Shape of the upper tail of the importance weights. Below {PARETO_K_GOOD}, averages over the "
        "weighted draws and their errors can be relied upon; from there on, a few draws dominate them: "
        "train longer (--iterations) or with more components (--components)."
    ),
    "ess": (
        "So many independent draws from the posterior itself would give averages as accurate. It grows with "
        "the number of draws (vbpi-mix evaluate DIR --repeats 1000 --update). The draws are independent, so "
        "the effective sample sizes that Tracer and MrBayes' sump compute from autocorrelations mean "
        "nothing here."
    ),
    "marginal_log_likelihood": (
        "The evidence for the model: differences between models of the same data are log Bayes factors. "
        "Each repeat is a bound, on average slightly too low; the pooled estimate takes all draws."
    ),
    "lower_bounds": (
        "What training climbs. The first is below the pooled evidence by about the Kullback–Leibler "
        "divergence from the approximation to the posterior, of trees with their branch lengths, which "
        "importance weights correct for."
    ),
    "topologies": "Topologies that cannot be made of the support's subsplits have probability zero.",
    "support_growth": (
        "Posterior probability of topologies one interchange away from probable ones that cannot be made of "
        "the support's subsplits. Where it is not little, clades may be missing: give more trees "
        "(--support)."
    ),
    "jensen_shannon": (
        "How different the components are: 0 where they are all the same, the logarithm of their number "
        "where they share no tree."
    ),
}
"""Diagnostics in plain words."""
_CORRECTIONS = {
    "rao-blackwellised": (
        "Posterior probabilities of topologies are those of the approximation, exact, times the mean weight "
        "of the topology's draws."
    ),
    "self-normalised": "Posterior probabilities of topologies are sums of the weights of their draws.",
}
"""How probabilities of topologies were corrected."""


@dataclass(frozen=True)
class Verdict:
    """Whether to believe the run.

    Attributes:
        kind: ``good``, ``unknown`` or ``bad``.
        title: The same in a few words.
        text: Why, and what to do.
    """

    kind: str
    title: str
    text: str


@dataclass(frozen=True)
class Diagnostic:
    """A diagnostic in plain words.

    Attributes:
        name: Its name.
        value: What was found, with its unit.
        judgement: ``good``, ``bad``, or empty where there is no threshold.
        help: What it means, and what to do.
    """

    name: str
    value: str
    judgement: str
    help: str


def verdict_of(result: Mapping[str, Any]) -> Verdict:
    """The verdict on a run: the result's own where it has one, else what k-hat and sample size say.

    Args:
        result: Content of ``result.json``.
    """
    if result.get("criteria"):
        return _recorded_verdict(result)
    k, ess, draws = result["pareto_k"], result["ess"], result["num_draws"]
    worth = f"{draws:,} draws are worth {ess:,.0f} independent ones"
    if k is None:
        weights = "All importance weights are equal, or there are too few draws for a k-hat; the"
    else:
        side = "below" if k < PARETO_K_GOOD else "not below"
        weights = f"The importance weights have a Pareto k-hat of {k:.2f} ({side} {PARETO_K_GOOD}), and the"
    faults = []
    if k is not None and k >= PARETO_K_GOOD:
        faults.append("a few draws dominate all weighted averages")
    if ess < MIN_ESS:
        faults.append(f"an effective sample size below {MIN_ESS:.0f} makes probabilities coarse")
    if faults:
        cure = "Train longer (--iterations), or with more components (--components)."
        return Verdict(
            "bad", "Do not rely on this posterior", f"{weights} {worth}: {' and '.join(faults)}. {cure}"
        )
    return Verdict("good", "Sound, as far as one run can tell", f"{weights} {worth}. {_UNSEEN}")


def _recorded_verdict(result: Mapping[str, Any]) -> Verdict:
    """The verdict that a result holds."""
    kind, title = {
        True: ("good", "Converged: yes"),
        False: ("bad", "Converged: no"),
        None: ("unknown", "Converged: unknown"),
    }[result["converged"]]
    reason = result["verdict"].split(" - ", 1)[-1]
    return Verdict(kind, title, f"{reason[:1].upper()}{reason[1:]}.")


def diagnostics_of(result: Mapping[str, Any]) -> list[Diagnostic]:
    """All diagnostics of a result with their meaning; those of its verdict's criteria are judged there."""
    marginal, topologies, k = result["marginal_log_likelihood"], result["topologies"], result["pareto_k"]
    num_components, is_judged = len(result["components"]["weight_share"]), not result.get("criteria")
    gap = fixed(marginal["pooled"] - result["lower_bound_1"], 2)
    rows = [
        Diagnostic(
            "Pareto k-hat",
            fixed(k, 2),
            _judgement(k < PARETO_K_GOOD) if is_judged and k is not None else "",
            _MEANINGS["pareto_k"],
        ),
        Diagnostic(
            "Effective sample size",
            f"{fixed(result['ess'], 0)} of {result['num_draws']:,} draws ({result['ess_percent']:.1f}%)",
            _judgement(result["ess"] >= MIN_ESS) if is_judged else "",
            _MEANINGS["ess"],
        ),
        Diagnostic(
            "Log marginal likelihood",
            f"{fixed(marginal['mean'])} nats, standard deviation {fixed(marginal['std'])} over "
            f"{marginal['num_repeats']} repeats of {marginal['evaluations_per_repeat']:,} likelihood "
            "evaluations; "
            f"pooled {fixed(marginal['pooled'])}, standard error {fixed(marginal['standard_error'])}",
            "",
            _MEANINGS["marginal_log_likelihood"],
        ),
        Diagnostic(
            "Lower bounds",
            f"{fixed(result['lower_bound_1'])} nats with 1 sample, {fixed(result['lower_bound_10'])} with 10",
            "",
            f"{_MEANINGS['lower_bounds']} It is {gap} nats here.",
        ),
        Diagnostic(
            "Topologies drawn",
            f"{topologies['distinct']:,} distinct, with {percent(topologies['drawn_mass'])} of the "
            "approximation",
            "",
            f"{_CORRECTIONS[topologies['correction']]} {_MEANINGS['topologies']}",
        ),
    ]
    growth = result.get("support_growth")
    if growth is not None:
        rows.append(_growth_diagnostic(growth, is_judged))
    if num_components > 1:
        divergence = f"{fixed(result['jensen_shannon'])} nats of at most {fixed(math.log(num_components))}"
        rows.append(Diagnostic("Jensen–Shannon divergence", divergence, "", _MEANINGS["jensen_shannon"]))
    return rows


def _growth_diagnostic(growth: Mapping[str, Any], is_judged: bool) -> Diagnostic:
    """What the check of the support has found."""
    found = f"estimated posterior mass just outside {significant(100 * growth['mass_outside'], 2)}%"
    if growth["rounds"]:
        topologies = sum(one["num_topologies"] for one in growth["rounds"])
        before = significant(100 * growth["rounds"][0]["mass_outside"], 2)
        num = len(growth["rounds"])
        found += f", {before}% before it grew by {topologies:,} topologies in {num} round{'s' * (num > 1)}"
    judgement = _judgement(growth["is_enough"]) if is_judged else ""
    return Diagnostic("Support", found, judgement, _MEANINGS["support_growth"])


def _judgement(is_good: bool) -> str:
    return "good" if is_good else "bad"
