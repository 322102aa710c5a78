"""Engines: the same step from the same draws, and each step what the mathematics says."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from vbpi_mix.branches.densities import log_density, transform
from vbpi_mix.errors import NonFiniteError
from vbpi_mix.likelihood.base import make_likelihood
from vbpi_mix.likelihood.models import jc69
from vbpi_mix.likelihood.reference import log_likelihood
from vbpi_mix.objectives.gradients import BranchGradient, TopologyGradient
from vbpi_mix.sbn.network import draw_topologies
from vbpi_mix.seeding import RandomStreams
from vbpi_mix.training.compiled import CompiledEngine
from vbpi_mix.training.config import MixtureConfig, OptimisationConfig
from vbpi_mix.training.state import StepDraw, StepSettings
from vbpi_mix.training.torch_engine import TorchEngine

NUM_TAXA = 8


def draws(mixture, num_steps, seed=0, num_taxa=NUM_TAXA):
    streams = RandomStreams.from_seed(seed)
    return [StepDraw.from_streams(streams, mixture, num_taxa) for _ in range(num_steps)]


CASES = [
    ({"components": 1, "particles": 4}, {}),
    (
        {"components": 1, "particles": 3, "branch_model": "split", "branch_density": "lognormal"},
        {"optimiser": "adam"},
    ),
    ({"components": 3, "particles": 3}, {"topology_gradient": "vimco", "branch_gradient": "reparameterised"}),
    ({"components": 3, "sampled": 2, "estimator": "s2a", "particles": 3}, {}),
    ({"components": 3, "sampled": 1, "estimator": "s2a", "particles": 3}, {"topology_gradient": "vimco"}),
    ({"components": 5, "sampled": 2, "estimator": "s2a", "particles": 3}, {"topology_gradient": "vimco"}),
    (
        {"components": 4, "sampled": 1, "estimator": "s2a", "branch_density": "lognormal"},
        {"optimiser": "adam"},
    ),
    ({"components": 3, "sampled": 1, "estimator": "s2s", "particles": 2}, {}),
    ({"components": 3, "sampled": 1, "estimator": "s2s", "particles": 2}, {"optimiser": "adam"}),
    ({"components": 3, "sampled": 2, "estimator": "s2s", "particles": 2}, {"optimiser": "adam"}),
    (
        {"components": 4, "sampled": 2, "estimator": "s2s", "particles": 2},
        {"branch_gradient": "squared_path"},
    ),
]


@pytest.mark.parametrize(("mixture", "optimisation"), CASES)
def test_engines_agree_step_by_step(small_problem, mixture, optimisation):
    mixture = MixtureConfig(**mixture)
    optimisation = OptimisationConfig(iterations=10, **optimisation)
    compiled = small_problem.engine("compiled", mixture, optimisation)
    in_torch = small_problem.engine("torch", mixture, optimisation)
    before = {name: array.copy() for name, array in compiled.state().arrays().items()}
    for step, draw in enumerate(draws(mixture, 8)):
        settings = StepSettings.of_step(step, optimisation)
        bounds = compiled.step(draw, settings), in_torch.step(draw, settings)
        np.testing.assert_allclose(bounds[0], bounds[1], rtol=1e-11)
        expected, got = compiled.state().arrays(), in_torch.state().arrays()
        for name in expected:
            # Adam divides by the root of the second moment: where a gradient all but cancels, rounding grows.
            np.testing.assert_allclose(
                got[name], expected[name], rtol=1e-6, atol=1e-9, err_msg=f"{name}, step {step}"
            )
    assert compiled.state().step == in_torch.state().step == 8
    for name, array in compiled.state().arrays().items():
        assert np.isfinite(array).all()
        assert not np.array_equal(array, before[name]), f"{name} did not change"


@pytest.mark.parametrize("kind", ["compiled", "torch"])
def test_bound_is_the_mean_log_weight_under_the_definitions(small_problem, kind):
    mixture = MixtureConfig(components=2, particles=1)
    optimisation = OptimisationConfig(iterations=10)
    engine = small_problem.engine(kind, mixture, optimisation)
    state = small_problem.state(mixture, optimisation)
    (draw,) = draws(mixture, 1, seed=5)
    networks, support = state.mixture.networks, small_problem.support
    children = draw_topologies(support, networks.q, np.array([0, 1], np.int32), draw.uniforms).children
    index = support.index(children)
    parameters = state.mixture.branches.branch_parameters(index.feature_index)  # [component, tree, edge, 3]
    beta, total = 0.4, 0.0
    for t in range(2):
        y = transform(draw.noise[t], *parameters[t, t].T)
        log_q = networks.log_probability(index)[t] + [
            log_density(y, *parameters[d, t].T).sum() for d in range(2)
        ]
        log_prior = -np.log(3 * 5 * 7 * 9 * 11) + np.sum(np.log(10.0) - 10.0 * np.exp(y) + y)
        log_data = float(
            log_likelihood(children[t], torch.from_numpy(np.exp(y)), small_problem.patterns, jc69())
        )
        total += beta * log_data + log_prior - np.logaddexp(*log_q) + np.log(2)
    settings = StepSettings(beta, 0.1, 0.1, TopologyGradient.VIMCO, BranchGradient.REPARAMETERISED, 0.1)
    np.testing.assert_allclose(engine.step(draw, settings), total / 2, rtol=1e-11)


@pytest.mark.parametrize("kind", ["compiled", "torch"])
def test_a_non_finite_bound_stops_and_leaves_the_state(small_problem, kind):
    mixture, optimisation = MixtureConfig(components=2, particles=2), OptimisationConfig(iterations=10)
    engine = small_problem.engine(kind, mixture, optimisation)
    first, second = draws(mixture, 2)
    settings = StepSettings.of_step(0, optimisation)
    engine.step(first, settings)
    before = {name: array.copy() for name, array in engine.state().arrays().items()}
    second.noise[3, 2] = np.nan
    with pytest.raises(NonFiniteError, match=r"not (a )?finite|must be finite"):
        engine.step(second, settings)
    assert engine.state().step == 1
    for name, array in engine.state().arrays().items():
        np.testing.assert_array_equal(array, before[name])


def test_only_generating_components_change_where_no_other_gets_a_gradient(small_problem):
    mixture = MixtureConfig(components=5, sampled=1, estimator="s2s", particles=3)
    optimisation = OptimisationConfig(iterations=10)
    engine = small_problem.engine("compiled", mixture, optimisation)
    before = engine.state().mixture.networks.logits.copy(), engine.state().mixture.branches.table.copy()
    (draw,) = draws(mixture, 1, seed=2)
    engine.step(draw, StepSettings.of_step(0, optimisation))
    (sampled,) = draw.choice.sampled
    after = engine.state().mixture.networks.logits, engine.state().mixture.branches.table
    for old, new in zip(before, after, strict=True):
        changed = [not np.array_equal(old[a], new[a]) for a in range(5)]
        assert changed == [a == sampled for a in range(5)]


def bounds_of_all_cases(problem):
    """Bounds of a few steps of the compiled engine; the likelihood, whose vectors need numba, is torch's."""
    likelihood = make_likelihood(problem.patterns, jc69(), engine="torch")
    bounds = []
    for mixture_options, options in CASES:
        mixture, optimisation = (
            MixtureConfig(**mixture_options),
            OptimisationConfig(iterations=10, **options),
        )
        state = problem.state(mixture, optimisation)
        engine = CompiledEngine(state, likelihood, problem.prior, mixture, optimisation)
        for step, draw in enumerate(draws(mixture, 2, num_taxa=problem.patterns.num_taxa)):
            bounds.append(engine.step(draw, StepSettings.of_step(step, optimisation)))
    return bounds


def test_kernels_stay_inside_their_arrays():
    # Compiled code does not check indices. Interpreted, the same kernels are plain numpy, which does.
    script = """
import conftest, test_engines
print(*map(float, test_engines.bounds_of_all_cases(conftest.make_problem(6, 40, 5))))
"""
    path = os.pathsep.join(filter(None, sys.path))
    bounds = []
    for disable in ("0", "1"):
        run = subprocess.run(
            [sys.executable, "-c", script],
            cwd=Path(__file__).parent,
            env={**os.environ, "NUMBA_DISABLE_JIT": disable, "PYTHONPATH": path},
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stderr
        bounds.append([float(bound) for bound in run.stdout.split()])
    assert len(bounds[0]) == 2 * len(CASES)
    np.testing.assert_allclose(bounds[1], bounds[0], rtol=1e-11)


@pytest.mark.gpu
@pytest.mark.parametrize(("mixture", "optimisation"), CASES)
def test_accelerator_agrees_with_the_compiled_engine(small_problem, mixture, optimisation):
    if not torch.cuda.is_available():
        pytest.fail("the gpu tests need a CUDA device; leave out -m gpu where there is none")
    mixture = MixtureConfig(**mixture)
    optimisation = OptimisationConfig(iterations=10, **optimisation)
    compiled = small_problem.engine("compiled", mixture, optimisation)
    there = TorchEngine(
        small_problem.state(mixture, optimisation),
        make_likelihood(small_problem.patterns, jc69(), engine="torch", device="cuda"),
        small_problem.prior,
        optimisation,
        device="cuda",
    )
    for step, draw in enumerate(draws(mixture, 2)):
        settings = StepSettings.of_step(step, optimisation)
        np.testing.assert_allclose(there.step(draw, settings), compiled.step(draw, settings), rtol=1e-10)
    expected, got = compiled.state().arrays(), there.state().arrays()
    for name in expected:
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-6, atol=1e-9, err_msg=name)
