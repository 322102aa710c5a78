"""One run of ``vbpi-mix run``, new or continued, from its first step to its files."""

import math
import platform
import statistics
import sys
import time
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from vbpi_mix._cli_budget import plan_training, rehearse
from vbpi_mix._cli_progress import Progress, duration
from vbpi_mix._cli_settings import read_command, write_config
from vbpi_mix._cli_training import (
    InterruptedRunError,
    Interruption,
    keep_metrics,
    read_metrics,
    write_checkpoint,
)
from vbpi_mix.errors import NonFiniteError
from vbpi_mix.machine import versions
from vbpi_mix.results import analysis
from vbpi_mix.results.convergence import RunEvidence, bound_rise, judge
from vbpi_mix.results.posterior_files import FinalPosterior, save_final, write_posterior
from vbpi_mix.results.result import (
    Provenance,
    RunResult,
    Seconds,
    SupportGrowth,
    estimate,
    write_result,
)
from vbpi_mix.results.run_directory import (
    RunDirectory,
    append_json_line,
    atomic_write,
)
from vbpi_mix.training.checkpoint import Checkpoint
from vbpi_mix.training.config import RunConfig
from vbpi_mix.training.loop import train
from vbpi_mix.training.support_routes import ANNOUNCEMENTS
from vbpi_mix.training.support_trees import support_table

TRACER_NOTE = (
    "draws are independent, so the ESS that Tracer and sump compute from them means nothing: "
    "use the one given here"
)
"""What those who open the ``.p`` files should know."""


def single_run(
    config: RunConfig,
    directory: RunDirectory,
    resume: bool,
    progress: Progress,
    interruption: Interruption,
) -> RunResult:
    """Do one run, or the rest of it, in a directory that is locked."""
    began = time.monotonic()
    if resume and directory.checkpoint.exists():
        analysis.check_device(config.machine)
        analysis.use_threads(config.machine)
        checkpoint = Checkpoint.load(directory.checkpoint)
        checkpoint = checkpoint.continued(_continued(checkpoint.config, config))
        progress.stage(f"continuing at iteration {checkpoint.num_steps:,}")
    else:
        checkpoint = new_run(config, progress)
        keep_support(checkpoint, directory)
        if not resume:
            write_config(directory.config, config, sys.argv)
        save(checkpoint, directory)
    if config.runs.budget_seconds is not None and checkpoint.num_steps == 0:
        pace = rehearse(directory)
        left = config.runs.budget_seconds - (time.monotonic() - began)
        planned = plan_training(checkpoint.config, pace, left)
        checkpoint = replace(checkpoint, config=planned)
        write_config(directory.config, planned, read_command(directory.config))
        save(checkpoint, directory)
    checkpoint = _train(checkpoint, directory, progress, interruption)
    checkpoint, growth = _grow(checkpoint, directory, progress, interruption)
    return _finish(checkpoint, growth, directory, progress)


def new_run(config: RunConfig, progress: Progress) -> Checkpoint:
    """The state of a new run, of which nothing is written yet."""
    analysis.check_device(config.machine)
    analysis.use_threads(config.machine)
    alignment = analysis.read_data(config.data)
    progress.stage(f"{alignment.source}: {alignment.num_taxa} taxa, {alignment.num_sites} sites")
    announcement = ANNOUNCEMENTS.get(analysis.support_route(config.data, alignment))
    if announcement is not None:
        progress.stage(announcement)
    trees = analysis.find_support_trees(config, alignment)
    progress.stage(trees.summary())
    if trees.advice is not None:
        progress.stage(f"note: the support is {trees.advice}")
    checkpoint = analysis.start_run(config, alignment, trees.sample)
    checkpoint = replace(checkpoint, support_seconds=checkpoint.support_seconds + trees.seconds)
    support = checkpoint.state.mixture.support
    progress.stage(
        f"support: {support.num_parameters:,} parameters from {len(checkpoint.sample.children):,} topologies "
        f"({duration(checkpoint.support_seconds)})"
    )
    return checkpoint


def keep_support(checkpoint: Checkpoint, directory: RunDirectory) -> None:
    """Write the trees of the support, if the run has made them."""
    if checkpoint.config.data.support is None and checkpoint.config.data.dataset is None:
        with atomic_write(directory.support_trees) as temporary:
            temporary.write_bytes(support_table(checkpoint.sample))


def _continued(stored: RunConfig, config: RunConfig) -> RunConfig:
    """A checkpoint's configuration, with what may have changed in ``config.toml`` or by options since."""
    rounds = {"rounds": config.optimisation.rounds}
    optimisation = stored.optimisation.model_copy(update=rounds)
    return stored.model_copy(update={"machine": config.machine, "optimisation": optimisation})


def _train(
    checkpoint: Checkpoint, directory: RunDirectory, progress: Progress, interruption: Interruption
) -> Checkpoint:
    """Train to the end of a phase or the time limit, with a line of metrics a report and checkpoints."""
    config, before, optimisation = checkpoint.config, checkpoint.steps_before, checkpoint.training
    _forget_after(directory, checkpoint.num_steps)
    progress.expect(before + optimisation.num_steps)
    if checkpoint.is_out_of_time:
        return checkpoint
    engine = analysis.make_engine(checkpoint)
    training_seconds, saved_at = checkpoint.training_seconds, time.monotonic()
    limit = config.machine.training_seconds or math.inf
    reports = train(
        engine,
        checkpoint.streams,
        config.mixture,
        optimisation,
        checkpoint.patterns.num_taxa,
        config.machine.log_every,
    )
    # The engines check every step's bound, and their message says more than numpy's warnings.
    with interruption.deferred(), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        try:
            for report in reports:
                is_last = report.step == report.num_steps or training_seconds + report.seconds >= limit
                report = replace(report, step=before + report.step, num_steps=before + report.num_steps)
                training_seconds += report.seconds
                record = asdict(report)
                append_json_line(directory.metrics, {"iteration": record.pop("step"), **record})
                progress.training(report.step, report.bound, report.inverse_temperature)
                is_due = time.monotonic() - saved_at >= config.machine.checkpoint_seconds
                if is_last or is_due or interruption.signal_number is not None:
                    checkpoint = replace(checkpoint, state=engine.state(), training_seconds=training_seconds)
                    save(checkpoint, directory)
                    saved_at = time.monotonic()
                if interruption.signal_number is not None:
                    progress.stage(f"stopped after iteration {report.step:,}")
                    raise InterruptedRunError(interruption.signal_number)
                if is_last:
                    break
        except NonFiniteError as error:
            checkpoint = replace(checkpoint, state=engine.state(), training_seconds=training_seconds)
            save(checkpoint, directory)
            reason = str(error).rstrip(".")
            raise NonFiniteError(
                f"training stopped after step {checkpoint.num_steps:,}: {reason}; start a new run with "
                "lower --topology-rate and --branch-rate and another --out (the state before is in "
                f"{directory.checkpoint})"
            ) from None
    return checkpoint


def _grow(
    checkpoint: Checkpoint, directory: RunDirectory, progress: Progress, interruption: Interruption
) -> tuple[Checkpoint, SupportGrowth | None]:
    """Check the support and, while posterior mass presses against its edge, grow it and train on."""
    if not checkpoint.config.grows_support:
        return checkpoint, None
    while True:
        began = time.perf_counter()
        outside = analysis.check_support(checkpoint)
        seconds = checkpoint.support_seconds + time.perf_counter() - began
        checkpoint = replace(checkpoint, support_seconds=seconds)
        progress.stage(f"estimated posterior mass just outside the support: {100 * outside.mass:.3g}%")
        if checkpoint.is_out_of_time or not analysis.is_to_grow(checkpoint, outside):
            is_enough = outside.mass <= checkpoint.config.growth.max_outside
            rounds = list(checkpoint.growth)
            return checkpoint, SupportGrowth(rounds=rounds, mass_outside=outside.mass, is_enough=is_enough)
        checkpoint = analysis.grow_support(checkpoint, outside)
        done = checkpoint.growth[-1]
        progress.stage(
            f"support grown by {done.num_topologies:,} topologies and {done.num_parameters:,} parameters; "
            "training goes on"
        )
        save(checkpoint, directory)
        checkpoint = _train(checkpoint, directory, progress, interruption)


def _finish(
    checkpoint: Checkpoint, growth: SupportGrowth | None, directory: RunDirectory, progress: Progress
) -> RunResult:
    """Evaluate the trained mixture and write what the run found; ``result.json`` comes last."""
    config, patterns = checkpoint.config, checkpoint.patterns
    progress.stage(f"evaluating; {TRACER_NOTE}")
    began = time.perf_counter()
    evaluation = analysis.evaluate(checkpoint)
    draws, corrected = evaluation.draws, evaluation.corrected
    estimates = estimate(draws, corrected, analysis.particles_per_component(config))
    write_posterior(
        directory, draws, corrected, config.evaluation.posterior_samples, checkpoint.streams.evaluation
    )
    final = FinalPosterior.of(evaluation.mixture, evaluation.correlations, corrected)
    save_final(directory.final_posterior, final)
    marginal = estimates.marginal_log_likelihood
    evidence = RunEvidence(
        pareto_k=estimates.pareto_k,
        ess=estimates.ess,
        log_marginal=marginal.pooled,
        standard_error=marginal.standard_error,
        rise=bound_rise(metrics_of(directory)),
        trained=checkpoint.num_steps / (checkpoint.steps_before + checkpoint.training.num_steps),
        outside=None if growth is None else (growth.mass_outside, config.growth.max_outside),
    )
    result = RunResult(
        **estimates.model_dump(),
        refit=evaluation.refit,
        support_growth=growth,
        seconds=Seconds(
            support=checkpoint.support_seconds,
            training=checkpoint.training_seconds,
            evaluation=time.perf_counter() - began,
        ),
        iterations=checkpoint.num_steps,
        ms_per_iteration=_ms_per_iteration(directory, checkpoint),
        seed=config.seed,
        versions=versions(),
        provenance=Provenance(
            command=read_command(directory.config) or sys.argv,
            data=str(config.data.dataset or config.data.alignment),
            data_sha256=analysis.data_digest(patterns),
            model=config.data.model,
            support=checkpoint.sample.source,
            num_taxa=patterns.num_taxa,
            num_sites=round(patterns.num_sites),
            num_patterns=patterns.num_patterns,
            num_parameters=evaluation.mixture.support.num_parameters,
            device=config.machine.device,
            threads=config.machine.threads,
            platform=platform.platform(),
        ),
    )
    result = result.judged(judge([evidence]))
    write_result(directory.result, result)
    return result


def save(checkpoint: Checkpoint, directory: RunDirectory) -> None:
    """Write the checkpoint, whole or not at all."""
    write_checkpoint(directory, checkpoint.save)


def _forget_after(directory: RunDirectory, iteration: int) -> None:
    """Drop the metrics of iterations after the checkpoint: they will be done again."""
    keep_metrics(directory, [record for record in metrics_of(directory) if record["iteration"] <= iteration])


def metrics_of(directory: RunDirectory) -> list[dict[str, Any]]:
    """Records of ``metrics.jsonl``, as far as it is there and can be read."""
    return read_metrics(directory, {"iteration", "seconds", "bound", "inverse_temperature"})


def _ms_per_iteration(directory: RunDirectory, checkpoint: Checkpoint) -> float:
    """Median over the reports of the time an iteration took, in milliseconds: compilation hardly counts.

    Where reports are missing it is the mean over all iterations.
    """
    records = metrics_of(directory)
    if not math.isclose(sum(record["seconds"] for record in records), checkpoint.training_seconds):
        return 1000 * checkpoint.training_seconds / checkpoint.num_steps
    ends = [record["iteration"] for record in records]
    steps = [end - start for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    return statistics.median(
        1000 * record["seconds"] / num_steps for record, num_steps in zip(records, steps, strict=True)
    )
