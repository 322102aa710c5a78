"""Checkpoints: everything that training and evaluation need to go on from a file, with no other file at hand.

A checkpoint is a torch file of plain numbers, strings and tensors, readable with ``weights_only``. It holds
the configuration, the data (site patterns), the trees the support is made from, the training state and the
states of the random streams. Writing it atomically is the caller's part.
"""

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vbpi_mix.errors import RunDirectoryError
from vbpi_mix.patterns import SitePatterns
from vbpi_mix.sbn.support import build_support
from vbpi_mix.seeding import RandomStreams
from vbpi_mix.torch_files import read_torch_file
from vbpi_mix.training.config import OptimisationConfig, RunConfig
from vbpi_mix.training.growth import GrowthRound
from vbpi_mix.training.state import TrainingState, initial_mixture
from vbpi_mix.trees.samples import TreeSample

VERSION = 2


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        config: Configuration of the run.
        patterns: The data.
        sample: Trees that the support was built from.
        state: Training state. Its steps are those of the present phase: of the first training, or of that
            after the last round of growth.
        streams: Random streams, as they were after the state's last step.
        training_seconds: Time spent in training steps so far.
        support_seconds: Time spent on finding the trees, building the support, checking and growing it.
        growth: Rounds of the support's growth so far.
        steps_before: Steps of the phases before.
        rounds_before: Rounds of training (`OptimisationConfig.rounds`) done in the phases before.
    """

    config: RunConfig
    patterns: SitePatterns
    sample: TreeSample
    state: TrainingState
    streams: RandomStreams
    training_seconds: float
    support_seconds: float
    growth: tuple[GrowthRound, ...] = ()
    steps_before: int = 0
    rounds_before: int = 0

    @property
    def num_steps(self) -> int:
        """Training steps done in all phases."""
        return self.steps_before + self.state.step

    @property
    def training(self) -> OptimisationConfig:
        """How to train in the present phase: as configured, after growth briefly, or for further rounds."""
        further = self.config.optimisation.rounds - self.rounds_before
        if not self.growth:
            return self.config.optimisation
        if further == 0:
            return self.config.training_after_growth()
        return self.config.training_of_further_rounds(self.rounds_before, further)

    @property
    def is_out_of_time(self) -> bool:
        """Whether training has had all the time that it may take."""
        return self.training_seconds >= (self.config.machine.training_seconds or math.inf)

    def continued(self, config: RunConfig) -> "Checkpoint":
        """The same with another configuration, which may ask for further rounds of training.

        In a run whose support has grown they are a phase of their own.
        """
        if not self.growth or config.optimisation.rounds == self.config.optimisation.rounds:
            return replace(self, config=config)
        return replace(
            self,
            config=config,
            state=replace(self.state, step=0),
            steps_before=self.num_steps,
            rounds_before=self.config.optimisation.rounds,
        )

    def save(self, path: Path) -> None:
        """Write to a file."""
        import torch

        def tensor(array: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(np.ascontiguousarray(array))

        content = {
            "version": VERSION,
            "config": self.config.model_dump_json(),
            "taxa": list(self.patterns.taxa),
            "patterns": {"states": tensor(self.patterns.states), "weights": tensor(self.patterns.weights)},
            "sample": {
                "children": tensor(self.sample.children.astype(np.int16)),
                "weights": tensor(self.sample.weights),
                "source": self.sample.source,
            },
            "step": self.state.step,
            "state": {name: tensor(array) for name, array in self.state.arrays().items()},
            "streams": json.dumps(self.streams.state()),
            "training_seconds": self.training_seconds,
            "support_seconds": self.support_seconds,
            "growth": [asdict(one) for one in self.growth],
            "steps_before": self.steps_before,
            "rounds_before": self.rounds_before,
        }
        torch.save(content, path)

    @classmethod
    def load(cls, path: Path) -> "Checkpoint":
        """Read a file that `save` wrote.

        Raises:
            RunDirectoryError: It cannot be read, or another version of the program wrote it in another form.
        """
        content = read_torch_file(path, "a checkpoint of vbpi-mix", VERSION)
        try:
            return cls._of_content(content)
        except (KeyError, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise RunDirectoryError(
                f"{path}: expected a checkpoint of this version of vbpi-mix, but it is of another "
                f"({reason}): use the version that wrote it, or start the run again"
            ) from None

    @classmethod
    def _of_content(cls, content: dict[str, Any]) -> "Checkpoint":
        """The checkpoint that the content of a file of this version describes."""
        config = RunConfig.model_validate_json(content["config"])
        taxa = tuple(content["taxa"])
        patterns = SitePatterns(
            taxa, content["patterns"]["states"].numpy(), content["patterns"]["weights"].numpy()
        )
        stored = content["sample"]
        sample = TreeSample(
            taxa, stored["children"].numpy().astype(np.int32), stored["weights"].numpy(), stored["source"]
        )
        support = build_support(sample.children, taxa)
        # Every array is set to the stored one below; of the model only the number of coordinates matters.
        table = content["state"].get("model_table")
        start = None if table is None else np.zeros(table.shape[1])
        mixture = initial_mixture(support, sample, config.mixture, config.optimisation, start)
        state = TrainingState.initial(mixture)
        state.restore(content["step"], {name: array.numpy() for name, array in content["state"].items()})
        streams = RandomStreams.from_seed(config.seed)
        streams.restore(json.loads(content["streams"]))
        return cls(
            config=config,
            patterns=patterns,
            sample=sample,
            state=state,
            streams=streams,
            training_seconds=content["training_seconds"],
            support_seconds=content["support_seconds"],
            growth=tuple(GrowthRound(**one) for one in content["growth"]),
            steps_before=content["steps_before"],
            rounds_before=content["rounds_before"],
        )
