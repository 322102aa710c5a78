"""The Python interface: fit a posterior to an alignment, ask it questions.

The stages are those of the command line (`vbpi_mix.results.analysis`), without a run directory; but runs that
the command line has made can be opened from theirs.
"""

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from vbpi_mix.alignment import Alignment
from vbpi_mix.datasets import dataset_info
from vbpi_mix.errors import ConfigurationError
from vbpi_mix.results import analysis
from vbpi_mix.results.analysis import Evaluation
from vbpi_mix.results.comparison import Agreement, compare_drawn, compare_exact
from vbpi_mix.results.correction import CorrectedPosterior, importance_resample
from vbpi_mix.results.draws import PosteriorDraws
from vbpi_mix.results.finished_run import FinishedRuns
from vbpi_mix.results.posterior_files import write_posterior
from vbpi_mix.results.result import Estimates, estimate
from vbpi_mix.results.run_directory import RunDirectory
from vbpi_mix.shapes import Topologies
from vbpi_mix.training.checkpoint import Checkpoint
from vbpi_mix.training.config import RunConfig
from vbpi_mix.training.loop import Progress, train
from vbpi_mix.trees.samples import TreeDraws, TreeSample, read_tree_sample


def dataset_trees(name: str) -> TreeSample:
    """Bundled bootstrap trees of a bundled data set, in the order of taxa of its alignment.

    Raises:
        AlignmentError: There is no such data set.
    """
    info = dataset_info(name)
    return read_tree_sample(info.support_path)


def fit(
    alignment: Alignment,
    trees: TreeSample,
    *,
    seed: int = 0,
    model: str = "",
    priors: Mapping[str, Any] | None = None,
    mixture: Mapping[str, Any] | None = None,
    optimisation: Mapping[str, Any] | None = None,
    growth: Mapping[str, Any] | None = None,
    evaluation: Mapping[str, Any] | None = None,
    machine: Mapping[str, Any] | None = None,
    report: Callable[[Progress], None] | None = None,
) -> "Posterior":
    """A mixture trained on an alignment.

    Args:
        alignment: The data.
        trees: Trees that the support is built from, of the same taxa in the same order.
        seed: Seed of all random streams; the same seed gives the same posterior.
        model: Substitution model, as IQ-TREE names it, such as ``HKY+F`` or ``JC``; by default GTR+F+G4.
        priors: Settings of `vbpi_mix.training.config.PriorsConfig`: of the model's free parameters.
        mixture: Settings of `vbpi_mix.training.config.MixtureConfig`, such as ``{"components": 3}``.
        optimisation: Settings of `vbpi_mix.training.config.OptimisationConfig`, such as
            ``{"iterations": 2000}``.
        growth: Settings of `vbpi_mix.training.config.GrowthConfig`, such as ``{"enabled": True}``; by default
            the support stays as it is.
        evaluation: Settings of `vbpi_mix.training.config.EvaluationConfig`.
        machine: Settings of `vbpi_mix.training.config.MachineConfig`, such as ``{"threads": 2}``.
        report: Called now and then with the progress of training.

    Raises:
        ConfigurationError: The trees' taxa are not the alignment's, in the same order.
        pydantic.ValidationError: A setting is unknown or out of range.
        NonFiniteError: Training diverged.
    """
    _require_taxa(trees, alignment.taxa, alignment.source)
    config = RunConfig.model_validate(
        {
            "seed": seed,
            "runs": {"number": 1, "max_rounds": 1},
            "data": {"alignment": Path(alignment.source), "model": model, "priors": dict(priors or {})},
            "mixture": dict(mixture or {}),
            "optimisation": dict(optimisation or {}),
            "growth": {"enabled": False, **(growth or {})},
            "evaluation": dict(evaluation or {}),
            "machine": dict(machine or {}),
        }
    )
    checkpoint = analysis.start_run(config, alignment, trees)
    _train(checkpoint, report)
    while config.grows_support:
        outside = analysis.check_support(checkpoint)
        if not analysis.is_to_grow(checkpoint, outside):
            break
        checkpoint = analysis.grow_support(checkpoint, outside)
        _train(checkpoint, report)
    return Posterior(checkpoint)


def _train(checkpoint: Checkpoint, report: Callable[[Progress], None] | None) -> None:
    """Train to the end of a phase, in place."""
    config, engine = checkpoint.config, analysis.make_engine(checkpoint)
    for progress in train(
        engine,
        checkpoint.streams,
        config.mixture,
        checkpoint.training,
        checkpoint.patterns.num_taxa,
        config.machine.log_every,
    ):
        if report is not None:
            report(progress)
    engine.state()  # brings the checkpoint's state up to date


def open_run(folder: Path) -> "Posterior":
    """The posterior of a finished run of ``vbpi-mix run``, or of several that are combined.

    Args:
        folder: What was ``--out`` of the command.

    Raises:
        RunDirectoryError: There is no run, or it has not finished.
    """
    return Posterior(FinishedRuns.open(RunDirectory(folder)))


class Posterior:
    """A trained mixture, or several, and what importance draws from them tell about the posterior."""

    def __init__(self, source: Checkpoint | FinishedRuns) -> None:
        """Take over a trained state, or finished runs; nothing is drawn before something is asked."""
        self._source = source

    @property
    def taxa(self) -> tuple[str, ...]:
        """Names of the taxa."""
        return self._source.patterns.taxa if isinstance(self._source, Checkpoint) else self._source.taxa

    @property
    def config(self) -> RunConfig:
        """The resolved configuration; of several runs, that of the first."""
        return self._source.config

    @cached_property
    def evaluation(self) -> Evaluation:
        """The final mixture, refitted where that helps, with draws and the posterior corrected from them.

        Raises:
            ConfigurationError: The posterior is that of opened runs, which may be several.
        """
        if not isinstance(self._source, Checkpoint):
            raise ConfigurationError(
                "expected a posterior that was fitted, got one of opened runs: ask it itself"
            )
        return analysis.evaluate(self._source)

    @cached_property
    def _drawn(self) -> tuple[PosteriorDraws, CorrectedPosterior]:
        """Draws, and the posterior corrected from them."""
        if isinstance(self._source, Checkpoint):
            return self.evaluation.draws, self.evaluation.corrected
        particles = analysis.particles_per_component(self.config)
        generators = self._source.generators(None)
        return self._source.draw(self.config.evaluation, particles, generators, with_undrawn=True)

    def evaluate(self) -> Estimates:
        """Marginal likelihood, bounds, effective sample size and Pareto k-hat."""
        return estimate(*self._drawn, analysis.particles_per_component(self.config))

    def sample(self, num_trees: int, seed: int = 0) -> TreeDraws:
        """Trees with branch lengths from the posterior, importance-resampled.

        Resampling takes the importance weights' word: read `evaluate` first.

        Args:
            num_trees: How many; trees of large weight may come more than once.
            seed: Seed of the resampling.
        """
        draws, corrected = self._drawn
        chosen = importance_resample(
            corrected.log_draw_weights, draws.topology_index, num_trees, np.random.default_rng(seed)
        )
        return TreeDraws(
            taxa=self.taxa,
            children=draws.topologies[draws.topology_index[chosen]],
            branch_lengths=draws.branch_lengths[chosen],
            weights=np.ones(len(chosen)),
            source=f"posterior of {self.config.data.dataset or self.config.data.alignment}",
        )

    def topologies(self) -> TreeSample:
        """Topologies with their posterior probabilities, the most probable first."""
        corrected = self._drawn[1]
        order = np.argsort(-corrected.topology_probabilities, kind="stable")
        return TreeSample(
            self.taxa, corrected.topologies[order], corrected.topology_probabilities[order], "posterior"
        )

    def log_probability(self, children: Topologies) -> Float64[np.ndarray, "tree"]:
        """Exact log probability of topologies under the final mixture, in nats; -inf outside the support.

        That of several runs is the average of their mixtures.
        """
        if isinstance(self._source, Checkpoint):
            return self.evaluation.mixture.networks.log_mixture_probability_of(children)
        return self._source.log_probability(children)

    def compare(self, reference: TreeSample) -> dict[str, Agreement]:
        """Agreement of the final mixture and of the corrected posterior with another posterior.

        Args:
            reference: The other posterior, of the same taxa in the same order.

        Raises:
            ConfigurationError: The taxa are others, or in another order.
        """
        _require_taxa(reference, self.taxa, "the posterior")
        corrected = self._drawn[1]
        return {
            "mixture": compare_exact(reference.weights, self.log_probability(reference.children)),
            "corrected": compare_drawn(
                reference.children,
                reference.weights,
                corrected.topologies,
                corrected.log_topology_probabilities,
            ),
        }

    def write(self, folder: Path, num_trees: int = 10_000, seed: int = 0) -> None:
        """Write the posterior's files for other programs (NEXUS trees, topologies, consensus) into a folder.

        Args:
            folder: Where to; made if need be.
            num_trees: Trees in ``posterior.run1.t``, ``posterior.run2.t`` and so on together.
            seed: Seed of the resampling.
        """
        folder.mkdir(parents=True, exist_ok=True)
        write_posterior(
            RunDirectory(folder),
            *self._drawn,
            num_trees,
            np.random.default_rng(seed),
            None if isinstance(self._source, Checkpoint) else self._source.parts(self._drawn[0]),
        )


def _require_taxa(trees: TreeSample, taxa: tuple[str, ...], whose: str) -> None:
    """Refuse trees of other taxa, or of the same ones in another order: their numbers would mean others."""
    if trees.taxa != taxa:
        raise ConfigurationError(
            f"expected trees of the taxa of {whose}, in their order, got those of {trees.source}: "
            "read the trees with read_tree_sample(path, alignment.taxa)"
        )
