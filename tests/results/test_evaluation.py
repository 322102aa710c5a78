import numpy as np
import pytest

from vbpi_mix.results import evaluation


def test_bounds_by_plain_loops():
    log_weights = np.random.default_rng(0).normal(-50.0, 2.0, (3, 25))
    expected = []
    for repeat in range(3):
        per_component = []
        for a in range(3):
            batch = log_weights[a, 8 * repeat : 8 * repeat + 8]
            per_component.append(np.log(np.mean(np.exp(batch))))
        expected.append(np.mean(per_component))
    np.testing.assert_allclose(evaluation.bounds(log_weights, 8), expected, rtol=1e-13)


def test_one_sample_bound_is_the_mean_log_weight():
    log_weights = np.random.default_rng(0).normal(-50.0, 2.0, (3, 25))
    assert evaluation.lower_bound(log_weights, 1) == pytest.approx(log_weights.mean(), rel=1e-14)


def test_pooling_all_draws_is_the_log_mean_weight_and_above_the_bound():
    log_weights = np.random.default_rng(0).normal(-50.0, 2.0, (3, 25))
    pooled, _ = evaluation.pooled_estimate(log_weights)
    assert pooled == pytest.approx(np.log(np.mean(np.exp(log_weights))), rel=1e-14)
    assert pooled > evaluation.lower_bound(log_weights, 25)


def test_pooled_estimate_does_not_underflow():
    pooled, standard_error = evaluation.pooled_estimate(np.array([[-40000.0, -40000.0 + np.log(3.0)]]))
    assert pooled == pytest.approx(-40000.0 + np.log(2.0), abs=1e-9)
    # weights 1 and 3: sample variance 2, so standard error sqrt(2 / 2) / 2
    assert standard_error == pytest.approx(0.5)


def test_lognormal_weights_have_the_known_marginal_and_spread():
    # f ~ N(L - s^2/2, s^2) has E exp f = exp L and relative variance exp(s^2) - 1.
    scales = np.array([0.3, 0.6])
    rng = np.random.default_rng(5)
    log_weights = rng.normal(-70.0 - scales[:, None] ** 2 / 2, scales[:, None], (2, 50_000))
    estimate = evaluation.marginal_log_likelihood(log_weights, evaluation.equal_cost_particles(2))
    relative_variance = np.expm1(scales**2)
    assert estimate.standard_error == pytest.approx(np.sqrt(relative_variance.sum() / 4 / 50_000), rel=0.02)
    assert abs(estimate.pooled + 70.0) < 4 * estimate.standard_error
    # One repeat averages two logs of means of 500: variance (v1 + v2) / (4 * 500). 100 repeats know it to 7%.
    assert estimate.std == pytest.approx(np.sqrt(relative_variance.sum() / 4 / 500), rel=0.25)
    assert abs(estimate.mean + 70.0) < 4 * estimate.std / 10
    assert (estimate.num_repeats, estimate.particles_per_component) == (100, 500)
    assert estimate.evaluations_per_repeat == 1000


def test_the_literatures_protocol_uses_a_thousand_draws_of_every_component():
    log_weights = np.random.default_rng(5).normal(0.0, 0.5, (4, 5000))
    estimate = evaluation.marginal_log_likelihood(log_weights, evaluation.LITERATURE_PARTICLES)
    assert (estimate.num_repeats, estimate.evaluations_per_repeat) == (5, 4000)


@pytest.mark.parametrize(("num_components", "expected"), [(1, 1000), (3, 333), (7, 142), (2000, 1)])
def test_equal_cost_splits_a_thousand_evaluations(num_components, expected):
    assert evaluation.equal_cost_particles(num_components) == expected


def test_component_order_does_not_matter():
    log_weights = np.random.default_rng(2).normal(-50.0, 2.0, (4, 60))
    one = evaluation.marginal_log_likelihood(log_weights, 20)
    other = evaluation.marginal_log_likelihood(log_weights[[2, 0, 3, 1]], 20)
    assert other.mean == pytest.approx(one.mean, rel=1e-14)
    assert other.pooled == pytest.approx(one.pooled, rel=1e-14)
    assert other.standard_error == pytest.approx(one.standard_error, rel=1e-12)


def test_a_single_repeat_has_no_spread():
    assert evaluation.marginal_log_likelihood(np.zeros((2, 10)), 10).std == 0.0


def test_more_particles_than_draws_are_refused():
    with pytest.raises(ValueError, match=r"between 1 and 10 particles .* got 11"):
        evaluation.lower_bound(np.zeros((2, 10)), 11)


def test_importance_sampling_finds_the_toys_marginal_likelihood(make_toy):
    toy = make_toy()
    draws = toy.draw(20_000, np.random.default_rng(3))
    pooled, standard_error = evaluation.pooled_estimate(draws.by_component(draws.log_weights))
    assert standard_error < 0.02
    assert abs(pooled - toy.log_marginal) < 4 * standard_error


def test_jensen_shannon_divergence_of_two_gaussians_by_quadrature():
    # N(-1.5, 1) and N(1.5, 1): log q_a - log q = log 2 - log(1 + exp(-3 x)), x from the second.
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    exact = np.log(2) - np.sum(weights * np.log1p(np.exp(-3 * (nodes + 1.5)))) / np.sqrt(2 * np.pi)
    rng = np.random.default_rng(0)
    centre = np.repeat([-1.5, 1.5], 20_000)
    x = rng.normal(centre)
    component = (centre > 0).astype(np.int64)
    density = np.exp(-0.5 * (x[:, None] - [-1.5, 1.5]) ** 2)
    responsibilities = density / density.sum(axis=1, keepdims=True)
    estimate = evaluation.jensen_shannon_divergence(responsibilities, component)
    spread = np.std(np.log(responsibilities[np.arange(len(x)), component]))
    assert estimate == pytest.approx(exact, abs=4 * spread / np.sqrt(len(x)))


def test_identical_components_have_no_divergence_and_disjoint_ones_log_a():
    component = np.tile(np.arange(3), 4)
    alike = evaluation.jensen_shannon_divergence(np.full((12, 3), 1 / 3), component)
    assert alike == pytest.approx(0.0, abs=1e-15)
    assert evaluation.jensen_shannon_divergence(np.eye(3)[component], component) == pytest.approx(np.log(3))
