"""Models with parameters to estimate, from draws to results: against quadrature, and by invariance."""

import dataclasses

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import norm

from vbpi_mix import api
from vbpi_mix.alignment import Alignment
from vbpi_mix.datasets import load_dataset
from vbpi_mix.likelihood.base import make_likelihood
from vbpi_mix.likelihood.estimated import EstimatedModelLikelihood
from vbpi_mix.likelihood.model_names import parse_model
from vbpi_mix.likelihood.model_parameters import make_transform
from vbpi_mix.likelihood.models import gtr
from vbpi_mix.likelihood.priors import ExponentialBranchPrior
from vbpi_mix.patterns import compress
from vbpi_mix.results import refit, sampling
from vbpi_mix.results.correlations import Correlations, estimate_correlations
from vbpi_mix.results.evaluation import pooled_estimate
from vbpi_mix.results.result import summarise
from vbpi_mix.training.mixture import Mixture
from vbpi_mix.training.model_density import ModelDensity
from vbpi_mix.trees.enumeration import all_topologies
from vbpi_mix.trees.samples import TreeSample

FOUR = [0, 5, 14, 24]


@pytest.fixture(scope="module")
def four():
    """Four taxa and 200 sites of DS1."""
    whole = load_dataset("DS1")
    return Alignment(tuple(whole.taxa[i] for i in FOUR), whole.states[FOUR, 400:600], "part of DS1")


def evidence_given_kappa(patterns, kappas, num_draws=3000):
    """log p(Y | kappa) under K80, branch lengths integrated by importance sampling and topologies summed.

    The proposal is of the lengths' logarithms, about those of the best tree met in a crude search.
    """
    rng = np.random.default_rng(0)
    children = all_topologies(4)
    lengths = np.exp(rng.normal(-2.5, 1.2, (20_000, 5)))

    def likelihood(kappa):
        return make_likelihood(patterns, gtr(np.full(4, 0.25), np.array([1, kappa, 1, 1, kappa, 1.0])))

    middle = likelihood(2.0)
    proposals = []
    for topology in children:
        location, scale = np.full(5, -2.5), np.full(5, 1.2)
        for _ in range(6):  # adaptive importance sampling, from the prior guess to the posterior's moments
            log_lengths = location + scale * rng.standard_t(5, (4000, 5))
            lengths = np.exp(log_lengths)
            value = middle.value(np.repeat(topology[None], 4000, 0), lengths)
            log_weight = value + (log_lengths - 10 * lengths).sum(1)
            log_weight += 3.0 * np.log1p(((log_lengths - location) / scale) ** 2 / 5).sum(1)
            weight = np.exp(0.5 * (log_weight - log_weight.max()))
            weight /= weight.sum()
            location = weight @ log_lengths
            scale = np.sqrt(weight @ (log_lengths - location) ** 2)
        proposals.append((topology, location, scale))
    total = np.full((len(kappas), 3), -np.inf)
    for j, (topology, location, scale) in enumerate(proposals):
        x = rng.standard_t(5, (num_draws, 5))
        log_lengths = location + scale * x
        # density of a t distribution of five degrees of freedom, constant left out: it is common to all
        log_q = (-3.0 * np.log1p(x**2 / 5) - np.log(scale)).sum(1)
        prior = (np.log(10) + log_lengths - 10 * np.exp(log_lengths)).sum(1)
        trees = np.repeat(topology[None], num_draws, 0), np.exp(log_lengths)
        for i, kappa in enumerate(kappas):
            total[i, j] = logsumexp(likelihood(kappa).value(*trees) + prior - log_q) - np.log(num_draws)
    return logsumexp(total, axis=1)


def test_posterior_of_kappa_is_that_of_quadrature(four):
    trees = TreeSample(four.taxa, all_topologies(4), np.ones(3), "all")
    posterior = api.fit(
        four,
        trees,
        model="K80",
        seed=1,
        optimisation={"iterations": 1500},
        evaluation={"repeats": 20},
        machine={"threads": 1},
    )
    found = posterior.evaluate().model["kappa"]
    # x = kappa / (1 + kappa) is uniform a priori
    x = np.linspace(0.005, 0.995, 100)
    kappas = x / (1 - x)
    log_evidence = evidence_given_kappa(compress(four), kappas)
    density = np.exp(log_evidence - log_evidence.max())
    density /= density.sum()
    assert density[[0, -1]].max() < 1e-3  # nothing to speak of outside
    mean = density @ kappas
    sd = np.sqrt(density @ (kappas - mean) ** 2)
    assert found.mean == pytest.approx(mean, abs=0.08 * sd)
    assert found.sd == pytest.approx(sd, rel=0.1)
    cumulated = np.cumsum(density)
    low, high = found.hpd95
    mass = np.interp(high, kappas, cumulated) - np.interp(low, kappas, cumulated)
    assert mass == pytest.approx(0.95, abs=0.03)  # a grid step is up to 0.02


class Known(EstimatedModelLikelihood):
    """Stands for a likelihood with which prior times likelihood integrates to exactly one.

    Log lengths are normal about -3.5, coordinates about zero, topologies as in a mixture.
    """

    def __init__(self, patterns, transform, mixture):
        super().__init__(patterns, transform)
        self.mixture = mixture

    def value(self, children, branch_lengths, coordinates):
        log_lengths = np.log(branch_lengths)
        log_target = norm.logpdf(log_lengths, -3.5, 0.4).sum(1) + norm.logpdf(coordinates, 0.0, 0.4).sum(1)
        log_target += self.mixture.networks.log_mixture_probability_of(children)
        log_prior = ExponentialBranchPrior(10.0).log_density(log_lengths) - np.log(105)
        return log_target - log_prior - self.transform.log_prior(coordinates)


def test_slopes_leave_the_evidence_and_are_found_again(mixture, patterns):
    transform = make_transform(parse_model("HKY+G2"), patterns)
    density = ModelDensity.initial(2, np.zeros(2))
    density.table[:, :, 0] = [[0.2, 0.1], [0.0, -0.1]]
    density.table[:, 1, 1] = 0.3
    density.table[:, [0, 1], [1, 2]] = -0.8
    whole = Mixture(mixture.networks, mixture.branches, density)
    none = Correlations.none(whole)
    slopes = np.random.default_rng(3).normal(0.0, 0.2, none.slopes.shape)
    sloped = Correlations(none.values, none.shifts, slopes)
    draws = [
        sampling.draw_posterior(
            whole,
            Known(patterns, transform, mixture),
            ExponentialBranchPrior(10.0),
            4000,
            np.random.default_rng(4),
            correlations,
        )
        for correlations in (none, sloped)
    ]
    for one in draws:
        log_evidence, error = pooled_estimate(one.by_component(one.log_weights))
        assert error < 0.1
        assert abs(log_evidence) < 4 * error

    # Weighted equally the draws are those of the mixture itself, and so show its slopes: where they are many.
    index = mixture.support.index(draws[1].topologies, mixture.with_psp)
    own = dataclasses.replace(
        draws[1], responsibilities=np.eye(2)[draws[1].component], log_weights=np.zeros(draws[1].num_draws)
    )
    found = estimate_correlations(whole, own, index, np.ones(own.num_draws))
    split = mixture.support.splits_of(draws[1].topologies)
    pendant = np.unique(split[:, :6])
    np.testing.assert_allclose(found.slopes[:, pendant], slopes[:, pendant], atol=0.12)  # s.e. 1 / sqrt(4000)
    assert abs(np.mean(found.slopes[:, pendant] - slopes[:, pendant])) < 0.02


def test_the_refit_takes_the_moments_of_the_draws(mixture, patterns):
    transform = make_transform(parse_model("K80+G2"), patterns)
    density = ModelDensity.initial(2, transform.start())
    whole = Mixture(mixture.networks, mixture.branches, density)
    likelihood = EstimatedModelLikelihood(patterns, transform)
    draws = sampling.draw_posterior(
        whole, likelihood, ExponentialBranchPrior(10.0), 2000, np.random.default_rng(4)
    )
    target = np.random.default_rng(5).multivariate_normal([1.0, -1.0], [[0.5, 0.3], [0.3, 0.4]], 4000)
    draws = dataclasses.replace(draws, coordinates=target, log_weights=np.zeros(4000))
    fitted = refit.refit_mixture(whole, draws)[0].model
    np.testing.assert_allclose(fitted.mean, [[1.0, -1.0]] * 2, atol=0.1)
    factor = fitted.factor()
    np.testing.assert_allclose(factor @ factor.transpose(0, 2, 1), [[[0.5, 0.3], [0.3, 0.4]]] * 2, atol=0.06)
    np.testing.assert_array_equal(whole.model.table, density.table)


def test_traces_are_the_parameters_and_the_prior_on_their_own_scale(mixture, patterns):
    transform = make_transform(parse_model("K80+I+G2"), patterns)
    whole = Mixture(mixture.networks, mixture.branches, ModelDensity.initial(2, transform.start()))
    likelihood = EstimatedModelLikelihood(patterns, transform)
    draws = sampling.draw_posterior(
        whole, likelihood, ExponentialBranchPrior(10.0), 10, np.random.default_rng(4)
    )
    assert draws.model_parameters == ("kappa", "alpha", "pinvar")
    assert [*draws.traces] == ["LnL", "LnPr", "kappa", "alpha", "pinvar"]
    lengths = draws.branch_lengths
    # six taxa have 105 topologies; kappa / (1 + kappa) and the invariable sites have uniform priors
    expected = -np.log(105) + (np.log(10) - 10 * lengths).sum(1) - draws.traces["alpha"]
    np.testing.assert_allclose(draws.traces["LnPr"], expected, rtol=1e-10)


def test_summaries_are_weighted():
    values, weights = np.array([5.0, 1.0, 2.0, 4.0]), np.array([0.0, 0.3, 0.4, 0.3])
    found = summarise(values, weights)
    assert found.mean == pytest.approx(2.3)
    assert found.sd == pytest.approx(np.sqrt(0.3 * 1.3**2 + 0.4 * 0.3**2 + 0.3 * 1.7**2))
    assert found.median == 2.0
    assert found.hpd95 == (1.0, 4.0)
