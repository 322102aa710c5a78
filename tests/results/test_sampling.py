import dataclasses

import numpy as np
import pytest
from scipy.special import logsumexp

from vbpi_mix.branches import densities
from vbpi_mix.errors import NonFiniteError
from vbpi_mix.likelihood.base import make_likelihood
from vbpi_mix.likelihood.models import jc69
from vbpi_mix.likelihood.priors import ExponentialBranchPrior, log_topology_prior
from vbpi_mix.results import evaluation, refit, sampling
from vbpi_mix.results.comparison import compare_exact
from vbpi_mix.results.correction import CorrectionMethod, correct
from vbpi_mix.results.correlations import Correlations
from vbpi_mix.results.diagnostics import effective_sample_size
from vbpi_mix.results.refit import RefitChoice


@pytest.fixture(scope="module")
def prior():
    return ExponentialBranchPrior(10.0)


@pytest.fixture(scope="module")
def likelihood(patterns):
    return make_likelihood(patterns, jc69())


@pytest.fixture(scope="module")
def draws(mixture, likelihood, prior):
    return sampling.draw_posterior(mixture, likelihood, prior, 1500, np.random.default_rng(1))


def test_log_weights_by_their_definition(mixture, likelihood, prior, draws):
    # Densities again, one draw after another, from the topologies and branch lengths that came out.
    chosen = [0, 1, 777, 1500, 2999]
    children = draws.topologies[draws.topology_index[chosen]]
    log_lengths = np.log(draws.branch_lengths[chosen])
    log_joint = (
        likelihood.value(children, draws.branch_lengths[chosen])
        + prior.log_density(log_lengths)
        + log_topology_prior(mixture.support.num_taxa)
    )
    log_topology = mixture.networks.log_probability_of(children)
    index = mixture.support.index(children, mixture.with_psp)
    parameters = np.moveaxis(mixture.branches.branch_parameters(index.feature_index), -1, 0)
    log_branches = densities.log_density(log_lengths, *parameters).sum(axis=2).T
    log_density = log_topology + log_branches
    np.testing.assert_allclose(
        draws.log_weights[chosen], log_joint - (logsumexp(log_density, axis=1) - np.log(2)), rtol=1e-11
    )
    np.testing.assert_allclose(
        draws.responsibilities[chosen],
        np.exp(log_density - logsumexp(log_density, axis=1)[:, None]),
        rtol=1e-8,
    )


def test_log_q_is_exact(mixture, draws):
    np.testing.assert_allclose(
        draws.log_q, mixture.networks.log_mixture_probability_of(draws.topologies), rtol=1e-12
    )


def test_draws_are_stratified_and_follow_their_components(mixture, draws):
    assert np.bincount(draws.component).tolist() == [1500, 1500]
    for a in range(2):
        frequencies = (
            np.bincount(draws.topology_index[draws.component == a], minlength=len(draws.topologies)) / 1500
        )
        exact = np.exp(mixture.networks.log_probability_of(draws.topologies)[:, a])
        assert np.all(np.abs(frequencies - exact) < 5 * np.sqrt(exact * (1 - exact) / 1500) + 1e-3)


def test_drawing_ends_once_the_sample_is_large_enough(mixture, likelihood, prior, draws, monkeypatch):
    monkeypatch.setattr(sampling, "BATCH", 100)  # 50 of each component: groups of 500 draws

    def drawn(enough_ess):
        rng = np.random.default_rng(1)
        return sampling.draw_posterior(mixture, likelihood, prior, 1500, rng, enough_ess=enough_ess)

    everything = drawn(None)
    assert everything.num_draws == 3000
    sizes = [effective_sample_size(everything.log_weights[:stop]) for stop in range(500, 3001, 500)]
    enough = 0.999 * sizes[3]
    assert max(sizes[:3]) < enough  # so that four groups are needed
    some = drawn(enough)
    assert np.bincount(some.component).tolist() == [1000, 1000]
    np.testing.assert_array_equal(some.log_weights, everything.log_weights[:2000])
    np.testing.assert_array_equal(some.branch_lengths, everything.branch_lengths[:2000])
    for name, values in some.traces.items():
        np.testing.assert_array_equal(values, everything.traces[name][:2000])
    np.testing.assert_array_equal(
        some.topologies[some.topology_index], everything.topologies[everything.topology_index[:2000]]
    )
    assert drawn(1e9).num_draws == 3000


def test_the_last_batch_may_be_smaller(mixture, likelihood, prior, monkeypatch):
    # 2 components of 23 draws in batches of 2 x 5: the fifth batch has 2 x 3.
    monkeypatch.setattr(sampling, "BATCH", 10)
    draws = sampling.draw_posterior(mixture, likelihood, prior, 23, np.random.default_rng(1))
    assert np.bincount(draws.component).tolist() == [23, 23]
    np.testing.assert_allclose(
        draws.log_q, mixture.networks.log_mixture_probability_of(draws.topologies), rtol=1e-12
    )


def test_weights_that_are_not_finite_name_the_component(mixture, prior):
    class Zero:
        """A likelihood of zero for every second tree: those of component 1."""

        def value(self, children, branch_lengths, *, out=None):
            return np.where(np.arange(len(children)) % 2 == 1, -np.inf, -100.0)

        def value_and_gradient(self, children, branch_lengths, *, out=None):
            raise NotImplementedError

    with pytest.raises(NonFiniteError, match=r"got 10 of 20 that are not, of component\(s\) \[1\]"):
        sampling.draw_posterior(mixture, Zero(), prior, 10, np.random.default_rng(0))


def test_refitting_brings_q_nearer_the_posterior_and_raises_the_bound(mixture, likelihood, prior, draws):
    better, correlations, choice = refit.refit_mixture(mixture, draws)
    assert choice is not RefitChoice.UNCHANGED  # the networks are untrained, so there is much to gain
    before = mixture.networks.log_mixture_probability_of(draws.topologies)
    after = better.networks.log_mixture_probability_of(draws.topologies)
    target = correct(draws, CorrectionMethod.SELF_NORMALISED).topology_probabilities
    # The weights of untrained branch lengths are so uneven that the cautious candidate wins: part of the way.
    assert compare_exact(target, after).total_variation < 0.8 * compare_exact(target, before).total_variation
    fresh = sampling.draw_posterior(
        better, likelihood, prior, 1500, np.random.default_rng(2), correlations=correlations
    )
    assert evaluation.lower_bound(fresh.by_component(fresh.log_weights), 10) > evaluation.lower_bound(
        draws.by_component(draws.log_weights), 10
    )
    np.testing.assert_array_equal(better.branches.table, mixture.branches.table)


def test_a_mixture_that_cannot_gain_is_left_alone(mixture, draws):
    # Equal weights say that q is the posterior: what a fit changes is noise, and loses on the other half.
    exact = dataclasses.replace(draws, log_weights=np.zeros(draws.num_draws))
    same, _, choice = refit.refit_mixture(mixture, exact)
    assert choice is RefitChoice.UNCHANGED
    assert same is mixture


def dependent(support, correlation):
    """The same correlation everywhere, and other shifts for every component and PCSP."""
    shifts = np.random.default_rng(9).normal(0.0, 0.2, (2, support.num_parameters + 2))
    shifts[:, -2:] = 0.0
    slopes = np.zeros((2, support.num_splits, 0))
    return Correlations(np.full((2, len(support.tripartitions), 3), correlation), shifts, slopes)


def test_draws_do_not_depend_on_the_threads(mixture, patterns, prior, monkeypatch):
    monkeypatch.setattr(sampling, "BATCH", 100)
    correlations = dependent(mixture.support, -0.3)
    one, three = (
        sampling.draw_posterior(
            mixture,
            make_likelihood(patterns, jc69(), threads=threads),
            prior,
            333,
            np.random.default_rng(4),
            correlations,
            threads,
        )
        for threads in (1, 3)
    )
    np.testing.assert_array_equal(one.branch_lengths, three.branch_lengths)
    np.testing.assert_array_equal(one.log_weights, three.log_weights)


def test_correlated_draws_estimate_the_same_marginal_likelihood(mixture, likelihood, prior, draws):
    correlations = dependent(mixture.support, -0.2)
    correlated = sampling.draw_posterior(
        mixture, likelihood, prior, 6000, np.random.default_rng(5), correlations
    )
    expected, error = evaluation.pooled_estimate(draws.by_component(draws.log_weights))
    found, own_error = evaluation.pooled_estimate(correlated.by_component(correlated.log_weights))
    assert abs(found - expected) < 5 * np.hypot(error, own_error)


def test_undrawn_topologies_complete_the_drawn_ones(mixture, likelihood, prior):
    few = sampling.draw_posterior(mixture, likelihood, prior, 10, np.random.default_rng(6))
    undrawn = sampling.find_undrawn(mixture, few, 50_000, np.random.default_rng(7))
    both = np.concatenate([few.topologies, undrawn.topologies])
    assert len(np.unique(both.reshape(len(both), -1), axis=0)) == len(both)
    mass = np.exp(few.log_q).sum() + np.exp(undrawn.log_q).sum()
    assert 0.99 < mass < 1 + 1e-12  # all but the rarest of the 105 topologies


def test_truncated_weights_are_cut_at_the_root_of_their_number():
    log_weights = np.log(np.array([1.0] * 99 + [10_000.0])) - 500.0
    cut = refit.truncated_log_weights(log_weights)
    np.testing.assert_array_equal(cut[:99], log_weights[:99])
    assert cut[99] == pytest.approx(np.log((99 + 10_000) / 100 * 10) - 500.0)
