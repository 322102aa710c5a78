import dataclasses

import numpy as np
import pytest
from arviz_stats.base import array_stats
from scipy.special import logsumexp
from scipy.stats import entropy

from vbpi_mix.results import diagnostics


def generalised_pareto_log_weights(shape: float, num_draws: int, seed: int) -> np.ndarray:
    """Logs of weights with a generalised Pareto tail: their quantiles are 1 + ((1-u)^-k - 1) / k."""
    u = np.random.default_rng(seed).random(num_draws)
    return np.log1p(np.expm1(-shape * np.log1p(-u)) / shape)


@pytest.mark.parametrize("shape", [0.2, 0.5, 0.9, 1.3])
def test_pareto_k_of_generalised_pareto_tails(shape):
    # The tail of 20,000 draws has 424 values: the shape's standard error is about (1 + k) / sqrt(424) < 0.12.
    estimates = [
        diagnostics.pareto_k(generalised_pareto_log_weights(shape, 20_000, seed)) for seed in range(6)
    ]
    assert np.mean(estimates) == pytest.approx(shape, abs=4 * (1 + shape) / np.sqrt(6 * 424))


@pytest.mark.parametrize(("num_draws", "shape"), [(25, 0.5), (400, 0.1), (400, 1.2), (20_000, 0.6)])
def test_smoothing_is_that_of_arviz(num_draws, shape):
    log_weights = generalised_pareto_log_weights(shape, num_draws, 3) - 7000.0
    smoothed, pareto_k = diagnostics.pareto_smooth(log_weights)
    # arviz-stats takes log-likelihoods (for leave-one-out cross-validation) and negates them into weights.
    expected, expected_k = array_stats.psislw(-log_weights)
    assert pareto_k == pytest.approx(float(expected_k), abs=1e-9)
    np.testing.assert_allclose(smoothed, expected - logsumexp(expected), atol=1e-9)


def test_the_upper_tail_counts_not_the_lower():
    # A few tiny weights are harmless, a few huge ones are not.
    bulk = np.random.default_rng(0).normal(0.0, 0.1, 5000)
    assert diagnostics.pareto_k(np.append(bulk, [-30.0, -40.0])) < 0.3
    assert diagnostics.pareto_k(np.append(bulk, [30.0, 40.0])) > 1.0


def test_smoothing_keeps_the_body_and_the_order_and_normalises():
    log_weights = generalised_pareto_log_weights(0.8, 4000, 1)
    smoothed, _ = diagnostics.pareto_smooth(log_weights)
    assert logsumexp(smoothed) == pytest.approx(0.0, abs=1e-12)
    order = np.argsort(log_weights)
    body = order[: 4000 - int(3 * np.sqrt(4000))]
    shift = smoothed[body] - log_weights[body]
    np.testing.assert_allclose(shift, shift[0], atol=1e-9)
    assert np.all(np.diff(smoothed[order]) >= -1e-12)


def test_equal_weights_have_no_tail():
    smoothed, pareto_k = diagnostics.pareto_smooth(np.full(100, -7000.0))
    assert pareto_k == -np.inf
    np.testing.assert_allclose(smoothed, -np.log(100))


def test_too_few_draws_are_refused():
    with pytest.raises(ValueError, match="at least 25 finite log weights for a Pareto fit, got 24"):
        diagnostics.pareto_k(np.arange(24.0))


def test_effective_sample_size_of_known_weights():
    assert diagnostics.effective_sample_size(np.full(50, -9000.0)) == pytest.approx(50.0)
    assert diagnostics.effective_sample_size(np.array([0.0, -800.0, -900.0])) == pytest.approx(1.0)
    assert diagnostics.effective_sample_size(np.log([1.0, 3.0])) == pytest.approx(16 / 10)


def test_effective_sample_size_of_lognormal_weights():
    log_weights = np.random.default_rng(0).normal(0.0, 0.5, 100_000)
    assert diagnostics.effective_sample_size(log_weights) / 100_000 == pytest.approx(np.exp(-0.25), rel=0.01)


def test_component_balance_by_plain_sums(make_toy):
    draws = make_toy().draw(2000, np.random.default_rng(2))
    balance = diagnostics.component_balance(draws)
    weights = np.exp(draws.log_weights - draws.log_weights.max())
    for a in range(2):
        own = weights[draws.component == a]
        assert balance.weight_share[a] == pytest.approx(own.sum() / weights.sum())
        assert balance.effective_sample_size[a] == pytest.approx(own.sum() ** 2 / (own**2).sum())
        counts = np.bincount(draws.topology_index[draws.component == a])
        assert balance.topology_entropy[a] == pytest.approx(entropy(counts))
    assert balance.weight_share.sum() == pytest.approx(1.0)


def test_a_starved_component_shows_in_its_share(make_toy):
    draws = make_toy().draw(2000, np.random.default_rng(2))
    starved = dataclasses.replace(draws, log_weights=draws.log_weights - 50.0 * (draws.component == 1))
    np.testing.assert_allclose(diagnostics.component_balance(starved).weight_share, [1.0, 0.0], atol=1e-15)


def test_topology_entropy_estimates_the_exact_one(make_toy):
    toy = make_toy()
    draws = toy.draw(20_000, np.random.default_rng(4))
    q = toy.q.mean(axis=0)
    spread = np.sqrt((q * np.log(q) ** 2).sum() - entropy(q) ** 2)
    assert diagnostics.topology_entropy(draws) == pytest.approx(
        entropy(q), abs=4 * spread / np.sqrt(draws.num_draws)
    )


@pytest.mark.parametrize(
    ("ess", "pareto_k", "is_good"),
    [(100.0, 0.69, True), (99.0, 0.3, False), (5000.0, 0.7, False), (200.0, None, True), (20.0, None, False)],
)
def test_reliability_takes_both_diagnostics(ess, pareto_k, is_good):
    reliability = diagnostics.Reliability(10_000, ess, pareto_k)
    assert reliability.is_good == is_good
    assert str(reliability).startswith("effective" if is_good else "WARNING: unreliable: effective")


def test_few_or_equal_draws_have_no_pareto_k(make_toy):
    draws = make_toy().draw(200, np.random.default_rng(1))
    few = make_toy().draw(24, np.random.default_rng(1))
    equal = dataclasses.replace(draws, log_weights=np.zeros(200))
    assert diagnostics.Reliability.of(few).pareto_k is None
    assert diagnostics.Reliability.of(equal).pareto_k is None
    assert diagnostics.Reliability.of(equal).ess == pytest.approx(200.0)
    assert diagnostics.Reliability.of(draws).pareto_k == diagnostics.pareto_k(draws.log_weights)
