"""How long a run will take: a rehearsal in miniature, and iterations planned for a budget of time.

Schedules are shares of the run, so the number of iterations must be known before the first one. A budget is
planned for as follows. What is left of it when the support is made and the rehearsal done pays first for the
evaluation, by the pace of drawing that was measured, and for start and end of the processes; nine tenths of
the rest are for training, by the pace of steps, as much as the configuration asks for at most. Where the
support may grow, that includes the training after one round of growth. An evaluation that may stop by itself
is paid for with `LEAST_REPEATS` at first; what training leaves is for more. Should the machine turn out
slower, or the support grow more often, training stops when all of the rest is spent.
"""

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from vbpi_mix.errors import ConfigurationError, NonFiniteError
from vbpi_mix.results import analysis
from vbpi_mix.results.posterior_files import write_posterior
from vbpi_mix.results.run_directory import RunDirectory
from vbpi_mix.results.sampling import draw_posterior
from vbpi_mix.training.checkpoint import Checkpoint
from vbpi_mix.training.config import EvaluationConfig, RunConfig
from vbpi_mix.training.state import StepDraw, StepSettings

MIN_ITERATIONS = 200
"""Fewest iterations that a budget must pay for."""

LEAST_REPEATS = 10
"""Fewest repeats that a budget must pay for, where an evaluation may stop by itself."""

FIXED_SECONDS = 10.0
"""For starting processes, loading compiled code, refitting, writing files and the page."""

CROWDING = 1.4
"""How much longer steps and draws take while other runs are made, each with cores of its own: cores share
caches and memory, and two of them are often one that does two things at a time."""

CHECKS = 4
"""Time for checks of the support, in times of their draws: two checks, each twice as long as its draws."""

TIMED_SECONDS = 0.2
"""Time that measuring the pace of steps takes, about."""


@dataclass(frozen=True)
class Pace:
    """What things take on this machine, with the run's threads.

    Attributes:
        step: Seconds of a training step.
        draw: Seconds of an importance draw.
    """

    step: float
    draw: float

    def crowded(self) -> "Pace":
        """The pace while other runs are made."""
        return Pace(CROWDING * self.step, CROWDING * self.draw)


def rehearse(directory: RunDirectory) -> Pace:
    """Go through a run in miniature: it compiles what is not compiled yet, and shows the pace.

    Args:
        directory: Of a run whose first checkpoint is written; nothing in it changes.
    """
    checkpoint = Checkpoint.load(directory.checkpoint)
    config = checkpoint.config
    small = EvaluationConfig(repeats=2, samples=25, posterior_samples=2, refit=config.evaluation.refit)
    checkpoint = replace(checkpoint, config=config.model_copy(update={"evaluation": small}))
    engine, settings = analysis.make_engine(checkpoint), StepSettings.of_step(0, config.optimisation)
    num_taxa, num_coordinates = checkpoint.patterns.num_taxa, checkpoint.state.mixture.num_coordinates

    def step() -> None:
        draw = StepDraw.from_streams(checkpoint.streams, config.mixture, num_taxa, num_coordinates)
        engine.step(draw, settings)

    step()
    num_steps, seconds_of_steps = 0, 0.0
    began = time.perf_counter()
    while seconds_of_steps < TIMED_SECONDS:
        step()
        num_steps, seconds_of_steps = num_steps + 1, time.perf_counter() - began
    engine.state()
    seconds_of_step = seconds_of_steps / num_steps
    try:
        evaluation = analysis.evaluate(checkpoint)
        with tempfile.TemporaryDirectory() as folder:
            write_posterior(
                RunDirectory(Path(folder)),
                evaluation.draws,
                evaluation.corrected,
                small.posterior_samples,
                checkpoint.streams.evaluation,
            )
        return Pace(seconds_of_step, _seconds_of_a_draw(checkpoint, evaluation))
    except NonFiniteError:  # the mixture is not trained; a draw then costs no more than it does in a step
        trees = config.mixture.num_sampled * config.mixture.particles
        return Pace(seconds_of_step, seconds_of_step / trees)


def _seconds_of_a_draw(checkpoint: Checkpoint, evaluation: analysis.Evaluation) -> float:
    """Seconds of one draw of the evaluation, everything being compiled."""
    num_draws, began = 200, time.perf_counter()
    draw_posterior(
        evaluation.mixture,
        analysis.likelihood_of(checkpoint),
        analysis.branch_prior_of(checkpoint.config),
        num_draws,
        checkpoint.streams.evaluation,
        evaluation.correlations,
        checkpoint.config.machine.threads,
    )
    return (time.perf_counter() - began) / (num_draws * checkpoint.config.mixture.components)


def evaluation_seconds(config: RunConfig, pace: Pace) -> float:
    """What evaluating a run takes after its training, and its share of combining several, about."""
    draws = config.evaluation.repeats * config.evaluation.samples
    learnt = min(draws, analysis.REFIT_DRAWS) if config.evaluation.refit else 0
    looked = CHECKS * analysis.GROWTH_DRAWS if config.grows_support else 0
    return FIXED_SECONDS + (learnt + 2 * draws + looked) * pace.draw


def plan_training(config: RunConfig, pace: Pace, seconds: float) -> RunConfig:
    """A configuration whose run takes no longer than `seconds`, evaluation included.

    Args:
        config: Configuration of the run, which is yet to begin.
        pace: What things take.
        seconds: Time that is left.

    Raises:
        ConfigurationError: That is too little.
    """
    most = config.evaluation.repeats
    planned = config if config.evaluation.enough_ess is None else _repeated(config, min(most, LEAST_REPEATS))
    left = seconds - evaluation_seconds(planned, pace)
    step = pace.step * (1 + config.growth.training if config.grows_support else 1)
    iterations = min(config.optimisation.iterations, int(0.9 * left / step))
    if iterations < MIN_ITERATIONS:
        least = MIN_ITERATIONS * step / 0.9 + evaluation_seconds(planned, pace) - seconds
        raise ConfigurationError(
            f"--budget: expected about {least:.0f} s more: {max(0.0, seconds):.0f} s were left for "
            "training and evaluation; give more time, or fewer --repeats"
        )
    for repeats in range(planned.evaluation.repeats, most + 1):
        more = _repeated(config, repeats)
        if evaluation_seconds(more, pace) + iterations * step / 0.9 > seconds:
            break
        planned = more
    optimisation = config.optimisation.model_copy(update={"iterations": iterations})
    machine = config.machine.model_copy(update={"training_seconds": left})
    return planned.model_copy(update={"optimisation": optimisation, "machine": machine})


def _repeated(config: RunConfig, repeats: int) -> RunConfig:
    """A configuration with another number of repeats."""
    evaluation = config.evaluation.model_copy(update={"repeats": repeats})
    return config.model_copy(update={"evaluation": evaluation})
