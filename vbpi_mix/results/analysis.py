"""The stages of a run as functions: data and support, engine, evaluation. The command line joins them."""

import hashlib
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vbpi_mix.alignment import Alignment, read_alignment
from vbpi_mix.datasets import dataset_info, load_dataset
from vbpi_mix.likelihood.base import make_likelihood
from vbpi_mix.likelihood.estimated import AnyLikelihood, EstimatedModelLikelihood
from vbpi_mix.likelihood.model_names import parse_model
from vbpi_mix.likelihood.model_parameters import ModelTransform, make_transform
from vbpi_mix.likelihood.priors import ExponentialBranchPrior
from vbpi_mix.machine import check_torch_device
from vbpi_mix.patterns import SitePatterns, compress
from vbpi_mix.results.correction import CorrectedPosterior, CorrectionMethod, choose_method, correct
from vbpi_mix.results.correlations import Correlations
from vbpi_mix.results.draws import PosteriorDraws
from vbpi_mix.results.evaluation import equal_cost_particles
from vbpi_mix.results.outside import Outside, look_outside
from vbpi_mix.results.refit import RefitChoice, refit_mixture
from vbpi_mix.results.sampling import draw_posterior, find_undrawn
from vbpi_mix.sbn.support import build_support
from vbpi_mix.seeding import RandomStreams
from vbpi_mix.training.checkpoint import Checkpoint
from vbpi_mix.training.compiled import CompiledEngine
from vbpi_mix.training.config import DataConfig, MachineConfig, RunConfig
from vbpi_mix.training.growth import GrowthRound, grown_mixture, grown_sample
from vbpi_mix.training.mixture import Mixture
from vbpi_mix.training.state import Engine, TrainingState, initial_mixture
from vbpi_mix.training.support_routes import SupportRoute, SupportTrees, choose_route, find_support
from vbpi_mix.trees.samples import TreeSample

REFIT_DRAWS = 50_000
"""Draws that the refit learns from, over all components; no more than the evaluation uses."""

ADDED_SHARE = 0.999
"""Share of the posterior mass found outside the support that a round of growth adds to it."""

GROWTH_DRAWS = 10_000
"""Draws that the support is checked with, over all components."""

MIN_DRAWS = 10
"""Fewest draws of a component: what a ten-sample bound takes."""


@dataclass(frozen=True)
class Evaluation:
    """A trained mixture, refitted where that helps, with draws from it.

    Attributes:
        mixture: The mixture that the draws come from.
        correlations: Correlations of its branch lengths, which the refit has found; zeros without one.
        refit: What the refit did; None where the configuration asks for none.
        draws: Importance draws.
        corrected: The posterior corrected from them.
    """

    mixture: Mixture
    correlations: Correlations
    refit: RefitChoice | None
    draws: PosteriorDraws
    corrected: CorrectedPosterior


def read_data(data: DataConfig) -> Alignment:
    """The alignment that a configuration names.

    Raises:
        AlignmentError: The file cannot be read, or there is no such data set.
    """
    if data.dataset is not None:
        return load_dataset(data.dataset)
    assert data.alignment is not None  # the configuration has one of the two
    return read_alignment(data.alignment)


def find_support_trees(config: RunConfig, alignment: Alignment) -> SupportTrees:
    """The trees that the support is built from, by the first route that is open.

    Raises:
        TreeFormatError: The file of trees cannot be read, or its taxa are not the alignment's.
        VbpiMixError: The program that was to make them failed.
    """
    data = config.data
    return find_support(
        alignment,
        config.seed,
        given=data.support,
        bundled=_bundled_trees(data),
        model=data.model,
        threads=config.machine.threads,
    )


def support_route(data: DataConfig, alignment: Alignment) -> SupportRoute:
    """The route that `find_support_trees` will take."""
    return choose_route(alignment, data.support, _bundled_trees(data))


def _bundled_trees(data: DataConfig) -> Path | None:
    """File of a data set's bundled trees; None for an alignment of the user's."""
    return dataset_info(data.dataset).support_path if data.dataset is not None else None


def start_run(config: RunConfig, alignment: Alignment, sample: TreeSample | None = None) -> Checkpoint:
    """State of a new run before its first step: support built, parameters initialised.

    Args:
        config: Configuration of the run.
        alignment: The data.
        sample: Trees that the support is built from; without them, those of `find_support_trees`.
    """
    began = time.perf_counter()
    if sample is None:
        sample = find_support_trees(config, alignment).sample
    support = build_support(sample.children, alignment.taxa)
    patterns = compress(alignment)
    start = transform_of(config.data, patterns).start()
    mixture = initial_mixture(support, sample, config.mixture, config.optimisation, start)
    return Checkpoint(
        config=config,
        patterns=patterns,
        sample=sample,
        state=TrainingState.initial(mixture),
        streams=RandomStreams.from_seed(config.seed),
        training_seconds=0.0,
        support_seconds=time.perf_counter() - began,
    )


def make_engine(checkpoint: Checkpoint) -> Engine:
    """The engine that the configuration asks for; it updates the checkpoint's state in place."""
    config, state = checkpoint.config, checkpoint.state
    likelihood, prior = likelihood_of(checkpoint, config.machine.dtype), branch_prior_of(config)
    match config.machine.engine:
        case "compiled":
            return CompiledEngine(state, likelihood, prior, config.mixture, config.optimisation)
        case "torch":
            from vbpi_mix.likelihood.torch_kernel import TorchLikelihood
            from vbpi_mix.training.torch_engine import TorchEngine

            # it is made for the same engine, which the configuration gives no model to estimate
            assert isinstance(likelihood, TorchLikelihood)
            return TorchEngine(state, likelihood, prior, config.optimisation, config.machine.device)


def transform_of(data: DataConfig, patterns: SitePatterns) -> ModelTransform:
    """The substitution model that a configuration names, with its priors, for data."""
    return make_transform(parse_model(data.model), patterns, data.priors.densities())


def likelihood_of(checkpoint: Checkpoint, dtype: str = "float64") -> AnyLikelihood:
    """Likelihood of a run's data, by the engine that its configuration asks for.

    Args:
        checkpoint: The run.
        dtype: Precision; training may do with less than evaluation.

    Raises:
        ConfigurationError: The device cannot be used.
    """
    machine = checkpoint.config.machine
    check_device(machine)
    transform = transform_of(checkpoint.config.data, checkpoint.patterns)
    if transform.num_coordinates:
        return EstimatedModelLikelihood(checkpoint.patterns, transform, threads=machine.threads, dtype=dtype)
    return make_likelihood(
        checkpoint.patterns,
        transform.model(),
        threads=machine.threads if machine.engine == "compiled" else 1,  # torch's own are the process's
        dtype=dtype,
        engine=machine.engine,
        device=machine.device,
    )


def branch_prior_of(config: RunConfig) -> ExponentialBranchPrior:
    """Prior of branch lengths of a run."""
    return ExponentialBranchPrior(config.data.branch_prior_rate)


def evaluate(checkpoint: Checkpoint) -> Evaluation:
    """Refit a trained mixture, if the configuration says so, and draw from it.

    All random numbers come from the checkpoint's evaluation stream.
    """
    config, generator = checkpoint.config, checkpoint.streams.evaluation
    likelihood, prior = likelihood_of(checkpoint), branch_prior_of(config)
    mixture, refit = checkpoint.state.mixture, None
    correlations = Correlations.none(mixture)
    num_components, threads = config.mixture.components, config.machine.threads
    enough = config.evaluation.enough_ess
    draws_per_component = max(MIN_DRAWS, config.evaluation.repeats * particles_per_component(config))
    if config.evaluation.refit:
        learn = min(draws_per_component, max(MIN_DRAWS, REFIT_DRAWS // num_components))
        learnt = draw_posterior(mixture, likelihood, prior, learn, generator, correlations, threads, enough)
        mixture, correlations, refit = refit_mixture(mixture, learnt)
    draws = draw_posterior(
        mixture, likelihood, prior, draws_per_component, generator, correlations, threads, enough
    )
    return Evaluation(mixture, correlations, refit, draws, corrected_posterior(mixture, draws, generator))


def check_support(checkpoint: Checkpoint) -> Outside:
    """Look for posterior mass just outside the support; random numbers come from the stream for growth."""
    config, mixture = checkpoint.config, checkpoint.state.mixture
    likelihood, generator = likelihood_of(checkpoint), checkpoint.streams.growth
    draws = draw_posterior(
        mixture,
        likelihood,
        branch_prior_of(config),
        max(MIN_DRAWS, GROWTH_DRAWS // mixture.num_components),
        generator,
        threads=config.machine.threads,
    )

    def log_likelihood(children: np.ndarray, branch_lengths: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        models = () if draws.coordinates is None else (draws.coordinates[drawn],)
        return likelihood.value(children, branch_lengths, *models)

    return look_outside(
        draws,
        correct(draws),
        mixture.networks,
        log_likelihood,
        config.data.branch_prior_rate,
        generator,
    )


def is_to_grow(checkpoint: Checkpoint, outside: Outside) -> bool:
    """Whether so much lies outside the support that it is to grow, and it may."""
    growth = checkpoint.config.growth
    return outside.mass > growth.max_outside and len(checkpoint.growth) < growth.max_rounds


def grow_support(checkpoint: Checkpoint, outside: Outside) -> Checkpoint:
    """The run with what matters outside its support added to it, before its next phase of training."""
    began = time.perf_counter()
    old = checkpoint.state.mixture
    shares = np.cumsum(outside.near.masses) / outside.near.masses.sum()
    num_added = 1 + int(np.searchsorted(shares, ADDED_SHARE))
    added = outside.near.first(min(num_added, checkpoint.config.growth.max_topologies))
    sample = grown_sample(checkpoint.sample, added)
    mixture = grown_mixture(old, sample, added, outside.topologies, outside.probabilities)
    done = GrowthRound(
        mass_outside=outside.mass,
        num_topologies=len(added.children),
        num_parameters=mixture.support.num_parameters - old.support.num_parameters,
    )
    return replace(
        checkpoint,
        sample=sample,
        state=TrainingState.initial(mixture),
        support_seconds=checkpoint.support_seconds + time.perf_counter() - began,
        growth=(*checkpoint.growth, done),
        steps_before=checkpoint.num_steps,
        rounds_before=checkpoint.config.optimisation.rounds,
    )


def corrected_posterior(
    mixture: Mixture, draws: PosteriorDraws, generator: np.random.Generator
) -> CorrectedPosterior:
    """The posterior corrected from draws, and topologies of the mixture that they lack where those count.

    Args:
        mixture: The mixture that the draws come from.
        draws: Importance draws.
        generator: Source of the random numbers that find undrawn topologies.
    """
    undrawn = None
    if choose_method(draws) is CorrectionMethod.RAO_BLACKWELLISED:
        undrawn = find_undrawn(mixture, draws, draws.num_draws // draws.num_components, generator)
    return correct(draws, undrawn=undrawn)


def particles_per_component(config: RunConfig) -> int:
    """Draws of each component in one estimate of the marginal likelihood: the cost does not depend on A."""
    return equal_cost_particles(config.mixture.components, config.evaluation.samples)


def data_digest(patterns: SitePatterns) -> str:
    """SHA-256 of the taxa, site patterns and pattern weights: the data as the likelihood sees them."""
    digest = hashlib.sha256("\n".join(patterns.taxa).encode())
    digest.update(np.ascontiguousarray(patterns.states).tobytes())
    digest.update(np.ascontiguousarray(patterns.weights).tobytes())
    return digest.hexdigest()


def use_threads(machine: MachineConfig) -> None:
    """Let torch use the configured threads, where it is the engine: in the whole process, so for programs."""
    if machine.engine == "torch":
        import torch

        torch.set_num_threads(machine.threads)


def check_device(machine: MachineConfig) -> None:
    """Refuse a device that the engine cannot use.

    Raises:
        ConfigurationError: Such a device was asked for.
    """
    if machine.engine == "torch":
        check_torch_device(machine.device)
