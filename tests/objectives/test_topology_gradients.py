"""Gradients in the discrete part, against the exact gradient by enumeration of every draw."""

import itertools
import math

import numpy as np
import pytest
import torch

from vbpi_mix.objectives.bounds import importance_weights
from vbpi_mix.objectives.estimators import Estimator
from vbpi_mix.objectives.gradients import (
    BranchGradient,
    TopologyGradient,
    mixture_objective,
    topology_cotangents,
)

LOG_TARGET = np.log(np.array([0.9, 0.25, 1.6]))
"""Unnormalised log probabilities of three topologies."""
# Component 1 does not have the third topology in its support.
LOGITS = np.array([[0.3, -0.8, 0.6], [1.1, 0.2, -np.inf], [-0.5, 0.9, 1.3]])
CASES = [
    # estimator, components in all, sampled, particles
    (Estimator.A2A, 1, (0,), 2),
    (Estimator.A2A, 1, (2,), 3),
    (Estimator.S2A, 3, (2,), 1),
    (Estimator.S2A, 3, (0,), 3),
    (Estimator.S2A, 3, (0, 1), 2),
    (Estimator.S2A, 3, (1, 2), 1),
    (Estimator.S2S, 3, (0, 2), 2),
    (Estimator.S2S, 3, (0, 1), 3),
    (Estimator.S2S, 3, (1,), 2),
    (Estimator.A2A, 2, (0, 1), 3),
    (Estimator.A2A, 3, (0, 1, 2), 2),
    (Estimator.A2A, 3, (0, 1, 2), 1),
]


def denominators_of(estimator, num_components, sampled):
    """Components of the mixture density; with one component in all it is the sampled one."""
    return sampled if estimator is Estimator.S2S or num_components == 1 else tuple(range(num_components))


def exact_gradient(denominators, sampled, num_particles):
    """Gradient of E[bound | Phi] in the logits [3, 3] by enumerating the K-tuples of each component."""
    # exp(-800) is zero in float64, without the nan that autograd makes of infinities.
    logits = torch.tensor(np.maximum(LOGITS, -800.0), requires_grad=True)
    log_q = torch.log_softmax(logits, -1)
    log_mixture = torch.logsumexp(log_q[list(denominators)], 0) - math.log(len(denominators))
    f = torch.tensor(LOG_TARGET) - log_mixture
    expected = torch.zeros((), dtype=torch.float64)
    for s in sampled:
        for draws in itertools.product(np.flatnonzero(np.isfinite(LOGITS[s])), repeat=num_particles):
            index = torch.tensor(draws)
            bound = torch.logsumexp(f[index], 0) - math.log(num_particles)
            expected = expected + torch.exp(log_q[s, index].sum()) * bound / len(sampled)
    expected.backward()
    return logits.grad.numpy()


def expected_estimate(kind, denominators, sampled, num_particles):
    """Exact expectation of an estimator: every joint draw of all sampled components, as one batch."""
    probabilities = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
    draws = np.array(list(itertools.product(range(3), repeat=len(sampled) * num_particles)))
    draws = draws.reshape(-1, len(sampled), num_particles)
    component = np.array(sampled)[:, None]
    probability = probabilities[component, draws].prod((-1, -2))
    draws, probability = draws[probability > 0], probability[probability > 0]
    with np.errstate(divide="ignore"):
        log_q = np.log(probabilities)
    log_density = np.moveaxis(log_q[list(denominators)][:, draws], 0, -1)
    generator = np.array([denominators.index(s) for s in sampled])
    objective = mixture_objective(
        LOG_TARGET[draws], log_density, generator, kind, BranchGradient.REPARAMETERISED
    )
    gradient = np.zeros((3, 3))
    for position, d in enumerate(denominators):
        # d log q_d(tau) / d logits = one_hot(tau) - probabilities.
        score = np.eye(3)[draws] - probabilities[d]
        gradient[d] = np.einsum("n,nsk,nskm->m", probability, objective.d_topology[..., position], score)
    return gradient


@pytest.mark.parametrize(("estimator", "num_components", "sampled", "num_particles"), CASES)
def test_vimco_is_unbiased(estimator, num_components, sampled, num_particles):
    denominators = denominators_of(estimator, num_components, sampled)
    exact = exact_gradient(denominators, sampled, num_particles)
    found = expected_estimate(TopologyGradient.VIMCO, denominators, sampled, num_particles)
    assert np.abs(exact).max() > 1e-2
    np.testing.assert_allclose(found, exact, atol=1e-13)


def test_vimco_baseline_lowers_the_coefficients_of_one_particle():
    # f is around -7000: with a second sampled component the baseline takes that away, alone it cannot.
    log_density = np.zeros((2, 1, 2))
    generator = np.arange(2)
    weights = importance_weights(np.array([[-7000.0], [-7003.0]]), log_density)
    cotangents = topology_cotangents(weights, generator, TopologyGradient.VIMCO)
    np.testing.assert_allclose(cotangents, [[[1.25, -0.25]], [[-0.25, -1.75]]])
    alone = importance_weights(np.array([[-7000.0]]), log_density[:1, :, :1])
    assert topology_cotangents(alone, generator[:1], TopologyGradient.VIMCO) == pytest.approx(-7001.0)


@pytest.mark.parametrize("estimator", [Estimator.A2A, Estimator.S2A, Estimator.S2S])
def test_reweighted_wake_sleep_tends_to_the_inclusive_gradient_of_each_component(estimator):
    # Twelve particles in exact proportion to q_s make the self-normalised sums equal to their limit in K.
    q = np.array([[3, 5, 4], [2, 1, 9], [6, 6, 0]]) / 12.0
    sampled = {Estimator.A2A: (0, 1, 2), Estimator.S2A: (1, 2), Estimator.S2S: (0, 2)}[estimator]
    denominators = denominators_of(estimator, 3, sampled)
    draws = np.array([np.repeat(np.arange(3), (12 * q[s]).astype(int)) for s in sampled])
    with np.errstate(divide="ignore"):
        log_density = np.moveaxis(np.log(q[list(denominators)])[:, draws], 0, -1)
    weights = importance_weights(LOG_TARGET[draws], log_density)
    generator = np.array([denominators.index(s) for s in sampled])
    cotangents = topology_cotangents(weights, generator, TopologyGradient.REWEIGHTED_WAKE_SLEEP)

    posterior = np.exp(LOG_TARGET) / np.exp(LOG_TARGET).sum()
    responsibility = q / q[list(denominators)].sum(0)
    for position, d in enumerate(denominators):
        found = np.einsum("sk,skm->m", cotangents[..., position], np.eye(3)[draws] - q[d])
        expected = np.zeros(3)
        if d in sampled:
            mass = posterior * responsibility[d]
            expected = (mass @ (np.eye(3) - q[d])) / mass.sum() / len(sampled)
        np.testing.assert_allclose(found, expected, atol=1e-14)


def test_unknown_kind_is_refused():
    weights = importance_weights(np.zeros((1, 2)), np.zeros((1, 2, 1)))
    with pytest.raises(Exception, match="TopologyGradient"):
        topology_cotangents(weights, np.array([0]), "vimco")
