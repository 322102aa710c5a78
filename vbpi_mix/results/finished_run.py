"""Finished runs, opened from their directories: a single one, or several that are combined.

Everything that is asked of a finished run comes from fresh draws of its final mixture. Several runs are asked
alike, each for its part of the draws (`vbpi_mix.results.combination`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64, Int64
from scipy.special import logsumexp

from vbpi_mix.results import analysis
from vbpi_mix.results.combination import RunPosterior, average_topologies, combine
from vbpi_mix.results.correction import CorrectedPosterior, correct
from vbpi_mix.results.correlations import Correlations
from vbpi_mix.results.draws import PosteriorDraws
from vbpi_mix.results.posterior_files import FinalPosterior, load_final
from vbpi_mix.results.run_directory import RunDirectory
from vbpi_mix.results.sampling import draw_posterior
from vbpi_mix.sbn.network import SubsplitNetworks
from vbpi_mix.seeding import RandomStreams
from vbpi_mix.shapes import Topologies
from vbpi_mix.training.checkpoint import Checkpoint
from vbpi_mix.training.config import EvaluationConfig, RunConfig
from vbpi_mix.training.mixture import Mixture


@dataclass(frozen=True)
class FinishedRun:
    """One run after its evaluation.

    Attributes:
        checkpoint: Its last checkpoint.
        final: What the evaluation left behind.
        mixture: The mixture after the refit, the density of a model to estimate included.
        correlations: Correlations of its branch lengths, with each other and with the model.
    """

    checkpoint: Checkpoint
    final: FinalPosterior
    mixture: Mixture
    correlations: Correlations

    @classmethod
    def open(cls, directory: RunDirectory) -> "FinishedRun":
        """Read a run.

        Raises:
            RunDirectoryError: There is no run, or it has not finished.
        """
        directory.require_checkpoint()
        final = load_final(directory.final_posterior)
        checkpoint = Checkpoint.load(directory.checkpoint)
        trained = checkpoint.state.mixture
        networks = SubsplitNetworks.from_logits(trained.support, final.logits)
        mixture = Mixture(networks, trained.branches, final.model())
        correlations = Correlations(final.correlations, final.shifts, final.slopes)
        return cls(checkpoint, final, mixture, correlations)

    def draw(self, draws_per_component: int, generator: np.random.Generator) -> PosteriorDraws:
        """Fresh importance draws from the mixture."""
        config = self.checkpoint.config
        return draw_posterior(
            self.mixture,
            analysis.likelihood_of(self.checkpoint),
            analysis.branch_prior_of(config),
            draws_per_component,
            generator,
            self.correlations,
            config.machine.threads,
        )


@dataclass(frozen=True)
class FinishedRuns:
    """All runs of an analysis, one or more.

    Attributes:
        runs: The runs; they have the same data and configuration, but for the seed.
    """

    runs: tuple[FinishedRun, ...]

    @classmethod
    def open(cls, directory: RunDirectory) -> "FinishedRuns":
        """Read a directory of a run, or of several combined ones; each may use the threads of all.

        Raises:
            RunDirectoryError: There is no run, or one has not finished.
        """
        directory.require_run()
        runs = [FinishedRun.open(member) for member in directory.members()]
        threads = sum(run.checkpoint.config.machine.threads for run in runs)
        opened = []
        for run in runs:
            config = run.checkpoint.config
            machine = config.machine.model_copy(update={"threads": threads})
            config = config.model_copy(update={"machine": machine})
            opened.append(replace(run, checkpoint=replace(run.checkpoint, config=config)))
        analysis.use_threads(opened[0].checkpoint.config.machine)
        return cls(tuple(opened))

    @property
    def config(self) -> RunConfig:
        """Configuration of the first run."""
        return self.runs[0].checkpoint.config

    @property
    def taxa(self) -> tuple[str, ...]:
        """Names of the taxa."""
        return self.runs[0].checkpoint.patterns.taxa

    def generators(self, seed: int | None) -> list[np.random.Generator]:
        """Generators of fresh draws of each run: never those of the run itself.

        Args:
            seed: Seed of the first, the others have the seeds that follow; None: the runs' own.
        """
        seeds = [run.checkpoint.config.seed if seed is None else seed + i for i, run in enumerate(self.runs)]
        return [RandomStreams.from_seed(one).commands for one in seeds]

    def draw(
        self,
        evaluation: EvaluationConfig,
        particles: int,
        generators: Sequence[np.random.Generator],
        with_undrawn: bool = False,
    ) -> tuple[PosteriorDraws, CorrectedPosterior]:
        """Fresh draws, as many from each run and in all as an evaluation takes, and what they correct.

        Args:
            evaluation: Says how many.
            particles: Draws of each component in a repeat.
            generators: One for each run.
            with_undrawn: Whether to look for topologies that the draws lack.
        """
        repeats = -(-evaluation.repeats // len(self.runs))
        posteriors = []
        for run, generator in zip(self.runs, generators, strict=True):
            draws = run.draw(max(analysis.MIN_DRAWS, repeats * particles), generator)
            if with_undrawn:
                corrected = analysis.corrected_posterior(run.mixture, draws, generator)
            else:
                corrected = correct(draws)
            posteriors.append(RunPosterior(run.mixture.networks.log_mixture_probability_of, draws, corrected))
        return combine(posteriors)

    def parts(self, draws: PosteriorDraws) -> list[Int64[np.ndarray, "_"]] | None:
        """Indices of each run's draws among those of `draw`; None where there is one run."""
        if len(self.runs) == 1:
            return None
        return np.split(np.arange(draws.num_draws), len(self.runs))

    def final_topologies(self) -> tuple[Topologies, Float64[np.ndarray, "topology"]]:
        """Corrected topologies and their log probabilities, as the runs' own evaluations left them."""
        finals = [run.final for run in self.runs]
        if len(finals) == 1:
            return finals[0].topologies, finals[0].log_topology_probabilities
        return average_topologies(
            finals[0].topologies[:0], [(f.topologies, f.log_topology_probabilities) for f in finals]
        )

    def log_probability(self, children: Topologies) -> Float64[np.ndarray, "tree"]:
        """Exact log probability of topologies under the average of the runs' final mixtures, in nats."""
        return average_log_probability([run.mixture.networks for run in self.runs], children)


def average_log_probability(
    networks: Sequence[SubsplitNetworks], children: Topologies
) -> Float64[np.ndarray, "tree"]:
    """Exact log probability of topologies under the average of some mixtures, in nats; -inf outside."""
    each = np.array([one.log_mixture_probability_of(children) for one in networks])
    if len(each) == 1:
        return each[0]
    return logsumexp(each, axis=0) - np.log(len(each))
