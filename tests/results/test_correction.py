import dataclasses

import numpy as np
import pytest
from scipy.special import logsumexp

from vbpi_mix.results import correction
from vbpi_mix.results.correction import CorrectionMethod
from vbpi_mix.results.draws import PosteriorDraws
from vbpi_mix.trees.topology import random_topologies


def on_all(toy, draws, corrected):
    """Corrected probabilities of all 105 topologies, 0 where none was drawn."""
    position = {row.tobytes(): i for i, row in enumerate(toy.topologies)}
    probabilities = np.zeros(len(toy.topologies))
    for row, p in zip(draws.topologies, corrected.topology_probabilities, strict=True):
        probabilities[position[row.tobytes()]] = p
    return probabilities


def total_variation(p, q):
    return 0.5 * np.abs(p - q).sum()


def shrunken_ratios(weights, index, num_topologies):
    """The empirical-Bayes predictor as the module's docstring has it, by plain loops."""
    of = [weights[index == u] / weights.mean() for u in range(num_topologies)]
    often = [w for w in of if len(w) >= correction.MIN_REPEATS]
    within = sum(((w - w.mean()) ** 2).sum() for w in often) / sum(len(w) - 1 for w in often)
    importance = np.sqrt([len(w) for w in often])
    excess = np.array([(w.mean() - 1) ** 2 - within / len(w) for w in often])
    between = max((importance * excess).sum() / importance.sum(), 0.0)
    assert between > 0
    return np.array([1 + between / (between + within / len(w)) * (w.mean() - 1) for w in of])


@pytest.mark.parametrize("method", list(CorrectionMethod))
def test_both_estimates_by_plain_loops(make_toy, method):
    draws = make_toy().draw(2_000, np.random.default_rng(1))
    weights = np.exp(draws.log_weights - draws.log_weights.max())
    match method:
        case CorrectionMethod.SELF_NORMALISED:
            expected = [weights[draws.topology_index == u].sum() for u in range(len(draws.topologies))]
        case CorrectionMethod.RAO_BLACKWELLISED:
            ratios = shrunken_ratios(weights, draws.topology_index, len(draws.topologies))
            expected = np.exp(draws.log_q) * ratios
    expected = np.array(expected) / np.sum(expected)
    corrected = correction.correct(draws, method)
    np.testing.assert_allclose(corrected.topology_probabilities, expected, rtol=1e-10)
    # The draws' weights share out each topology's probability in proportion to the importance weights.
    np.testing.assert_allclose(
        np.bincount(draws.topology_index, weights=corrected.draw_weights), expected, rtol=1e-10
    )
    same = np.flatnonzero(draws.topology_index == draws.topology_index[0])
    np.testing.assert_allclose(
        np.diff(corrected.log_draw_weights[same]), np.diff(draws.log_weights[same]), atol=1e-9
    )


def test_shrinking_halves_the_error_of_few_draws_where_q_is_good(make_toy):
    # q's topologies are nearly the posterior's, so that a noisy ratio is worse than none.
    toy = make_toy()
    toy = dataclasses.replace(toy, q=np.stack([toy.posterior, toy.posterior]))
    shrunk, self_normalised = [], []
    for seed in range(20):
        draws = toy.draw(400, np.random.default_rng(seed))
        for method, errors in zip(CorrectionMethod, (self_normalised, shrunk), strict=True):
            corrected = correction.correct(draws, method)
            errors.append(total_variation(on_all(toy, draws, corrected), toy.posterior))
    assert np.mean(shrunk) < 0.5 * np.mean(self_normalised)


def test_undrawn_topologies_get_what_q_gives_them(make_toy):
    toy = make_toy()
    draws = toy.draw(200, np.random.default_rng(4))
    drawn = {row.tobytes() for row in draws.topologies}
    absent = np.array([row.tobytes() not in drawn for row in toy.topologies])
    undrawn = correction.UndrawnTopologies(toy.topologies[absent], np.log(toy.q.mean(axis=0)[absent]))
    without = correction.correct(draws, CorrectionMethod.RAO_BLACKWELLISED)
    corrected = correction.correct(draws, CorrectionMethod.RAO_BLACKWELLISED, undrawn=undrawn)
    num_drawn = len(draws.topologies)
    np.testing.assert_array_equal(corrected.topologies[num_drawn:], toy.topologies[absent])
    assert corrected.topology_probabilities.sum() == pytest.approx(1.0, rel=1e-12)
    # The drawn ones keep their proportions, and the draws their weights.
    np.testing.assert_allclose(
        corrected.topology_probabilities[:num_drawn] / without.topology_probabilities,
        1 - corrected.topology_probabilities[num_drawn:].sum(),
        rtol=1e-10,
    )
    np.testing.assert_allclose(corrected.draw_weights, without.draw_weights, rtol=1e-10)
    plain = correction.correct(draws, CorrectionMethod.SELF_NORMALISED, undrawn=undrawn)
    assert len(plain.topologies) == num_drawn


def test_both_estimates_converge_to_the_exact_posterior(make_toy):
    toy = make_toy()
    errors = {method: [] for method in CorrectionMethod}
    for num_draws in (1_000, 100_000):
        draws = toy.draw(num_draws, np.random.default_rng(7))
        for method in CorrectionMethod:
            errors[method].append(
                total_variation(on_all(toy, draws, correction.correct(draws, method)), toy.posterior)
            )
    for method in CorrectionMethod:
        assert errors[method][1] < 0.02, method
        assert errors[method][1] < 0.4 * errors[method][0], method


def test_rao_blackwellising_gives_the_exact_posterior_where_weights_depend_on_the_topology_alone(make_toy):
    toy = make_toy()
    draws = toy.draw(5_000, np.random.default_rng(2))
    exact = np.array([toy.posterior[(toy.topologies == row).all(axis=(1, 2))][0] for row in draws.topologies])
    draws = dataclasses.replace(
        draws, log_weights=(np.log(exact) - draws.log_q)[draws.topology_index] + toy.log_marginal
    )
    corrected = correction.correct(draws, CorrectionMethod.RAO_BLACKWELLISED)
    np.testing.assert_allclose(corrected.topology_probabilities, exact / exact.sum(), rtol=1e-10)


@pytest.mark.parametrize(
    ("share", "method"),
    [(1 + 1e-9, CorrectionMethod.RAO_BLACKWELLISED), (1 - 1e-9, CorrectionMethod.SELF_NORMALISED)],
)
def test_rule_prefers_rao_blackwell_only_where_the_draws_hold_most_of_q(make_toy, share, method):
    draws = make_toy().draw(50, np.random.default_rng(2))
    mass = share * correction.MIN_DRAWN_MASS
    draws = dataclasses.replace(draws, log_q=draws.log_q - logsumexp(draws.log_q) + np.log(mass))
    assert correction.choose_method(draws) is method
    corrected = correction.correct(draws)
    assert corrected.method is method
    assert corrected.drawn_mass == pytest.approx(mass, rel=1e-12)


def test_given_weights_replace_the_draws_own(make_toy):
    draws = make_toy().draw(500, np.random.default_rng(3))
    flat = correction.correct(draws, CorrectionMethod.SELF_NORMALISED, np.zeros(500))
    np.testing.assert_allclose(flat.topology_probabilities, np.bincount(draws.topology_index) / 500)


def test_a_weight_far_below_the_largest_does_not_underflow():
    log_sums = correction.log_sum_by_topology(np.array([0.0, -5000.0, -5000.0]), np.array([0, 1, 1]), 2)
    np.testing.assert_allclose(log_sums, [0.0, -5000.0 + np.log(2)])


def test_systematic_resampling_takes_the_floor_or_ceiling_of_each_expected_count():
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.full(40, 0.5))
    for _ in range(20):
        counts = np.bincount(
            correction.importance_resample(np.log(weights) - 300, np.arange(40) % 7, 100, rng), minlength=40
        )
        assert counts.sum() == 100
        assert np.all(np.abs(counts - 100 * weights) < 1)


def test_resampling_is_unbiased():
    rng = np.random.default_rng(1)
    weights = np.array([0.5, 0.003, 0.297, 0.2])
    counts = sum(
        np.bincount(
            correction.importance_resample(np.log(weights), np.array([0, 1, 0, 1]), 10, rng), minlength=4
        )
        for _ in range(4000)
    )
    # A count of a resample varies by at most 1/4 about its mean.
    np.testing.assert_allclose(counts / 40_000, weights, atol=4 * 0.5 / np.sqrt(4000) / 10)


def test_resampled_draws_follow_the_corrected_topology_probabilities(make_toy):
    toy = make_toy()
    draws = toy.draw(20_000, np.random.default_rng(5))
    corrected = correction.correct(draws)
    index = correction.importance_resample(
        corrected.log_draw_weights, draws.topology_index, 5_000, np.random.default_rng(6)
    )
    counts = np.bincount(draws.topology_index[index], minlength=len(draws.topologies))
    assert np.all(np.abs(counts - 5_000 * corrected.topology_probabilities) < 1)
    # Corrected branch lengths have the posterior's mean: the component means of q are off by -0.1 and +0.15.
    log_lengths = np.log(draws.branch_lengths[index])
    np.testing.assert_allclose(
        log_lengths.mean(axis=0), np.linspace(-3.0, -1.5, 9), atol=4 * 0.6 / np.sqrt(2500)
    )


def test_mostly_unique_topologies_are_not_weighted_by_q_twice():
    # 40 equally probable of very many topologies, each drawn once: a posterior that is flat must stay flat.
    rng = np.random.default_rng(0)
    log_q = np.log(rng.dirichlet(np.ones(40))) - 5.0
    topologies = random_topologies(12, 40, rng)
    draws = PosteriorDraws(
        taxa=tuple(f"t{i}" for i in range(12)),
        topologies=topologies,
        log_q=log_q,
        topology_index=np.arange(40),
        branch_lengths=np.full((40, 21), 0.1),
        log_weights=np.zeros(40),
        component=np.zeros(40, dtype=np.int64),
        responsibilities=np.ones((40, 1)),
    )
    np.testing.assert_allclose(correction.correct(draws).topology_probabilities, 1 / 40)
    twice = correction.correct(draws, CorrectionMethod.RAO_BLACKWELLISED).log_topology_probabilities
    np.testing.assert_allclose(twice, log_q - logsumexp(log_q))
