import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import t as student_t

from vbpi_mix.alignment import Alignment
from vbpi_mix.likelihood.base import make_likelihood
from vbpi_mix.likelihood.models import jc69
from vbpi_mix.patterns import compress
from vbpi_mix.results import outside
from vbpi_mix.results.correction import CorrectionMethod, correct
from vbpi_mix.results.draws import PosteriorDraws
from vbpi_mix.sbn.network import SubsplitNetworks
from vbpi_mix.sbn.support import build_support
from vbpi_mix.trees.enumeration import all_topologies
from vbpi_mix.trees.topology import nni_neighbours

TAXA = tuple("abcde")
RATE = 10.0


@pytest.fixture(scope="module")
def likelihood():
    """Of 60 sites, few enough for several topologies to be probable."""
    rng = np.random.default_rng(5)
    rows = [rng.integers(0, 4, 60)]
    for changed in (0.1, 0.15, 0.1, 0.2):
        rows.append(np.where(rng.random(60) < changed, rng.integers(0, 4, 60), rows[len(rows) // 2]))
    alignment = Alignment(TAXA, (1 << np.array(rows)).astype(np.uint8), "made up")
    return make_likelihood(compress(alignment), jc69())


def importance_draws(likelihood, children, num_draws, rng):
    """Branch lengths of one topology from t distributions fitted in turns, and their log weights."""
    mean, spread = np.full(7, -3.0), np.full(7, 1.5)
    for _ in range(4):
        standard = rng.standard_t(5, (num_draws, 7))
        log_lengths = mean + spread * standard
        log_q = (student_t.logpdf(standard, 5) - np.log(spread)).sum(axis=1)
        log_prior = (np.log(RATE) - RATE * np.exp(log_lengths) + log_lengths).sum(axis=1)
        repeated = np.repeat(children[None], num_draws, axis=0)
        log_weights = likelihood.value(repeated, np.exp(log_lengths)) + log_prior - log_q
        weights = np.exp(log_weights - logsumexp(log_weights))
        mean = weights @ log_lengths
        spread = 1.2 * np.sqrt(weights @ (log_lengths - mean) ** 2)
    return np.exp(log_lengths), log_weights


@pytest.fixture(scope="module")
def posterior(likelihood):
    """Posterior probability of every topology, by importance sampling."""
    rng = np.random.default_rng(1)
    log_marginals = [
        logsumexp(importance_draws(likelihood, children, 10_000, rng)[1]) for children in all_topologies(5)
    ]
    return dict(
        zip(
            (t.tobytes() for t in all_topologies(5)),
            np.exp(log_marginals - logsumexp(log_marginals)),
            strict=True,
        )
    )


def look(likelihood, topologies, posterior, num_draws=4000, power=1.0):
    """What is outside the support of some topologies, from draws of the exact posterior within them."""
    rng = np.random.default_rng(2)
    made = [importance_draws(likelihood, children, num_draws, rng) for children in topologies]
    inside = np.array([posterior[t.tobytes()] for t in topologies])
    inside /= inside.sum()
    log_weights = np.concatenate(
        [lw - logsumexp(lw) + np.log(p) for (_, lw), p in zip(made, inside, strict=True)]
    )
    draws = PosteriorDraws(
        taxa=TAXA,
        topologies=topologies,
        log_q=np.log(np.full(len(topologies), 1 / len(topologies))),
        topology_index=np.repeat(np.arange(len(topologies)), num_draws),
        branch_lengths=np.concatenate([lengths for lengths, _ in made]),
        log_weights=log_weights,
        component=np.zeros(len(log_weights), np.int64),
        responsibilities=np.ones((len(log_weights), 1)),
    )
    support = build_support(topologies, TAXA)
    networks = SubsplitNetworks.from_logits(support, np.zeros((1, support.num_parameters)))
    return outside.look_outside(
        draws,
        correct(draws, CorrectionMethod.SELF_NORMALISED),
        networks,
        lambda children, lengths, _: power * likelihood.value(children, lengths),
        RATE,
        np.random.default_rng(3),
    )


def best_topology(posterior):
    return max(all_topologies(5), key=lambda t: posterior[t.tobytes()])


def test_masses_of_neighbours_are_their_posterior_probabilities(likelihood, posterior, monkeypatch):
    monkeypatch.setattr(outside, "NUM_DRAWS", 400)
    best = best_topology(posterior)
    found = look(likelihood, best[None], posterior)
    assert found.covered == pytest.approx(1.0)
    assert found.num_looked_at == len(found.near.children) == 4
    assert {t.tobytes() for t in found.near.children} == {t.tobytes() for t in nni_neighbours(best)}
    assert list(found.near.masses) == sorted(found.near.masses, reverse=True)
    for children, beside, mass in zip(found.near.children, found.near.beside, found.near.masses, strict=True):
        np.testing.assert_array_equal(beside, best)
        # 400 draws of ratios whose standard deviation is about their mean: 5%, and as much in the reference
        assert mass == pytest.approx(posterior[children.tobytes()] / posterior[best.tobytes()], rel=0.25)
    total = sum(posterior[t.tobytes()] for t in found.near.children)
    assert found.mass == pytest.approx(total / (total + posterior[best.tobytes()]), rel=0.15)


def test_a_few_draws_tell_the_magnitude(likelihood, posterior):
    best = best_topology(posterior)
    found = look(likelihood, best[None], posterior)
    total = sum(posterior[t.tobytes()] for t in found.near.children)
    odds = found.mass / (1 - found.mass)
    assert 0.5 < odds / (total / posterior[best.tobytes()]) < 2


def test_neighbours_of_a_hopeless_support_have_finite_masses(likelihood, posterior):
    # As if there were ten thousand times as many sites: thousands of nats lie between topologies.
    poor = min(nni_neighbours(best_topology(posterior)), key=lambda t: posterior[t.tobytes()])
    found = look(likelihood, poor[None], posterior, num_draws=100, power=1e4)
    masses = found.near.masses
    assert np.isfinite(masses.sum())
    assert masses.max() > 1e200
    assert list(masses) == sorted(masses, reverse=True)
    assert found.mass == 1.0


def test_the_log_length_of_the_new_branch_is_that_of_the_neighbours_own_posterior(
    likelihood, posterior, monkeypatch
):
    monkeypatch.setattr(outside, "NUM_DRAWS", 200)
    best = best_topology(posterior)
    near = look(likelihood, best[None], posterior).near
    lengths, log_weights = importance_draws(likelihood, near.children[0], 20_000, np.random.default_rng(7))
    weights = np.exp(log_weights - logsumexp(log_weights))
    # The new branch is the inner one that the best topology has not.
    splits = build_support(np.stack([best, near.children[0]]), TAXA).splits_of(
        np.stack([best, near.children[0]])
    )
    new = [edge for edge in range(7) if splits[1, edge] not in splits[0]]
    assert len(new) == 1
    logs = np.log(lengths[:, new[0]])
    mean = weights @ logs
    assert near.log_length_mean[0] == pytest.approx(mean, abs=0.5)
    assert near.log_length_std[0] == pytest.approx(np.sqrt(weights @ (logs - mean) ** 2), rel=0.5)


def test_a_support_without_the_best_topology_has_most_mass_outside(likelihood, posterior):
    best = best_topology(posterior)
    others = nni_neighbours(best)[:2]
    found = look(likelihood, others, posterior)
    assert found.near.children[0].tobytes() == best.tobytes()
    assert found.mass > 0.5 * posterior[best.tobytes()]


def test_nothing_lies_outside_a_complete_support(likelihood, posterior):
    found = look(likelihood, all_topologies(5), posterior, num_draws=200)
    assert found.mass == 0.0
    assert found.num_looked_at == len(found.near.children) == 0
