"""The training loop: step after step, with a report every so often.

The loop writes nothing and prints nothing. It yields `Progress`, between which the caller logs, saves a
checkpoint, draws a progress bar, or stops.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

from vbpi_mix.seeding import RandomStreams
from vbpi_mix.training.config import MixtureConfig, OptimisationConfig
from vbpi_mix.training.state import Engine, StepDraw, StepSettings


@dataclass(frozen=True)
class Progress:
    """Where training stands.

    Attributes:
        step: Steps done.
        num_steps: Steps in all.
        bound: Mean of the bound over the steps since the last report, in nats. While the inverse
            temperature is below 1
            it is the bound of the tempered posterior.
        inverse_temperature: beta of the last step.
        topology_rate: Learning rate of the last step.
        seconds: Time the steps since the last report took, reporting excluded.
    """

    step: int
    num_steps: int
    bound: float
    inverse_temperature: float
    topology_rate: float
    seconds: float


def train(
    engine: Engine,
    streams: RandomStreams,
    mixture: MixtureConfig,
    optimisation: OptimisationConfig,
    num_taxa: int,
    report_every: int = 100,
) -> Iterator[Progress]:
    """Train from where the state stands to the last step, with a report at least every `report_every` steps.

    Raises:
        NonFiniteError: A bound was not finite; the engine's state is that before the step.
    """
    num_steps = optimisation.num_steps
    stop, num_coordinates = engine.state().step, engine.state().mixture.num_coordinates
    while (start := stop) < num_steps:
        stop = min(num_steps, start - start % report_every + report_every)
        began = time.perf_counter()
        bounds = []
        for step in range(start, stop):
            settings = StepSettings.of_step(step, optimisation)
            draw = StepDraw.from_streams(streams, mixture, num_taxa, num_coordinates)
            bounds.append(engine.step(draw, settings))
        yield Progress(
            step=stop,
            num_steps=num_steps,
            bound=math.fsum(bounds) / len(bounds),
            inverse_temperature=settings.inverse_temperature,
            topology_rate=settings.topology_rate,
            seconds=time.perf_counter() - began,
        )
