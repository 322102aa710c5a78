"""The command ``vbpi-mix run``: one run, or several independent ones whose agreement is judged.

Several runs are made in rounds. The support is made once and every run's first checkpoint written; then each
is continued in a process of its own (`vbpi_mix._cli_members`) until it has finished, evaluation included, as
many at the same time as there are threads. If the verdict is no, and rounds and time are left, each gets a
further round of training and is continued again.
At the end the runs are combined (`vbpi_mix.results.combination`).
"""

import math
import platform
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vbpi_mix import _cli_run
from vbpi_mix._cli_budget import FIXED_SECONDS, Pace, plan_training, rehearse
from vbpi_mix._cli_config import (
    continued_config,
    read_config,
    resolve_config,
    settings_of_options,
)
from vbpi_mix._cli_members import continue_runs
from vbpi_mix._cli_progress import Progress, show_progress
from vbpi_mix._cli_settings import read_command, write_config
from vbpi_mix._cli_training import InterruptedRunError, Interruption
from vbpi_mix.errors import ConfigurationError
from vbpi_mix.machine import versions
from vbpi_mix.results import analysis
from vbpi_mix.results.convergence import RunEvidence, Verdict, bound_rise, judge
from vbpi_mix.results.correction import CorrectedPosterior
from vbpi_mix.results.diagnostics import Reliability
from vbpi_mix.results.draws import PosteriorDraws
from vbpi_mix.results.finished_run import FinishedRuns
from vbpi_mix.results.posterior_files import load_final, write_posterior
from vbpi_mix.results.result import (
    MemberSummary,
    RunResult,
    Seconds,
    SupportGrowth,
    estimate,
    read_result,
    write_result,
)
from vbpi_mix.results.run_directory import RunDirectory
from vbpi_mix.seeding import RandomStreams
from vbpi_mix.training.checkpoint import Checkpoint
from vbpi_mix.training.config import EvaluationConfig, RunConfig, RunsConfig, steps_of_rounds
from vbpi_mix.trees.summaries import split_table


def run(
    options: dict[str, Any],
    out: Path,
    resume: bool,
    recipe: str | None,
    config_file: Path | None,
    quiet: bool,
) -> RunResult:
    """Do an analysis, or the rest of one.

    Args:
        options: Values of the options that `OPTION_FIELDS` names; None where not given.
        out: The directory.
        resume: Whether to continue what it holds.
        recipe: Name of a recipe, or None.
        config_file: Configuration to start from, or None.
        quiet: Whether to say nothing on the way.

    Returns:
        What was found; it is in ``result.json`` too.

    Raises:
        VbpiMixError: Something that the user can mend.
        InterruptedRunError: A signal came; everything up to the last checkpoint is safe.
    """
    directory = RunDirectory(out)
    settings = settings_of_options(options)
    if resume:
        directory.require_run()
        if recipe is not None or config_file is not None:
            raise ConfigurationError(
                "--resume: a continued run keeps its configuration; leave --recipe and --config out"
            )
        config = continued_config(read_config(directory.config), settings)
    else:
        config = resolve_config(settings, recipe, config_file)
        _require_new(directory, config)
    interruption = Interruption()
    with (
        interruption.handled(),
        directory.lock(),
        show_progress(config.optimisation.num_steps, quiet) as progress,
    ):
        if not resume:
            _require_new(directory, config)  # again, now that nobody else can start one here
        elif directory.result.exists():
            progress.stage(f"{out}: this run has finished already")
            return read_result(directory.result)
        try:
            # One that has a checkpoint of its own is a single run, whatever its configuration says.
            if config.runs.number == 1 or directory.checkpoint.exists():
                return _cli_run.single_run(config, directory, resume, progress, interruption)
            return _Analysis(config, directory, progress, interruption).result(resume)
        except InterruptedRunError:
            if directory.holds_run():
                progress.stage(f"continue with: vbpi-mix run --resume --out {shlex.quote(str(out))}")
            else:
                progress.stage("stopped before anything was saved; start the run again")
            raise


def _require_new(directory: RunDirectory, config: RunConfig) -> None:
    """Refuse a directory that holds a run, or whose folders for several runs do."""
    directory.require_new()
    if config.runs.number > 1:
        for number in range(1, config.runs.number + 1):
            directory.member(number).require_new()


@dataclass(frozen=True)
class _Together:
    """Fresh draws from several runs.

    Attributes:
        runs: The runs.
        draws: The draws, those of one run after those of another.
        corrected: The average of the runs' corrected posteriors.
        generator: What drew them from the first run.
        seconds: Time that it took.
    """

    runs: FinishedRuns
    draws: PosteriorDraws
    corrected: CorrectedPosterior
    generator: np.random.Generator
    seconds: float

    @property
    def reliability(self) -> Reliability:
        """How far the draws can be trusted."""
        return Reliability.of(self.draws)


@dataclass
class _Analysis:
    """Several runs, from the support to the combined result.

    Attributes:
        config: Configuration of the analysis.
        directory: Its directory, locked.
        progress: What the user is told.
        interruption: Signals.
    """

    config: RunConfig
    directory: RunDirectory
    progress: Progress
    interruption: Interruption

    def __post_init__(self) -> None:
        self._began = time.monotonic()
        number = self.config.runs.number
        self._members = [self.directory.member(i + 1) for i in range(number)]
        self._at_once = min(number, self.config.machine.threads)
        self._threads = self.config.machine.threads // self._at_once
        self._num_turns = -(-number // self._at_once)

    def result(self, resume: bool) -> RunResult:
        """Do what is still to be done, and write the files."""
        self._start(resume)
        self.progress.stage("preparing the runs (a first one on this machine compiles for minutes)")
        pace = rehearse(self._members[0])
        self._plan(pace if self._at_once == 1 else pace.crowded())
        while True:
            self._train()
            evidence, together = self._evidence(), None
            verdict = judge(evidence)
            if not verdict.asks_for_training:
                together = self._draw_together()
                verdict = judge(evidence, together.reliability)
            if not verdict.asks_for_training or not self._add_round():
                break
            self.progress.stage(f"{verdict.line}; a further round of training follows")
        if together is None:
            together = self._draw_together()
            verdict = judge(evidence, together.reliability)
        return self._combine(verdict, together)

    def _start(self, resume: bool) -> None:
        """Make the support, and write the first checkpoint of every run that has none yet."""
        missing = [number for number, one in enumerate(self._members) if not one.checkpoint.exists()]
        if not missing:
            return
        checkpoint = _cli_run.new_run(self.config, self.progress)
        _cli_run.keep_support(checkpoint, self.directory)
        if not resume:
            write_config(self.directory.config, self.config, sys.argv)
        evaluation = self.config.evaluation
        if evaluation.enough_ess is not None:
            of_each = {"enough_ess": evaluation.enough_ess / len(self._members)}
            evaluation = evaluation.model_copy(update=of_each)
        for number in missing:
            own = self.config.model_copy(
                update={
                    "evaluation": evaluation,
                    "seed": self.config.seed + number,
                    "runs": RunsConfig(number=1, max_rounds=1),
                    "machine": self.config.machine.model_copy(update={"threads": self._threads}),
                }
            )
            member = self._members[number]
            with member.lock():
                write_config(member.config, own, read_command(self.directory.config))
                # A state before its first step owes nothing to the seed.
                streams = RandomStreams.from_seed(own.seed)
                _cli_run.save(replace(checkpoint, config=own, streams=streams), member)

    def _left(self) -> float | None:
        """Seconds that are left of the budget; None where there is none."""
        budget = self.config.runs.budget_seconds
        return None if budget is None else budget - (time.monotonic() - self._began)

    def _plan(self, pace: Pace) -> None:
        """Fit runs that have not begun into the budget."""
        left = self._left()
        if left is None:
            return
        for member in self._members:
            checkpoint = Checkpoint.load(member.checkpoint)
            if checkpoint.state.step == 0:
                planned = plan_training(checkpoint.config, pace, left / self._num_turns)
                with member.lock():
                    write_config(member.config, planned, read_command(member.config))
                    _cli_run.save(replace(checkpoint, config=planned), member)

    def _train(self) -> None:
        """Continue the runs that have not finished."""
        unfinished = [member for member in self._members if not member.result.exists()]
        for first in range(0, len(unfinished), self._at_once):
            self._train_together(unfinished[first : first + self._at_once])

    def _train_together(self, members: Sequence[RunDirectory]) -> None:
        """Continue some runs at the same time."""
        configs = [read_config(member.config) for member in members]
        num_steps = max(config.optimisation.num_steps for config in configs)
        seeds = ", ".join(str(config.seed) for config in configs)
        self.progress.stage(
            f"training: {num_steps:,} iterations, seeds {seeds}, threads for each: {self._threads}"
        )
        self.progress.expect(num_steps)
        told = (0, num_steps)

        def report(records: Sequence[dict[str, Any] | None]) -> None:
            nonlocal told
            known = [record for record in records if record is not None]
            if len(known) < len(records):
                return
            slowest = max(known, key=lambda record: record["num_steps"] - record["iteration"])
            now = slowest["iteration"], slowest["num_steps"]
            if now == told or now[1] < num_steps:  # of a round before
                return
            if now[1] > told[1]:
                if told[0] == told[1]:
                    self.progress.stage("a support has grown; its run trains on")
                self.progress.expect(now[1])
            bound, *others = [record["bound"] for record in known]
            self.progress.training(now[0], bound, slowest["inverse_temperature"], others)
            if now[0] == now[1]:
                self.progress.stage("evaluating")
            told = now

        continue_runs(members, self._threads, self.interruption, report)

    def _evidence(self) -> list[RunEvidence]:
        """What the runs bring to the verdict as they are."""
        evidence = []
        for member in self._members:
            result, final = read_result(member.result), load_final(member.final_posterior)
            growth = result.support_growth
            evidence.append(
                RunEvidence(
                    pareto_k=result.pareto_k,
                    ess=result.ess,
                    log_marginal=result.marginal_log_likelihood.pooled,
                    standard_error=result.marginal_log_likelihood.standard_error,
                    rise=bound_rise(_cli_run.metrics_of(member)),
                    trained=next(c.value for c in result.criteria if c.name == "training") or 0.0,
                    outside=None if growth is None else (growth.mass_outside, self.config.growth.max_outside),
                    splits=split_table(final.topologies, np.exp(final.log_topology_probabilities)),
                )
            )
        return evidence

    def _add_round(self) -> bool:
        """Give every run a further round of training, if rounds and time are left for it."""
        configs = [read_config(member.config) for member in self._members]
        results = [read_result(member.result) for member in self._members]
        first, rounds = configs[0].optimisation.iterations, configs[0].optimisation.rounds
        done, planned = (steps_of_rounds(first, number) for number in (rounds, rounds + 1))
        trained = max(result.seconds.training for result in results)
        # As many draws are combined as each run has evaluated.
        evaluating = FIXED_SECONDS + 2 * max(result.seconds.evaluation for result in results)
        needed = self._num_turns * (trained * (planned - done) / done + evaluating)
        left = self._left()
        if rounds >= self.config.runs.max_rounds or (left is not None and left < needed):
            return False
        for member, config, result in zip(self._members, configs, results, strict=True):
            update: dict[str, Any] = {
                "optimisation": config.optimisation.model_copy(update={"rounds": rounds + 1})
            }
            if left is not None:
                limit = result.seconds.training + left / self._num_turns - evaluating
                update["machine"] = config.machine.model_copy(update={"training_seconds": limit})
            with member.lock():
                member.result.unlink()
                write_config(member.config, config.model_copy(update=update), read_command(member.config))
        return True

    def _draw_together(self) -> _Together:
        """Fresh draws from all runs, and what they correct."""
        self.progress.stage(f"combining the runs; {_cli_run.TRACER_NOTE}")
        began = time.perf_counter()
        runs = FinishedRuns.open(self.directory)
        particles = analysis.particles_per_component(self.config)
        # Commands on the finished runs are to draw anew.
        generators = [generator.spawn(1)[0] for generator in runs.generators(None)]
        results = [read_result(member.result) for member in self._members]
        # A budget may allow the runs fewer repeats than their common configuration does.
        most = max(read_config(member.config).evaluation.repeats for member in self._members)
        evaluation = _evaluation_of_all(self.config.evaluation, results, most)
        draws, corrected = runs.draw(evaluation, particles, generators, with_undrawn=True)
        return _Together(runs, draws, corrected, generators[0], time.perf_counter() - began)

    def _combine(self, verdict: Verdict, together: _Together) -> RunResult:
        """Write the files of the analysis; ``result.json`` comes last."""
        began = time.perf_counter()
        draws, corrected = together.draws, together.corrected
        estimates = estimate(draws, corrected, analysis.particles_per_component(self.config))
        write_posterior(
            self.directory,
            draws,
            corrected,
            self.config.evaluation.posterior_samples,
            together.generator,
            together.runs.parts(draws),
        )
        results = [read_result(member.result) for member in self._members]
        evaluating = max(one.seconds.evaluation for one in results)
        first = results[0]
        result = first.model_copy(
            update={name: getattr(estimates, name) for name in type(estimates).model_fields}
            | {
                "refit": None,
                "support_growth": _widest(results),
                "seconds": Seconds(
                    support=first.seconds.support,
                    training=max(one.seconds.training for one in results),
                    evaluation=evaluating + together.seconds + time.perf_counter() - began,
                ),
                "iterations": max(one.iterations for one in results),
                "ms_per_iteration": max(one.ms_per_iteration for one in results),
                "versions": versions(),
                "provenance": first.provenance.model_copy(
                    update={
                        "command": read_command(self.directory.config) or sys.argv,
                        "threads": self.config.machine.threads,
                        "platform": platform.platform(),
                    }
                ),
                "runs": [
                    MemberSummary(
                        directory=member.path.name,
                        seed=one.seed,
                        iterations=one.iterations,
                        pareto_k=one.pareto_k,
                        ess=one.ess,
                        log_marginal_likelihood=one.marginal_log_likelihood.pooled,
                        standard_error=one.marginal_log_likelihood.standard_error,
                    )
                    for member, one in zip(self._members, results, strict=True)
                ],
            }
        ).judged(verdict)
        write_result(self.directory.result, result)
        return result


def _evaluation_of_all(
    evaluation: EvaluationConfig, results: Sequence[RunResult], most: int
) -> EvaluationConfig:
    """The evaluation with as many repeats, up to `most`, as its effective sample size takes of all runs."""
    if evaluation.enough_ess is None:
        return evaluation
    share = min(result.ess / result.num_draws for result in results)
    of_repeat = results[0].marginal_log_likelihood.evaluations_per_repeat
    repeats = math.ceil(evaluation.enough_ess / share / of_repeat)
    return evaluation.model_copy(update={"repeats": min(most, max(2, repeats))})


def _widest(results: Sequence[RunResult]) -> SupportGrowth | None:
    """The support's growth in the run that has most posterior mass outside its support at the end."""
    growths = [result.support_growth for result in results if result.support_growth is not None]
    return max(growths, key=lambda growth: growth.mass_outside, default=None)
