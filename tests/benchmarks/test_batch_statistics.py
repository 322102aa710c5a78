"""A batch of one component fakes a gain of nearly log A by its statistics; frozen ones gain nothing."""

import json
import math

import batch_statistics
import numpy as np
import pytest
from _render import draw
from batch_statistics import LATENT, Problem, directions
from scipy.stats import multivariate_normal
from sections import batch_statistics as reported

NUM_DATA = 600
NUM_COMPONENTS = 20
SHIFT = 0.5
"""Four standard deviations of the posterior; costs SHIFT^2 / 2 nats under the prior."""


@pytest.fixture(scope="module")
def problem():
    return Problem.simulated(np.random.default_rng(1), NUM_DATA)


@pytest.fixture(scope="module")
def bounds(problem):
    """Bounds of data by way and whether the components are shifted."""
    shifts = SHIFT * directions(NUM_COMPONENTS, np.random.default_rng(2))
    alike = np.zeros_like(shifts[:4])  # where all are alike, a few tell as much as many
    return {
        (way, is_shifted): problem.bound(vectors, way, np.random.default_rng(3)).mean(0)
        for way in ("frozen", "batch", "mixed")
        for is_shifted, vectors in ((False, alike), (True, shifts))
    }


def gain(bounds, way):
    return (bounds[way, True] - bounds[way, False]).mean()


def test_batch_statistics_fake_nearly_log_a(bounds):
    # What is lacking: the prior's price of the shift, 0.125, and what the components still share.
    assert math.log(NUM_COMPONENTS) - 0.4 < gain(bounds, "batch") < math.log(NUM_COMPONENTS)


def test_without_the_leak_the_same_components_lose(bounds):
    assert gain(bounds, "frozen") < -5
    assert gain(bounds, "mixed") < -5


def test_only_the_leak_takes_a_bound_above_the_evidence(problem, bounds):
    evidence = problem.log_evidence(np.random.default_rng(4), 30)
    frozen = bounds["frozen", False] - evidence
    leaking = bounds["batch", True] - evidence
    assert frozen.mean() < 4 * frozen.std() / math.sqrt(NUM_DATA)
    assert leaking.mean() > 10 * leaking.std() / math.sqrt(NUM_DATA)


def test_densities_are_normal(problem):
    offset = 0.1 * np.random.default_rng(5).normal(size=(NUM_DATA, 2, LATENT))
    root = problem.covariance_root[7]
    expected = multivariate_normal(np.zeros(LATENT), root @ root.T).logpdf(offset[7])
    np.testing.assert_allclose(problem.log_density(offset)[7], expected, rtol=1e-10)


def test_approximations_are_modes_of_the_posterior(problem):
    def log_joint(z):
        return problem.log_likelihood(z) - 0.5 * np.square(z).sum(-1)

    best = log_joint(problem.mean)
    rng = np.random.default_rng(6)
    for _ in range(5):
        assert (log_joint(problem.mean + 0.01 * rng.normal(size=problem.mean.shape)) < best).all()


def test_the_section_tells_the_gain(tmp_path, monkeypatch):
    monkeypatch.setattr(batch_statistics, "NUM_DRAWS", 10)
    monkeypatch.setattr(batch_statistics, "SHIFTS", (0.0, 0.5))
    measured = batch_statistics.measure(200, (1, 4))
    assert {(run["way"], run["components"]) for run in measured["runs"]} == {
        (way, a) for way in batch_statistics.WAYS for a in (1, 4)
    }
    (tmp_path / "batch_statistics.json").write_text(json.dumps({**measured, "provenance": {}}))
    section = reported.section(tmp_path)
    assert section is not None
    figure, table = section.parts
    assert "<svg" in draw(figure)
    assert [row[0] for row in table.rows] == ["1", "4"]
    gains = {run["way"]: run["bound"] for run in measured["runs"] if run["components"] == 4}
    alone = next(r["bound"] for r in measured["runs"] if r["components"] == 1 and r["way"] == "batch")
    assert f"gain {gains['batch'] - alone:.2f} nats" in section.text[1]
    assert reported.section(tmp_path / "absent") is None
