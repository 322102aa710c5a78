"""Random generators: one seed a run, one separate stream for each purpose.

Whatever draws takes a generator; nothing touches a global one. The streams are independent of each other,
so that, for instance, evaluating more often does not change what training draws.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

STREAMS = (
    *("initialisation", "topologies", "branch_lengths", "component_choice", "evaluation", "commands"),
    "models",
    "growth",
)
"""Names of a run's streams. Append only: the position seeds the stream.

Nothing draws from ``initialisation``: mixtures start from frequencies or zeros. It keeps its place for the
sake of the others' seeds. ``evaluation`` is for the run itself, ``commands`` for commands on a finished one.
"""


@dataclass(frozen=True)
class RandomStreams:
    """The random generators of a run."""

    initialisation: np.random.Generator
    topologies: np.random.Generator
    branch_lengths: np.random.Generator
    component_choice: np.random.Generator
    evaluation: np.random.Generator
    commands: np.random.Generator
    models: np.random.Generator
    growth: np.random.Generator

    @classmethod
    def from_seed(cls, seed: int) -> "RandomStreams":
        """Fresh streams of a run's seed (a non-negative integer)."""
        children = np.random.SeedSequence(seed).spawn(len(STREAMS))
        return cls(
            **{
                name: np.random.Generator(np.random.PCG64(s))
                for name, s in zip(STREAMS, children, strict=True)
            }
        )

    def state(self) -> dict[str, Any]:
        """States of all streams, as plain numbers and strings, for a checkpoint."""
        return {name: getattr(self, name).bit_generator.state for name in STREAMS}

    def restore(self, state: dict[str, Any]) -> None:
        """Set the streams to a state that `state` returned; streams newer than the state stay as they are."""
        for name in STREAMS:
            if name in state:
                getattr(self, name).bit_generator.state = state[name]
