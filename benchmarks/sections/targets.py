"""The targets set for the package, and what was measured: from the result files of all benchmarks."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _common import load
from _sections import Section, Table

from sections import misvae, misvae_training, model_kernel, models, stopping, support_routes
from sections.iteration import SINGLE, ratio

GOLDEN_DS1 = -7108.40
"""Log marginal likelihood of DS1, in nats, on which long runs of several published methods agree."""

TOTAL_VARIATION = {"DS1": 0.03, "DS2": 0.01, "DS3": 0.015, "DS4": 0.05}
STANDARD_DEVIATION = {"DS4": 0.06, "DS5": 0.15, "DS6": 0.08, "DS7": 0.08, "DS8": 0.09}
NUM_SEEDS = 3


@dataclass(frozen=True)
class Outcome:
    """A target and what became of it.

    Attributes:
        name: What is asked.
        asked: The figure asked for.
        measured: The figure measured; empty where there is none.
        is_met: Whether it is good enough.
        sources: Result files.
    """

    name: str
    asked: str
    measured: str = ""
    is_met: bool = False
    sources: tuple[str, ...] = ()

    @property
    def state(self) -> str:
        """Met, missed or not measured."""
        if not self.measured:
            return "not measured"
        return "met" if self.is_met else "missed"


def section(results: Path) -> Section | None:
    """The section, from the result files of the other sections."""
    outcomes = [outcome for measure in MEASURES for outcome in measure(results)]
    measured = [outcome for outcome in outcomes if outcome.measured]
    if not measured:
        return None
    met = [outcome.name for outcome in measured if outcome.is_met]
    missed = [f"{o.name} ({o.measured}; asked {o.asked})" for o in measured if not o.is_met]
    texts = [
        f"{len(met)} of {len(outcomes)} targets are met, {len(missed)} are missed and "
        f"{len(outcomes) - len(measured)} are not measured."
    ]
    if missed:
        texts.append(f"Missed: {'; '.join(missed)}.")
    sources = list(dict.fromkeys(source for outcome in measured for source in outcome.sources))
    return Section("Targets", texts, [_table(outcomes)], sources)


def headline(results: Path) -> Table | None:
    """The table that README quotes."""
    outcomes = [outcome for measure in MEASURES for outcome in measure(results)]
    measured = [outcome for outcome in outcomes if outcome.measured]
    return _table(measured) if measured else None


def _table(outcomes: list[Outcome]) -> Table:
    return Table(
        "Targets, one thread and compiled code warm where nothing else is said. Several seeds: the worst.",
        ["target", "asked", "measured", ""],
        [[o.name, o.asked, o.measured or "-", o.state] for o in outcomes],
    )


def _at_most(name: str, value: float, limit: float, form: str, *sources: str) -> Outcome:
    return Outcome(name, "<= " + form.format(limit), form.format(value), value <= limit, sources)


def _kernel(results: Path) -> Iterable[Outcome]:
    """Ten DS1 trees, the arithmetic limit, and two threads."""
    wanted = (
        ("ten DS1 trees, value + gradient, float64", "JC float64", 0.8),
        ("the same, scaled float32", "JC float32", 0.45),
    )
    found = load(results, "kernel/DS1.json")
    for name, key, limit in wanted:
        if not found:
            yield Outcome(name, f"<= {limit:.2f} ms")
        for source, measured in found.items():
            yield _at_most(name, measured["milliseconds"][key]["median"], limit, "{:.2f} ms", source)
    name = "the same float64, over its arithmetic limit"
    if not found:
        yield Outcome(name, "<= 3.0 times")
    for source, measured in found.items():
        least = measured["limit_milliseconds"]["float64"]["value and gradient"]
        ratio = measured["milliseconds"]["JC float64"]["median"] / least
        yield _at_most(name, ratio, 3.0, "{:.1f} times", source)
    found, name = load(results, "kernel/DS7.json"), "two threads against one, DS7"
    if not found:
        yield Outcome(name, ">= 1.7 times")
    for source, measured in found.items():
        times = measured["milliseconds"]
        ratio = times["JC float64"]["median"] / times["JC float64, 2 threads"]["median"]
        yield Outcome(name, ">= 1.7 times", f"{ratio:.2f} times", ratio >= 1.7, (source,))


def _iteration(results: Path) -> Iterable[Outcome]:
    """Milliseconds of a step, and how they grow with A."""
    found = load(results, "iteration/DS1.json")
    by_name = {one["name"]: one["milliseconds"] for run in found.values() for one in run["configurations"]}
    for name, key, limit in (
        ("iteration, DS1, A=S=1, K=10", SINGLE, 1.0),
        ("iteration, DS1, A2A, A=3", "a2a.A3.S3.float64.t1", 3.5),
    ):
        if key in by_name:
            yield _at_most(name, by_name[key]["median"], limit, "{:.2f} ms", *found)
        else:
            yield Outcome(name, f"<= {limit:.2f} ms")
    for estimator, num_components, limit in (("s2a", 50, 2.0), ("s2a", 200, 4.0), ("s2s", 200, 1.1)):
        name = f"iteration, DS1, {estimator.upper()}, S=1: A={num_components} against A=1"
        key = f"{estimator}.A{num_components}.S1.float64.t1"
        if key in by_name:
            yield _at_most(name, ratio(by_name[key], by_name[SINGLE]), limit, "{:.2f} times", *found)
        else:
            yield Outcome(name, f"<= {limit:.2f} times")


def _seconds(run: dict[str, Any]) -> float:
    """Seconds of a run's stages: support, training and evaluation."""
    seconds = run["result"]["seconds"]
    return seconds["support"] + seconds["training"] + seconds["evaluation"]


def _fast(results: Path) -> Iterable[Outcome]:
    """DS1 in 3 s and in 20 s, its support given: building it, training and evaluation; on every seed."""
    groups: dict[str, dict[str, dict[str, Any]]] = {}
    for source, run in (load(results, "fast*/DS1.*.json") | load(results, "datasets/DS1.*.json")).items():
        groups.setdefault(str(Path(source).parent), {})[source] = run

    def found(name: str, limit: float, is_good: Callable[[dict[str, Any]], bool]) -> Outcome:
        good = [group for group in groups.values() if all(map(is_good, group.values()))]
        if not groups:
            return Outcome(name, f"<= {limit:g} s")
        if not good:
            sources = tuple(source for group in groups.values() for source in group)
            return Outcome(name, f"<= {limit:g} s", "with no settings measured", False, sources)
        fastest = min(good, key=lambda group: max(map(_seconds, group.values())))
        return _at_most(name, max(map(_seconds, fastest.values())), limit, "{:.1f} s", *fastest)

    def is_near(run: dict[str, Any]) -> bool:
        ml = run["result"]["marginal_log_likelihood"]
        return abs(ml["mean"] - GOLDEN_DS1) <= 0.05

    def is_tight(run: dict[str, Any]) -> bool:
        result = run["result"]
        return result["marginal_log_likelihood"]["std"] <= 0.05 and result["lower_bound_1"] >= -7109.1

    yield found("DS1, support given: ML within 0.05 nat", 3.0, is_near)
    yield found("DS1, support given: std of ML <= 0.05 and LB-1 >= -7109.1", 20.0, is_tight)


def _within(runs: dict[str, dict[str, Any]], limit: float) -> dict[str, dict[str, Any]]:
    """Of runs with budgets, those of the largest whose runs all took no longer than the limit, in seconds."""
    by_budget: dict[float, dict[str, dict[str, Any]]] = {}
    for source, run in runs.items():
        by_budget.setdefault(run["budget"], {})[source] = run
    fitting = [
        budget
        for budget, group in by_budget.items()
        if max(run["wall_seconds"] for run in group.values()) <= limit
    ]
    return by_budget[max(fitting)] if fitting else {}


def _corrected(run: dict[str, Any]) -> float:
    return run["agreement"]["total_variation"]["corrected"]


def _total_variation(results: Path) -> Iterable[Outcome]:
    """Corrected total variation from the alignment, within wall-clock limits."""
    wanted = [(dataset, limit, 30.0) for dataset, limit in TOTAL_VARIATION.items()] + [("DS1", 0.015, 120.0)]
    for dataset, limit, seconds in wanted:
        name = f"{dataset}, from the alignment: corrected total variation within {seconds:g} s"
        runs = load(results, f"race/ours/{dataset}.*.json")
        chosen = _within({s: run for s, run in runs.items() if "agreement" in run}, seconds)
        if not chosen:
            yield Outcome(name, f"<= {limit:.3f}")
        else:
            yield _at_most(name, max(map(_corrected, chosen.values())), limit, "{:.3f}", *chosen)


def _against_mrbayes(results: Path) -> Iterable[Outcome]:
    """Corrected total variation against that of MrBayes at the same wall-clock time, from 30 s on."""
    compared, lower, sources = 0, 0, []
    for dataset in TOTAL_VARIATION:
        chains = load(results, f"race/chains/{dataset}.*.json")
        speeds = load(results, f"race/speed/{dataset}.json")
        for source, run in load(results, f"race/ours/{dataset}.*.json").items():
            theirs = [
                _mrbayes_total_variation(chain, speed["best"], run["wall_seconds"])
                for chain in chains.values()
                for speed in speeds.values()
            ]
            known = [value for value in theirs if value is not None]
            if (run["budget"] or 0) >= 30 and known and "agreement" in run:
                compared += 1
                lower += _corrected(run) < min(known)
                sources += [source, *chains, *speeds]
    name = (
        "corrected total variation below MrBayes' at every budget from 30 s, DS1 to DS4, from the alignment"
    )
    if not compared:
        yield Outcome(name, "in all runs")
    else:
        yield Outcome(
            name,
            "in all runs",
            f"in {lower} of {compared} runs",
            lower == compared,
            tuple(dict.fromkeys(sources)),
        )


def _mrbayes_total_variation(chain: dict[str, Any], speed: dict[str, Any], seconds: float) -> float | None:
    """Total variation of MrBayes' samples after some seconds; None before the first and after the last."""
    generations = (seconds - speed["startup_seconds"]) * speed["generations_per_second"]
    points = chain.get("convergence", [])
    before = [point for point in points if point["generations"] <= generations]
    if not before or generations > 1.1 * points[-1]["generations"]:
        return None
    return before[-1]["total_variation"]


def _hard(results: Path) -> Iterable[Outcome]:
    """Standard deviation and k-hat of the hard data sets within a minute, on three seeds."""
    for dataset, limit in STANDARD_DEVIATION.items():
        name = f"{dataset}: std of ML with k-hat < 0.7 within 60 s, {NUM_SEEDS} seeds"
        runs = load(results, f"minute/{dataset}.*.json") or load(results, f"datasets/{dataset}.*.json")
        if len(runs) < NUM_SEEDS:
            yield Outcome(name, f"<= {limit:.2f}")
            continue
        worst = max(run["result"]["marginal_log_likelihood"]["std"] for run in runs.values())
        k = max(
            float("inf") if run["result"]["pareto_k"] is None else run["result"]["pareto_k"]
            for run in runs.values()
        )
        seconds = max(run["wall_seconds"] for run in runs.values())
        yield Outcome(
            name,
            f"<= {limit:.2f}",
            f"{worst:.3f}, k-hat {k:.2f}, {seconds:.0f} s",
            worst <= limit and k < 0.7 and seconds <= 60,
            tuple(runs),
        )


def _clades(results: Path) -> Iterable[Outcome]:
    """Clade probabilities of DS5 to DS8 against tables of MrBayes, of the longest runs."""
    for dataset in ("DS5", "DS6", "DS7", "DS8"):
        name = f"{dataset}: clade probabilities against MrBayes, max and mean difference"
        runs = {
            source: run
            for pattern in (
                f"topologies/{dataset}.*.json",
                f"race/ours/{dataset}.*.json",
                f"minute/{dataset}.*.json",
                f"datasets/{dataset}.*.json",
            )
            for source, run in load(results, pattern).items()
            if (run.get("agreement") or {}).get("splits")
        }
        if not runs:
            yield Outcome(name, "<= 0.030 and <= 0.0050")
            continue
        source = max(runs, key=lambda source: runs[source]["wall_seconds"])
        splits = runs[source]["agreement"]["splits"]
        yield Outcome(
            name,
            "<= 0.030 and <= 0.0050",
            f"{splits['maximum']:.3f} and {splits['mean']:.4f} in {runs[source]['wall_seconds']:.0f} s",
            splits["maximum"] <= 0.03 and splits["mean"] <= 0.005,
            (source,),
        )


def _growth(results: Path) -> Iterable[Outcome]:
    """Cost linear in taxa and patterns."""
    found = load(results, "kernel/growth.json")
    for kind in ("taxa", "patterns"):
        name = f"cost of value + gradient, float64: growth with {kind}, exponent of a power law"
        if not found:
            yield Outcome(name, "about 1")
        for source, measured in found.items():
            exponent = measured["growth"][f"{kind} float64"]["fit"]["exponent"]
            yield Outcome(name, "<= 1.10", f"{exponent:.2f}", exponent <= 1.1, (source,))


def _large(results: Path) -> Iterable[Outcome]:
    """Hundreds of taxa in little memory, to a bound that no longer changes."""
    for num_taxa in (250, 1000):
        name = f"{num_taxa} taxa, 2,000 sites, simulated: memory, and change of the bound at the end"
        asked = "< 4 GiB and < 1 nat"
        found = load(results, f"large/taxa{num_taxa:04d}.json")
        if not found:
            yield Outcome(name, asked)
        for source, run in found.items():
            memory, rise = run["peak_memory_gib"], run["rise_at_the_end"]
            yield Outcome(
                name, asked, f"{memory:.2f} GiB and {rise:.2f} nat", memory < 4 and abs(rise) < 1, (source,)
            )


def _misvae(results: Path) -> Iterable[Outcome]:
    """Seconds an epoch, what components cost, and the test likelihood."""
    found = load(results, "misvae.json")
    two = [one for speed in found.values() for one in speed["measured"] if one["threads"] == 2]
    by_name = {
        (run["decoder"], run["estimator"], run["components"]): run for one in two for run in one["runs"]
    }
    single = by_name.get(("independent", "s2a", 1))
    name = "MISVAE, default model, MNIST: an epoch, two threads"
    if single is None:
        yield Outcome(name, f"<= {misvae.MAX_EPOCH:.0f} s")
    else:
        yield _at_most(name, single["seconds_per_epoch"], misvae.MAX_EPOCH, "{:.0f} s", *found)
    for estimator, limit in misvae.MAX_RATIO.items():
        name = f"MISVAE, {estimator.upper()}, S=1: an epoch of A=100 against A=1"
        many = by_name.get(("independent", estimator, 100))
        if single is None or many is None:
            yield Outcome(name, f"<= {limit:.2f} times")
        else:
            yield _at_most(name, misvae.times_single(many, single), limit, "{:.2f} times", *found)
    for decoder, limit in misvae_training.MAX_NLL.items():
        name = f"MISVAE, {decoder} pixels: NLL of MNIST's test images after an hour of training at most"
        asked = f"< {limit} nats"
        trained = load(results, f"misvae_training/{decoder}.json")
        if not trained:
            yield Outcome(name, asked)
        for source, run in trained.items():
            seconds = misvae_training.training_seconds(results, run)
            nll = run["evaluation"]["negative_log_likelihood"]["mean"]
            time = "unknown time" if seconds is None else f"{seconds / 60:.0f} min"
            yield Outcome(
                name, asked, f"{nll:.2f} nats, {time}", misvae_training.is_met(run, seconds), (source, *found)
            )


def _model_kernel(results: Path) -> Iterable[Outcome]:
    """Value and all gradients of estimated models over those of JC69, the worst of the data sets."""
    found = load(results, "model_kernel/*.json")
    for model, limit in model_kernel.MAX_TIMES_JC.items():
        name = f"{model}, ten trees, value + all gradients over JC's, float64 and float32"
        asked = f"<= {limit:.2f} times"
        if not found:
            yield Outcome(name, asked)
            continue
        worst = [model_kernel.largest([*found.values()], model, dtype) for dtype in model_kernel.DTYPES]
        measured = " and ".join(f"{ratio:.2f}" for ratio in worst) + " times"
        yield Outcome(name, asked, measured, max(worst) <= limit, tuple(found))


def _models(results: Path) -> Iterable[Outcome]:
    """Alignments under estimated models: from the prompt to the report, and beside MrBayes."""
    for data, model in (("primates", "GTR+F+G4"), ("woodmouse", "GTR+F+G4"), ("DS2", "HKY+F")):
        runs = load(results, f"models/{data}.{model}.seed*.json")
        rows: list[tuple[str, float, str, Callable[[list[dict[str, Any]]], float]]] = [
            (
                "clades, largest difference from MrBayes",
                models.MAX_CLADE_DIFFERENCE,
                "{:.3f}",
                models.largest_clade_difference,
            ),
            (
                "branch lengths, largest difference from MrBayes",
                models.MAX_DIFFERENCE_IN_SDS,
                "{:.2f} sd",
                models.largest_length_difference,
            ),
            (
                "parameters, largest difference from MrBayes",
                models.MAX_DIFFERENCE_IN_SDS,
                "{:.2f} sd",
                models.largest_parameter_difference,
            ),
        ]
        if data == "primates":
            rows.insert(0, ("from the prompt to the report", models.MAX_SECONDS, "{:.0f} s", _slowest))
        for what, limit, form, worst in rows:
            name = f"{data}, {model}: {what}"
            if len(runs) < NUM_SEEDS:
                yield Outcome(name, "<= " + form.format(limit))
            else:
                yield _at_most(name, worst([*runs.values()]), limit, form, *runs)


def _slowest(runs: list[dict[str, Any]]) -> float:
    return max(float(run["wall_seconds"]) for run in runs)


def _stopping(results: Path) -> Iterable[Outcome]:
    """Verdicts of yes on clades that are far from the reference."""
    name = f"verdicts of yes with a clade more than {stopping.FALSE_STOP} from the reference, DS1 to DS8"
    found = load(results, "stopping/*.json")
    judged = {source: run for source, run in found.items() if run["budget"] is None and "splits" in run}
    if not judged:
        yield Outcome(name, "none")
    else:
        false = sum(map(stopping.is_false_stop, judged.values()))
        yes = sum(bool(run["result"]["converged"]) for run in judged.values())
        measured = f"{false} of {yes}, in {len(judged)} analyses"
        yield Outcome(name, "none", measured, false == 0, tuple(judged))


def _support_routes(results: Path) -> Iterable[Outcome]:
    """Golden posteriors in the supports by every route; a route counts with all four data sets."""
    found = load(results, "support_routes/*.json")
    for route in support_routes.ROUTES:
        name = f"golden posteriors of DS1 to DS4 in the support, route {route}"
        asked = f">= {100 * support_routes.MIN_COVERAGE:.1f}%"
        own = {source: one for source, one in found.items() if one["route"] == route and not one["is_spoilt"]}
        if {one["dataset"] for one in own.values()} != set(TOTAL_VARIATION):
            yield Outcome(name, asked)
            continue
        least = min(one["coverage"] for one in own.values())
        measured = f"{100 * least:.2f}%"
        yield Outcome(name, asked, measured, least >= support_routes.MIN_COVERAGE, tuple(own))


MEASURES = (
    _kernel,
    _iteration,
    _fast,
    _total_variation,
    _against_mrbayes,
    _hard,
    _clades,
    _growth,
    _large,
    _misvae,
    _model_kernel,
    _models,
    _stopping,
    _support_routes,
)
"""Functions that look up the outcomes, in the order of the table."""
