"""The toy: its density is the model's, its bound MISELBO, and training raises it."""

import json

import numpy as np
import pytest
import torch
import toy
from _render import draw
from sections import toy as reported
from torch.distributions import Bernoulli, Normal

from vbpi_mix.objectives.estimators import Estimator, choose_components


@pytest.fixture(scope="module")
def problem():
    """A problem of few data, and bounds from few draws."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toy, "NUM_DATA", 40)
        patch.setattr(toy, "EVALUATION_DRAWS", 600)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        yield toy.Problem.simulated(3)
        torch.set_num_threads(threads)


def test_the_joint_density_is_that_of_the_model(problem):
    z = torch.randn(2, toy.DIMENSION, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for row, value in zip(z, problem.log_joint(z), strict=True):
        expected = Normal(0.0, toy.FUNNEL).log_prob(row[0])
        expected = expected + Normal(0.0, torch.exp(row[0] / 2)).log_prob(row[1:]).sum()
        before = 0.0
        for weights, datum in zip(problem.weights, problem.data, strict=True):
            expected = expected + Bernoulli(logits=weights @ row + toy.PERSISTENCE * before).log_prob(datum)
            before = 2 * float(datum) - 1
        assert float(value) == pytest.approx(float(expected), rel=1e-6)  # some constants are float32


def test_densities_are_those_of_the_components(problem):
    family = toy.Gaussians(4, seed=2)
    with torch.no_grad():
        family.log_scale += torch.randn(4, toy.DIMENSION, generator=torch.Generator().manual_seed(5)) / 3
    choice = choose_components(Estimator.S2A, 4, 2, np.random.default_rng(0))
    noise = torch.randn(2, 3, toy.DIMENSION, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    log_joint, log_density = family.log_weights_input(problem, choice, noise)
    sampled = torch.from_numpy(choice.sampled)
    z = family.mean[sampled, None] + torch.exp(family.log_scale[sampled, None]) * noise
    each = Normal(family.mean, torch.exp(family.log_scale)).log_prob(z[:, :, None]).sum(-1)
    torch.testing.assert_close(log_density, each)
    torch.testing.assert_close(log_joint, problem.log_joint(z))


def test_miselbo_is_the_bound_with_all_components(problem):
    family = toy.Gaussians(2, seed=2)
    everything = choose_components(Estimator.A2A, 2, 2, np.random.default_rng(0))
    noise = torch.randn(
        (2, toy.EVALUATION_DRAWS // 2, toy.DIMENSION),
        generator=torch.Generator().manual_seed(1),
        dtype=torch.float64,
    )
    bounds = [float(family.bound(problem, everything, noise[:, [draw]]).detach()) for draw in range(200)]
    with torch.no_grad():
        standard_error = np.std(bounds) / np.sqrt(len(bounds))
    assert np.mean(bounds) == pytest.approx(family.miselbo(problem), abs=5 * standard_error)


@pytest.mark.parametrize(("estimator", "num_sampled"), [("a2a", 3), ("s2a", 1), ("s2s", 2)])
def test_training_raises_the_bound(problem, estimator, num_sampled):
    course = list(toy.train(problem, Estimator(estimator), 3, num_sampled, 0, 0.5))
    assert len(course) == toy.MOMENTS
    assert course[-1]["bound"] > course[0]["bound"] + 1
    steps = [point["steps"] for point in course]
    assert steps == sorted(steps)


def test_the_section_says_what_is_highest(tmp_path):
    def run(estimator, components, sampled, seed, end):
        course = [
            {"steps": 10, "seconds": 0.1, "bound": -50 + end},
            {"steps": 99, "seconds": 1.0, "bound": end},
        ]
        sizes = {"estimator": estimator, "components": components, "sampled": sampled}
        return {**sizes, "seed": seed, "course": course}

    runs = [
        run(*configuration, seed, end + seed)
        for seed in (0, 1)
        for configuration, end in {("a2a", 1, 1): -20.0, ("a2a", 5, 5): -12.0, ("s2s", 5, 2): -14.0}.items()
    ]
    content = {"dimension": 4, "num_data": 9, "seconds": 1.0, "runs": runs}
    (tmp_path / "toy.json").write_text(json.dumps(content))
    section = reported.section(tmp_path)
    assert "at the end A2A, A=5, S=5 (-11.50), 8.00 nats above one component." in section.text[1]
    figure, table = section.parts
    assert [row[0] for row in table.rows] == ["A=1", "A2A, A=5, S=5", "S2S, A=5, S=2"]
    assert table.rows[0][3:] == ["-19.50", "-20.00, -19.00"]
    assert "A2A, A=5, S=5" in draw(figure)
    assert reported.section(tmp_path / "nothing") is None
