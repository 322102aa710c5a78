"""Topology gradients against brute force: every topology of five taxa, every tuple of particles.

Branch lengths are a fixed function of topology and component here, so that the bound is a function of the
topologies drawn and its expectation a finite sum.
"""

import itertools

import numpy as np
import pytest

from vbpi_mix.objectives.estimators import Estimator
from vbpi_mix.objectives.gradients import BranchGradient, TopologyGradient, mixture_objective
from vbpi_mix.sbn.network import SubsplitNetworks
from vbpi_mix.sbn.support import build_support
from vbpi_mix.trees.enumeration import all_topologies


class DiscreteMixture:
    """Networks on all topologies of some taxa, with arbitrary log p(Y, tau) and log q_d(b | tau)."""

    def __init__(self, num_taxa, num_components):
        rng = np.random.default_rng(num_taxa)
        topologies = all_topologies(num_taxa)
        self.support = build_support(topologies, tuple("abcde"[:num_taxa]))
        self.index = self.support.index(topologies)
        self.logits = rng.normal(size=(num_components, self.support.num_parameters))
        self.log_joint = 2.0 * rng.normal(size=len(topologies))
        self.log_branches = 0.5 * rng.normal(size=(len(topologies), num_components))

    def log_topology(self, logits):
        return SubsplitNetworks.from_logits(self.support, logits).log_probability(self.index)


def sampled_sets(estimator, num_components, num_sampled):
    for phi in itertools.combinations(range(num_components), num_sampled):
        yield np.array(phi), np.array(phi if estimator is Estimator.S2S else range(num_components))


def outcomes(model, logits, phi, num_particles):
    """Every tuple of topologies [outcome, S, K] with its probability."""
    q = np.exp(model.log_topology(logits))
    draws = np.array(list(itertools.product(range(len(q)), repeat=len(phi) * num_particles)))
    draws = draws.reshape(-1, len(phi), num_particles)
    return draws, np.prod(q[draws, phi[:, None]], axis=(1, 2))


def objectives(model, logits, draws, phi, denominators, kind):
    log_density = (model.log_topology(logits) + model.log_branches)[:, denominators]
    return mixture_objective(
        model.log_joint[draws],
        log_density[draws],
        np.searchsorted(denominators, phi),
        kind,
        BranchGradient.PATH,
    )


@pytest.mark.parametrize(
    ("estimator", "num_taxa", "num_components", "num_sampled", "num_particles"),
    [
        (Estimator.A2A, 5, 1, 1, 2),
        (Estimator.S2A, 5, 2, 1, 2),
        (Estimator.S2A, 4, 3, 2, 2),
        (Estimator.S2S, 4, 3, 2, 2),
        (Estimator.A2A, 4, 2, 2, 3),
    ],
)
def test_vimco_is_unbiased_for_the_bound(estimator, num_taxa, num_components, num_sampled, num_particles):
    model = DiscreteMixture(num_taxa, num_components)
    sets = list(sampled_sets(estimator, num_components, num_sampled))

    def expected_bound(logits):
        total = 0.0
        for phi, denominators in sets:
            draws, probability = outcomes(model, logits, phi, num_particles)
            total += (
                probability
                @ objectives(model, logits, draws, phi, denominators, TopologyGradient.VIMCO).bound
            )
        return total / len(sets)

    expected = np.zeros_like(model.logits)
    networks = SubsplitNetworks.from_logits(model.support, model.logits)
    for phi, denominators in sets:
        draws, probability = outcomes(model, model.logits, phi, num_particles)
        cotangent = objectives(
            model, model.logits, draws, phi, denominators, TopologyGradient.VIMCO
        ).d_topology
        for d, component in enumerate(denominators):
            weights = np.bincount(
                draws.ravel(),
                (probability[:, None, None] * cotangent[..., d]).ravel(),
                minlength=len(model.log_joint),
            )
            expected[component] += networks.gradient(model.index, int(component), weights) / len(sets)

    step = 1e-5
    rng = np.random.default_rng(0)
    for _ in range(6):  # derivatives along random directions of all components' logits
        direction = rng.normal(size=model.logits.shape)
        slope = (
            expected_bound(model.logits + step * direction) - expected_bound(model.logits - step * direction)
        ) / (2 * step)
        # central difference: error of order step^2
        np.testing.assert_allclose(np.sum(expected * direction), slope, rtol=1e-6, atol=1e-7)
        assert abs(slope) > 1e-3


def test_reweighted_wake_sleep_approaches_the_inclusive_divergence():
    # One component: sum_k W_k grad log q(tau_k) -> sum_tau p(tau) grad log q(tau) as K grows.
    model = DiscreteMixture(4, 1)
    networks = SubsplitNetworks.from_logits(model.support, model.logits)
    log_weights = model.log_joint - model.log_branches[:, 0]
    posterior = np.exp(log_weights) / np.exp(log_weights).sum()
    limit = networks.gradient(model.index, 0, posterior)
    rng = np.random.default_rng(1)
    q = np.exp(model.log_topology(model.logits)[:, 0])
    phi = np.array([0])
    draws = rng.choice(len(q), (40, 1, 2000), p=q / q.sum())
    cotangent = objectives(
        model, model.logits, draws, phi, phi, TopologyGradient.REWEIGHTED_WAKE_SLEEP
    ).d_topology
    gradients = np.stack(
        [
            networks.gradient(model.index, 0, np.bincount(d.ravel(), c.ravel(), minlength=len(q)))
            for d, c in zip(draws, cotangent, strict=True)
        ]
    )
    error = gradients.std(0) / np.sqrt(len(gradients))
    # bias is of order 1 / K = 5e-4; six standard errors else
    assert (np.abs(gradients.mean(0) - limit) < 6 * error + 2e-3).all()
    assert np.abs(limit).max() > 0.05
