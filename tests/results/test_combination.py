"""Several runs as one posterior: consistent, and each run's part of the draws its own."""

import dataclasses

import numpy as np
import pytest

from vbpi_mix.results.combination import RunPosterior, average_topologies, combine
from vbpi_mix.results.correction import CorrectionMethod, correct
from vbpi_mix.results.result import estimate
from vbpi_mix.trees.summaries import split_table


@pytest.fixture(scope="module")
def toys(make_toy):
    """One posterior, and two proposals that have nothing else in common."""
    one, other = make_toy(seed=11), make_toy(seed=5)
    return one, dataclasses.replace(other, posterior=one.posterior)


def posterior_of(toy, seed, num_draws=20_000):
    draws = toy.draw(num_draws, np.random.default_rng(seed))
    log_q = {row.tobytes(): np.log(q) for row, q in zip(toy.topologies, toy.q.mean(axis=0), strict=True)}
    return RunPosterior(
        lambda children: np.array([log_q[row.tobytes()] for row in children]), draws, correct(draws)
    )


@pytest.fixture(scope="module")
def runs(toys):
    return [posterior_of(toy, seed) for seed, toy in enumerate(toys)]


def probabilities(corrected):
    return {
        row.tobytes(): p
        for row, p in zip(corrected.topologies, corrected.topology_probabilities, strict=True)
    }


def test_one_run_is_left_as_it_is(runs):
    assert combine(runs[:1]) == (runs[0].draws, runs[0].corrected)


def test_the_combined_posterior_is_the_average_and_near_the_truth(runs, toys):
    draws, corrected = combine(runs)
    assert draws.num_draws == 40_000
    found, each = probabilities(corrected), [probabilities(run.corrected) for run in runs]
    assert sum(found.values()) == pytest.approx(1.0)
    for row, p in found.items():
        assert p == pytest.approx(np.mean([one.get(row, 0.0) for one in each]), abs=1e-12)
    exact = dict(zip((row.tobytes() for row in toys[0].topologies), toys[0].posterior, strict=True))
    distance = 0.5 * sum(abs(exact[row] - found.get(row, 0.0)) for row in exact)
    assert distance < 0.02
    assert corrected.draw_weights.sum() == pytest.approx(1.0)


def test_the_parts_of_the_draws_are_the_runs(runs):
    draws, corrected = combine(runs)
    for number, run in enumerate(runs):
        part = slice(20_000 * number, 20_000 * (number + 1))
        np.testing.assert_array_equal(draws.log_weights[part], run.draws.log_weights)
        np.testing.assert_array_equal(
            draws.topologies[draws.topology_index[part]], run.draws.topologies[run.draws.topology_index]
        )
        np.testing.assert_allclose(corrected.draw_weights[part], run.corrected.draw_weights / 2)


def test_parameters_of_the_model_stay_with_their_draws(runs):
    rng = np.random.default_rng(7)
    own = []
    for run in runs:
        coordinates = rng.normal(size=(run.draws.num_draws, 2))
        draws = dataclasses.replace(
            run.draws,
            coordinates=coordinates,
            model_parameters=("kappa",),
            traces={**run.draws.traces, "kappa": np.exp(coordinates[:, 0])},
        )
        own.append(dataclasses.replace(run, draws=draws))
    draws, corrected = combine(own)
    np.testing.assert_array_equal(draws.coordinates, np.concatenate([run.draws.coordinates for run in own]))
    np.testing.assert_array_equal(draws.traces["kappa"], np.exp(draws.coordinates[:, 0]))
    together = estimate(draws, corrected, 500).model["kappa"]
    each = [estimate(run.draws, run.corrected, 500).model["kappa"] for run in own]
    assert together.mean == pytest.approx(np.mean([one.mean for one in each]))


def test_estimates_are_those_of_all_runs(runs, toys):
    draws, corrected = combine(runs)
    together = estimate(draws, corrected, 500)
    each = [estimate(run.draws, run.corrected, 500) for run in runs]
    assert together.marginal_log_likelihood.pooled == pytest.approx(
        toys[0].log_marginal, abs=4 * together.marginal_log_likelihood.standard_error
    )
    assert together.marginal_log_likelihood.num_repeats == sum(
        one.marginal_log_likelihood.num_repeats for one in each
    )
    for name in ("lower_bound_1", "jensen_shannon"):
        assert getattr(together, name) == pytest.approx(np.mean([getattr(one, name) for one in each]))


def test_probabilities_under_the_mixture_are_averages(runs, toys):
    draws, corrected = combine(runs)
    mean = 0.5 * (toys[0].q.mean(axis=0) + toys[1].q.mean(axis=0))
    exact = dict(zip((row.tobytes() for row in toys[0].topologies), mean, strict=True))
    for row, log_q in zip(draws.topologies, draws.log_q, strict=True):
        assert np.exp(log_q) == pytest.approx(exact[row.tobytes()])
    assert corrected.drawn_mass == pytest.approx(np.exp(draws.log_q).sum())


def test_a_topology_that_one_run_lacks_counts_with_nothing_there(toys):
    few = [posterior_of(toy, seed, 200) for seed, toy in enumerate(toys)]
    draws, corrected = combine(few)
    assert len(draws.topologies) > max(len(run.draws.topologies) for run in few)
    assert sum(probabilities(corrected).values()) == pytest.approx(1.0)
    splits = split_table(corrected.topologies, corrected.topology_probabilities)
    assert splits.frequencies.max() == pytest.approx(1.0)


def test_runs_of_two_methods_are_called_self_normalised(runs):
    first, other = (
        dataclasses.replace(run, corrected=correct(run.draws, method))
        for run, method in zip(
            runs, (CorrectionMethod.RAO_BLACKWELLISED, CorrectionMethod.SELF_NORMALISED), strict=True
        )
    )
    assert combine([first, other])[1].method is CorrectionMethod.SELF_NORMALISED
    assert combine([first, first])[1].method is CorrectionMethod.RAO_BLACKWELLISED


def test_average_of_topologies_keeps_zeros(make_toy):
    topologies = make_toy().topologies[:3]
    with np.errstate(divide="ignore"):
        posteriors = [(topologies[:2], np.log([0.5, 0.5])), (topologies[1:], np.log([1.0, 0.0]))]
    distinct, log_probabilities = average_topologies(topologies[:0], posteriors)
    assert len(distinct) == 3
    np.testing.assert_allclose(np.exp(log_probabilities), [0.25, 0.75, 0.0])
