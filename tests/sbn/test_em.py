"""Fitting networks to weighted topologies."""

import numpy as np
import pytest

from vbpi_mix.errors import OutOfSupportError
from vbpi_mix.sbn._probability_kernels import expectation_step
from vbpi_mix.sbn.em import fit_network, logits_of_counts, rooting_averaged_logits
from vbpi_mix.sbn.network import SubsplitNetworks
from vbpi_mix.sbn.reference import parameter_names, rooted_versions
from vbpi_mix.sbn.support import build_support
from vbpi_mix.trees.enumeration import all_topologies

TAXA = tuple("abcdef")


def test_rooting_averaged_logits_count_every_rooting_alike():
    topologies = all_topologies(6)[[5, 50, 99]]
    weights = np.array([1.0, 2.5, 0.5])
    support = build_support(topologies, TAXA)
    counts = dict.fromkeys(parameter_names(support), 0.0)
    for tree, weight in zip(topologies, weights, strict=True):
        for rootsplit, pcsps in rooted_versions(tree):
            for name in (rootsplit, *pcsps):
                counts[name] += weight
    expected = np.array(list(counts.values()))
    logits = rooting_averaged_logits(support, support.index(topologies), weights)
    networks = SubsplitNetworks.from_logits(support, logits[None])
    totals = np.add.reduceat(expected, support.parent_start[:-1])
    np.testing.assert_allclose(
        networks.q[0, :-2], expected / totals[support.tables.parameter_parent], rtol=1e-12
    )


@pytest.mark.parametrize("prior_strength", [0.0, 0.02])
def test_every_step_raises_the_objective_and_the_fit_is_stationary(prior_strength):
    topologies = all_topologies(6)
    rng = np.random.default_rng(0)
    weights = rng.gamma(0.3, size=105)
    support = build_support(topologies, TAXA)
    index = support.index(topologies)
    prior = prior_strength * rng.random(support.num_parameters)
    fit = fit_network(
        support,
        index,
        weights,
        rooting_averaged_logits(support, index, weights),
        prior_counts=prior,
        max_steps=3000,
        tolerance=1e-13,
    )
    assert (np.diff(fit.objectives) > 0).all()
    networks = SubsplitNetworks.from_logits(support, fit.logits[None])
    gradient = networks.gradient(index, 0, weights / weights.sum())
    totals = np.add.reduceat(prior, support.parent_start[:-1])[support.tables.parameter_parent]
    gradient += prior - networks.q[0, :-2] * totals
    # EM converges linearly; the start's gradient is of order 0.1
    assert np.abs(gradient).max() < 2e-5
    value = weights / weights.sum() @ networks.log_probability(index)[:, 0] + prior @ networks.log_q[0, :-2]
    assert value >= fit.objectives[-1] - 1e-12


def test_extrapolation_needs_fewer_steps_than_plain_em():
    topologies = all_topologies(7)
    weights = np.random.default_rng(1).gamma(0.1, size=len(topologies))
    weights /= weights.sum()
    support = build_support(topologies, (*TAXA, "g"))
    index = support.index(topologies)
    start = rooting_averaged_logits(support, index, weights)
    fitted = fit_network(support, index, weights, start, max_steps=60, tolerance=0.0).objectives[-1]
    logits = start
    for _ in range(60):
        log_q = SubsplitNetworks.from_logits(support, logits[None]).log_q[0]
        counts = np.zeros(support.num_parameters + 2)
        plain = expectation_step(log_q, weights, *index[:3], support.tables.parameter_parent, False, counts)
        logits = logits_of_counts(support, counts[:-2])
    assert fitted > plain + 1e-3  # the maximum is another 2e-3 higher


def test_fit_recovers_a_network():
    topologies = all_topologies(5)
    support = build_support(topologies, TAXA[:5])
    truth = SubsplitNetworks.from_logits(
        support, np.random.default_rng(3).normal(size=(1, support.num_parameters))
    )
    weights = np.exp(truth.log_probability_of(topologies)[:, 0])
    index = support.index(topologies)
    fit = fit_network(
        support, index, weights, np.zeros(support.num_parameters), max_steps=3000, tolerance=1e-14
    )
    fitted = np.exp(SubsplitNetworks.from_logits(support, fit.logits[None]).log_probability(index)[:, 0])
    np.testing.assert_allclose(fitted, weights, atol=2e-4)


def test_topologies_outside_the_support_are_left_out():
    topologies = all_topologies(6)
    support = build_support(topologies[:2], TAXA)
    index = support.index(topologies)
    weights = np.zeros(105)
    weights[[0, 60]] = 1.0
    fit = fit_network(support, index, weights, np.zeros(support.num_parameters))
    networks = SubsplitNetworks.from_logits(support, fit.logits[None])
    np.testing.assert_allclose(networks.log_probability_of(topologies[:1]), 0.0, atol=1e-6)
    with pytest.raises(OutOfSupportError, match="no weighted topology"):
        fit_network(support, index, np.eye(105)[60], np.zeros(support.num_parameters))
    with pytest.raises(ValueError, match="non-negative"):
        fit_network(support, index, -weights, np.zeros(support.num_parameters))
