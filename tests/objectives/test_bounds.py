"""Mixture bounds: exact expectations for five Gaussians, closed forms and invariances."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import special, stats

from vbpi_mix.objectives.bounds import importance_weights
from vbpi_mix.objectives.estimators import Estimator, check_sizes, choose_components

MEANS = np.array([-3.0, -1.0, 0.2, 1.5, 4.0])
SCALES = np.array([0.5, 1.2, 0.4, 0.9, 0.7])
NOISE = np.linspace(-9.0, 9.0, 2001)
NOISE_WEIGHTS = stats.norm.pdf(NOISE) * (NOISE[1] - NOISE[0])


def log_joint(z):
    """An unnormalised target with evidence 2."""
    return math.log(2.0) + np.logaddexp(
        math.log(0.3) + stats.norm.logpdf(z, -2.0, 1.0), math.log(0.7) + stats.norm.logpdf(z, 1.0, 1.5)
    )


def expected_bound(estimator: Estimator, sampled: tuple[int, ...]) -> float:
    """Exact K = 1 bound of one choice of components; the quadrature nodes are passed as particles."""
    denominators = range(5) if estimator is not Estimator.S2S else sampled
    z = np.stack([MEANS[s] + SCALES[s] * NOISE for s in sampled])
    log_density = np.stack([stats.norm.logpdf(z, MEANS[d], SCALES[d]) for d in denominators], axis=-1)
    return float(np.mean(importance_weights(log_joint(z), log_density).log_weights @ NOISE_WEIGHTS))


def expectation(estimator: Estimator, num_sampled: int) -> float:
    """Mean over all subsets of that size."""
    subsets = itertools.combinations(range(5), num_sampled)
    return float(np.mean([expected_bound(estimator, subset) for subset in subsets]))


def test_five_gaussians_s2a_is_the_same_at_every_s():
    misselbo = expectation(Estimator.A2A, 5)
    for num_sampled in range(1, 6):
        assert expectation(Estimator.S2A, num_sampled) == pytest.approx(misselbo, abs=1e-12)
    assert misselbo < math.log(2.0)


def test_five_gaussians_s2s_rises_to_the_mixture_bound():
    bounds = [expectation(Estimator.S2S, num_sampled) for num_sampled in range(1, 6)]
    assert np.all(np.diff(bounds) > 0.05)
    assert bounds[-1] == pytest.approx(expectation(Estimator.A2A, 5), abs=1e-12)


def test_one_component_is_the_importance_weighted_bound():
    rng = np.random.default_rng(0)
    joint, density = rng.normal(size=(1, 7)), rng.normal(size=(1, 7, 1))
    weights = importance_weights(joint, density)
    assert weights.bound == pytest.approx(special.logsumexp(joint - density[..., 0]) - math.log(7), abs=1e-14)


def test_hand_worked_case():
    # Two components, two particles each: q = (q_1 + q_2) / 2 and f = log(p / q).
    density = np.array([[[0.2, 0.6], [0.5, 0.1]], [[0.1, 0.3], [0.0, 0.8]]])
    joint = np.array([[0.4, 0.6], [0.2, 0.8]])
    with np.errstate(divide="ignore"):
        weights = importance_weights(np.log(joint), np.log(density))
    np.testing.assert_allclose(np.exp(weights.log_weights), [[1.0, 2.0], [1.0, 2.0]], rtol=1e-14)
    np.testing.assert_allclose(weights.normalised, [[1 / 3, 2 / 3]] * 2, rtol=1e-14)
    np.testing.assert_allclose(
        weights.responsibilities, [[[1 / 4, 3 / 4], [5 / 6, 1 / 6]], [[1 / 4, 3 / 4], [0.0, 1.0]]], rtol=1e-14
    )
    assert weights.bound == pytest.approx(math.log(1.5), abs=1e-14)


def test_problems_of_a_batch_are_independent():
    rng = np.random.default_rng(1)
    joint, density = 2.0 * rng.normal(size=(6, 3, 4)), rng.normal(size=(6, 3, 4, 3))
    weights = importance_weights(joint, density)
    for i in range(6):
        alone = importance_weights(joint[i], density[i])
        assert weights.bound[i] == pytest.approx(float(alone.bound), abs=1e-14)


def test_invariance_to_component_order_and_constants():
    rng = np.random.default_rng(2)
    joint, density = rng.normal(size=(3, 4)), rng.normal(size=(3, 4, 5))
    weights = importance_weights(joint, density)
    order = rng.permutation(5)
    permuted = importance_weights(joint, density[..., order])
    np.testing.assert_allclose(permuted.log_weights, weights.log_weights, atol=1e-14)
    np.testing.assert_allclose(permuted.responsibilities, weights.responsibilities[..., order], rtol=1e-13)
    # Log likelihoods of large alignments are around -1e5; rounding is then 1e-11.
    shifted = importance_weights(joint - 1e5, density + 30.0)
    assert shifted.bound == pytest.approx(float(weights.bound) - 1e5 - 30.0, abs=1e-9)
    np.testing.assert_allclose(shifted.normalised, weights.normalised, rtol=1e-9)


def test_numpy_and_torch_agree():
    rng = np.random.default_rng(3)
    joint, density = rng.normal(size=(3, 4)), rng.normal(size=(3, 4, 3))
    density[0, 1, 2] = -np.inf
    ours = importance_weights(joint, density)
    theirs = importance_weights(torch.tensor(joint), torch.tensor(density))
    for name in ("bound", "log_weights", "normalised", "responsibilities"):
        np.testing.assert_allclose(
            getattr(theirs, name).numpy(), getattr(ours, name), rtol=1e-14, err_msg=name
        )


def test_choice_of_components():
    rng = np.random.default_rng(4)
    s2a = choose_components(Estimator.S2A, 6, 3, rng)
    assert s2a.denominators.tolist() == list(range(6))
    assert s2a.generator.tolist() == s2a.sampled.tolist()
    s2s = choose_components(Estimator.S2S, 6, 3, rng)
    assert s2s.denominators.tolist() == s2s.sampled.tolist()
    assert s2s.generator.tolist() == [0, 1, 2]
    a2a = choose_components(Estimator.A2A, 6, 6, rng)
    assert a2a.sampled.tolist() == a2a.denominators.tolist() == a2a.generator.tolist() == list(range(6))


def test_components_are_drawn_uniformly_without_replacement():
    rng = np.random.default_rng(5)
    counts = np.zeros((4, 4))
    for _ in range(1800):
        first, second = choose_components(Estimator.S2S, 4, 2, rng).sampled
        counts[first, second] += 1
    # Each of the six pairs has probability 1/6; four standard errors.
    pairs = counts[np.triu_indices(4, 1)]
    assert counts.sum() == pairs.sum()
    assert np.all(np.abs(pairs - 300) < 4 * math.sqrt(1800 * (1 / 6) * (5 / 6)))


def test_sizes_are_checked():
    with pytest.raises(ValueError, match=r"expected S = A = 5, got S = 3; use s2a"):
        check_sizes(Estimator.A2A, 5, 3)
    with pytest.raises(ValueError, match=r"got S = 6 of A = 5"):
        choose_components(Estimator.S2S, 5, 6, np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"got S = 0 of A = 5"):
        check_sizes(Estimator.S2A, 5, 0)
