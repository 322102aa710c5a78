"""Densities of a model's parameters: closed forms, the derivative of a whole step's bound, resuming."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from vbpi_mix.branches.densities import log_density, transform
from vbpi_mix.errors import NonFiniteError
from vbpi_mix.likelihood.estimated import EstimatedModelLikelihood
from vbpi_mix.likelihood.model_names import parse_model
from vbpi_mix.likelihood.model_parameters import make_transform
from vbpi_mix.likelihood.models import SubstitutionModel
from vbpi_mix.likelihood.reference import log_likelihood
from vbpi_mix.objectives.gradients import BranchGradient, TopologyGradient
from vbpi_mix.sbn.network import draw_topologies
from vbpi_mix.seeding import RandomStreams
from vbpi_mix.training.checkpoint import Checkpoint
from vbpi_mix.training.compiled import CompiledEngine
from vbpi_mix.training.config import MixtureConfig, OptimisationConfig, RunConfig
from vbpi_mix.training.loop import train
from vbpi_mix.training.model_density import ModelDensity
from vbpi_mix.training.state import StepDraw, StepSettings, TrainingState, initial_mixture

MODEL = "HKY+FO+I+G2"
OPTIMISATION = OptimisationConfig(iterations=10)


def random_density(num_components, size, seed=3):
    rng = np.random.default_rng(seed)
    root = 0.4 * rng.normal(size=(num_components, size, size)) + np.eye(size)
    return ModelDensity.of_moments(rng.normal(size=(num_components, size)), root @ root.transpose(0, 2, 1))


def problem_transform(problem, model=MODEL):
    return make_transform(parse_model(model), problem.patterns)


def disturbed_state(problem, mixture):
    """A state whose components differ, in the model too."""
    state = problem.state(mixture, OPTIMISATION)
    transform = problem_transform(problem)
    density = random_density(mixture.components, transform.num_coordinates)
    density.table[:, :, 0] = transform.start() + 0.2 * density.table[:, :, 0]
    size = transform.num_coordinates
    density.table[:, range(size), range(1, size + 1)] -= 1.0
    state.mixture.model = density
    return TrainingState.initial(state.mixture)


def engine_of(problem, mixture, state, optimisation=OPTIMISATION):
    likelihood = EstimatedModelLikelihood(problem.patterns, problem_transform(problem))
    return CompiledEngine(state, likelihood, problem.prior, mixture, optimisation)


def draw_of(problem, mixture, seed=5):
    num_coordinates = problem_transform(problem).num_coordinates
    return StepDraw.from_streams(
        RandomStreams.from_seed(seed), mixture, problem.patterns.num_taxa, num_coordinates
    )


def test_moments_and_draws_are_those_asked_for():
    density = random_density(2, 4)
    factor = density.factor()
    assert (np.triu(factor, 1) == 0).all()
    again = ModelDensity.of_moments(density.mean, factor @ factor.transpose(0, 2, 1))
    np.testing.assert_allclose(again.table, density.table, rtol=0, atol=1e-12)
    noise = np.random.default_rng(1).normal(size=(40_000, 4))
    draws = density.draw(np.ones(40_000, np.int32), np.array([0, 1], np.int32), noise)
    # standard errors of means and covariances are below 0.02
    np.testing.assert_allclose(draws.coordinates.mean(0), density.mean[1], atol=0.06)
    np.testing.assert_allclose(
        np.cov(draws.coordinates.T), (factor @ factor.transpose(0, 2, 1))[1], atol=0.15
    )


def test_densities_are_those_of_scipy():
    density = random_density(3, 4)
    noise = np.random.default_rng(1).normal(size=(6, 4))
    draws = density.draw(np.array([0, 0, 1, 1, 0, 1]), np.array([0, 2], np.int32), noise)
    factor = density.factor()
    for d, component in enumerate((0, 2)):
        covariance = factor[component] @ factor[component].T
        expected = multivariate_normal(density.mean[component], covariance).logpdf(draws.coordinates)
        np.testing.assert_allclose(draws.log_density[:, d], expected, rtol=1e-12)


def test_a_table_with_entries_above_the_diagonal_is_refused():
    with pytest.raises(ValueError, match="zeros above the diagonal"):
        ModelDensity(np.ones((1, 2, 3)))


CASES = [
    {"components": 1, "particles": 3},
    {"components": 2, "particles": 2},
    {"components": 3, "sampled": 2, "estimator": "s2a", "particles": 2},
    {"components": 3, "sampled": 1, "estimator": "s2a", "particles": 2},
    {"components": 3, "sampled": 2, "estimator": "s2s", "particles": 2},
    {"components": 3, "sampled": 1, "estimator": "s2s", "particles": 2},
]


@pytest.mark.parametrize("options", CASES)
def test_gradient_of_a_step_is_the_derivative_of_its_bound(small_problem, options):
    # Given the noise the plain reparameterised gradient is exactly that of the bound, for which the engine
    # uses all three kinds of cotangents. Adam's first moment after a step is a tenth of the gradient.
    mixture = MixtureConfig(**options)
    settings = StepSettings(0.7, 0.1, 0.1, TopologyGradient.VIMCO, BranchGradient.REPARAMETERISED, 0.1)
    draw = draw_of(small_problem, mixture)
    state = disturbed_state(small_problem, mixture)
    start = state.mixture.model.table.copy()
    engine = engine_of(small_problem, mixture, state)
    engine.step(draw, settings)
    got = engine.state().model_moments[..., 0] / 0.1
    rng, step = np.random.default_rng(2), 1e-5
    for _ in range(4):
        direction = rng.normal(size=start.shape)
        direction[:, :, 1:] = np.tril(direction[:, :, 1:])
        bounds = []
        for sign in (1.0, -1.0):
            moved = disturbed_state(small_problem, mixture)
            moved.mixture.model.table[:] += sign * step * direction
            bounds.append(engine_of(small_problem, mixture, moved).step(draw, settings))
        # truncation and rounding of the differences: both about 1e-8 of values up to hundreds
        expected = (bounds[0] - bounds[1]) / (2 * step)
        np.testing.assert_allclose((got * direction).sum(), expected, rtol=1e-6, atol=1e-5)
    changed = np.flatnonzero((engine.state().mixture.model.table != start).any((1, 2)))
    assert set(draw.choice.sampled) <= set(changed) <= set(draw.choice.denominators)


def test_bound_is_the_mean_log_weight_under_the_definitions(small_problem):
    mixture = MixtureConfig(components=2, particles=1)
    state = disturbed_state(small_problem, mixture)
    transform_of_model = problem_transform(small_problem)
    draw = draw_of(small_problem, mixture)
    density, networks, support = state.mixture.model, state.mixture.networks, small_problem.support
    factor = density.factor()
    children = draw_topologies(support, networks.q, np.array([0, 1], np.int32), draw.uniforms).children
    index = support.index(children)
    parameters = state.mixture.branches.branch_parameters(index.feature_index)
    beta, total = 0.4, 0.0
    for t in range(2):
        y = transform(draw.noise[t], *parameters[t, t].T)
        z = density.mean[t] + factor[t] @ draw.model_noise[t]
        log_q = networks.log_probability(index)[t] + [
            log_density(y, *parameters[d, t].T).sum()
            + multivariate_normal(density.mean[d], factor[d] @ factor[d].T).logpdf(z)
            for d in range(2)
        ]
        log_prior = -np.log(3 * 5 * 7 * 9 * 11) + np.sum(np.log(10.0) - 10.0 * np.exp(y) + y)
        log_prior += transform_of_model.log_prior(z[None])[0]
        one = transform_of_model.parameters(z[None])
        model = SubstitutionModel(
            one.frequencies[0],
            one.exchangeabilities[0],
            np.concatenate(([0.0], one.category_rates[0])),
            np.concatenate((one.invariable, one.category_weights[0])),
        )
        log_data = float(
            log_likelihood(children[t], torch.from_numpy(np.exp(y)), small_problem.patterns, model)
        )
        total += beta * log_data + log_prior - np.logaddexp(*log_q) + np.log(2)
    settings = StepSettings(beta, 0.1, 0.1, TopologyGradient.VIMCO, BranchGradient.REPARAMETERISED, 0.1)
    bound = engine_of(small_problem, mixture, state).step(draw, settings)
    np.testing.assert_allclose(bound, total / 2, rtol=1e-11)


def test_without_laziness_every_component_is_updated(small_problem):
    mixture = MixtureConfig(components=3, sampled=1, estimator="s2s", particles=2)
    optimisation = OptimisationConfig(iterations=10, optimiser="adam")
    engine = engine_of(small_problem, mixture, disturbed_state(small_problem, mixture), optimisation)
    engine.step(draw_of(small_problem, mixture), StepSettings.of_step(0, optimisation))
    assert engine.state().model_updates.tolist() == [1, 1, 1]


def test_the_rate_of_the_model_follows_the_schedule():
    optimisation = OptimisationConfig(iterations=100, model_rate=0.5, branch_rate=0.25)
    settings = StepSettings.of_step(60, optimisation)
    assert settings.model_rate == pytest.approx(2 * settings.branch_rate)


def test_models_out_of_range_stop_and_leave_the_state(small_problem):
    mixture = MixtureConfig(components=2, particles=2)
    engine = engine_of(small_problem, mixture, disturbed_state(small_problem, mixture))
    before = {name: array.copy() for name, array in engine.state().arrays().items()}
    draw = draw_of(small_problem, mixture)
    draw.model_noise[1, 2] = 1e9
    with pytest.raises(NonFiniteError, match="Tree 1: the coordinates of its substitution model"):
        engine.step(draw, StepSettings.of_step(0, OPTIMISATION))
    for name, array in engine.state().arrays().items():
        np.testing.assert_array_equal(array, before[name])


def test_likelihood_and_mixture_must_both_have_a_model(small_problem):
    mixture = MixtureConfig()
    with pytest.raises(ValueError, match="both the likelihood and the mixture"):
        engine_of(small_problem, mixture, small_problem.state(mixture, OPTIMISATION))


@pytest.mark.parametrize(
    "mixture",
    [
        {"components": 2, "particles": 3},
        {"components": 3, "sampled": 1, "estimator": "s2s", "particles": 3},
    ],
)
def test_resuming_continues_bit_for_bit(small_problem, tmp_path, mixture):
    config = RunConfig.model_validate(
        {
            "data": {"dataset": "DS1", "model": MODEL},
            "mixture": mixture,
            "optimisation": {"iterations": 12},
        }
    )

    def fresh():
        start = problem_transform(small_problem).start()
        begin = initial_mixture(
            small_problem.support, small_problem.sample, config.mixture, config.optimisation, start
        )
        return Checkpoint(
            config,
            small_problem.patterns,
            small_problem.sample,
            TrainingState.initial(begin),
            RandomStreams.from_seed(4),
            0.0,
            0.0,
        )

    def go(checkpoint, num_reports=None):
        engine = engine_of(small_problem, config.mixture, checkpoint.state, config.optimisation)
        reports = []
        for report in train(engine, checkpoint.streams, config.mixture, config.optimisation, 8, 3):
            reports.append(report.bound)
            if num_reports is not None and len(reports) == num_reports:
                break
        return engine.state(), reports

    whole, bounds = go(fresh())
    first = fresh()
    state, early = go(first, 2)
    path = tmp_path / "checkpoint.pt"
    Checkpoint(config, first.patterns, first.sample, state, first.streams, 0.0, 0.0).save(path)
    rest, late = go(Checkpoint.load(path))
    assert early + late == bounds
    assert "model_table" in whole.arrays()
    for name, array in whole.arrays().items():
        np.testing.assert_array_equal(rest.arrays()[name], array, err_msg=name)
