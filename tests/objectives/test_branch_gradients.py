"""Gradients in the reparameterised part, on a toy whose particles are (discrete tau, real b).

b given tau is normal with a mean and log scale for each component and tau. Expectations over the few draws a
formula depends on are quadratures by the trapezoidal rule, which converges geometrically here; where there
are too many draws, Monte Carlo.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from vbpi_mix.objectives.estimators import Estimator
from vbpi_mix.objectives.gradients import BranchGradient, TopologyGradient, mixture_objective

# Component 1 never draws the third tau: its density there is zero.
PROBABILITIES = np.array([[0.5, 0.3, 0.2], [0.35, 0.65, 0.0], [0.1, 0.4, 0.5]])
MEANS = np.array([[0.2, -0.6, 1.1], [0.9, 0.1, 0.0], [-0.5, 0.6, 0.4]])
LOG_SCALES = np.array([[-0.3, 0.1, -0.5], [0.05, -0.4, 0.0], [-0.2, -0.1, 0.2]])
LOG_PRIOR = np.log(np.array([0.8, 0.5, 1.1]))
CENTRES = np.array([0.4, -0.1, 0.8])
CASES = [
    # estimator, components in all, sampled
    (Estimator.A2A, 1, (0,)),
    (Estimator.A2A, 2, (0, 1)),
    (Estimator.S2A, 2, (0,)),
    (Estimator.S2A, 3, (2,)),
    (Estimator.S2A, 3, (0, 2)),
    (Estimator.S2A, 3, (0, 1)),
    (Estimator.S2S, 3, (1,)),
    (Estimator.S2S, 3, (1, 2)),
]
ENUMERATED = pytest.mark.parametrize(("estimator", "num_components", "sampled"), CASES)


def denominators_of(estimator, num_components, sampled):
    """Components of the mixture density."""
    return sampled if estimator is Estimator.S2S else tuple(range(num_components))


def log_joint(tau, b):
    """An unnormalised, skewed target."""
    deviation = b - CENTRES[tau]
    return LOG_PRIOR[tau] - 0.4 * deviation**2 + 0.3 * np.sin(deviation)


def d_log_joint(tau, b):
    """Derivative of `log_joint` in b."""
    deviation = b - CENTRES[tau]
    return -0.8 * deviation + 0.3 * np.cos(deviation)


def nodes(component, spacing):
    """Quadrature nodes (tau, noise) of one component's draws and their probabilities."""
    noise = spacing * np.arange(-round(7.0 / spacing), round(7.0 / spacing) + 1)
    weight = spacing * np.exp(-0.5 * noise**2) / math.sqrt(2.0 * math.pi)
    tau = np.flatnonzero(PROBABILITIES[component])
    probability = PROBABILITIES[component, tau][:, None] * weight
    return np.repeat(tau, noise.size), np.tile(noise, tau.size), probability.ravel()


def exact_gradient(denominators, sampled, num_particles, spacing=0.125):
    """Gradient of E[bound | Phi] in (means, log scales), [2, 3, 3], for one or two particles."""
    means, log_scales = (torch.tensor(x, requires_grad=True) for x in (MEANS, LOG_SCALES))
    log_probabilities = torch.log(torch.tensor(PROBABILITIES))
    expected = torch.zeros((), dtype=torch.float64)
    for s in sampled:
        tau, noise, probability = nodes(s, spacing)
        b = means[s, tau] + torch.exp(log_scales[s, tau]) * torch.tensor(noise)
        terms = []
        for d in denominators:
            z = (b - means[d, tau]) * torch.exp(-log_scales[d, tau])
            terms.append(log_probabilities[d, tau] - 0.5 * z * z - log_scales[d, tau])
        log_mixture = (
            torch.logsumexp(torch.stack(terms), 0) - 0.5 * math.log(2 * math.pi) - math.log(len(terms))
        )
        deviation = b - torch.tensor(CENTRES[tau])
        f = torch.tensor(LOG_PRIOR[tau]) - 0.4 * deviation**2 + 0.3 * torch.sin(deviation) - log_mixture
        p = torch.tensor(probability)
        if num_particles == 1:
            expected = expected + (p @ f) / len(sampled)
        else:
            bounds = torch.logaddexp(f[:, None], f[None, :]) - math.log(2.0)
            expected = expected + (p @ bounds @ p) / len(sampled)
    expected.backward()
    return np.stack([means.grad.numpy(), log_scales.grad.numpy()])


@dataclass
class Draws:
    """Particles of a batch of problems: tau and noise, each [batch, sampled, particle]."""

    denominators: tuple[int, ...]
    sampled: tuple[int, ...]
    tau: np.ndarray
    noise: np.ndarray

    def estimates(self, kind, only=None):
        """Gradient of every problem, [batch, 2, 3, 3]; ``only`` limits it to one (sampled, particle)."""
        component = np.array(self.sampled)[:, None]
        b = MEANS[component, self.tau] + np.exp(LOG_SCALES[component, self.tau]) * self.noise
        density, slope, scores = [], [], []
        with np.errstate(divide="ignore"):
            log_probabilities = np.log(PROBABILITIES)
        for d in self.denominators:
            scale = np.exp(LOG_SCALES[d, self.tau])
            z = (b - MEANS[d, self.tau]) / scale
            density.append(
                log_probabilities[d, self.tau] - 0.5 * z * z - np.log(scale) - 0.5 * math.log(2 * math.pi)
            )
            slope.append(-z / scale)
            scores.append(np.stack([z / scale, z * z - 1.0]))
        generator = np.array([self.denominators.index(s) for s in self.sampled])
        objective = mixture_objective(
            log_joint(self.tau, b),
            np.stack(density, -1),
            generator,
            TopologyGradient.REWEIGHTED_WAKE_SLEEP,
            kind,
        )
        path = objective.d_log_joint * d_log_joint(self.tau, b) + (
            objective.d_path * np.stack(slope, -1)
        ).sum(-1)
        db = np.stack([np.ones_like(b), np.exp(LOG_SCALES[component, self.tau]) * self.noise])
        gradient = np.zeros((self.tau.shape[0], 2, 3, 3))
        places = (
            itertools.product(range(len(self.sampled)), range(self.tau.shape[2])) if only is None else [only]
        )
        for s, k in places:
            tau = np.eye(3)[self.tau[:, s, k]]
            own = path[:, s, k] * db[:, :, s, k]
            gradient[:, :, self.sampled[s]] += own.T[:, :, None] * tau[:, None]
            for position, d in enumerate(self.denominators):
                direct = objective.d_score_branch[:, s, k, position] * scores[position][:, :, s, k]
                gradient[:, :, d] += direct.T[:, :, None] * tau[:, None]
        return gradient


def expected_estimate(kind, denominators, sampled, num_particles, spacing):
    """Expectation of an estimator with one or two particles.

    The terms of particle k of component a depend on that draw and on the other particle of every batch, never
    on the other batches' own particle k; so only those are integrated over, and k = 0 stands for both.
    """
    gradient = np.zeros((2, 3, 3))
    for position, a in enumerate(sampled):
        others = [a, *(s for s in sampled if s != a)] if num_particles == 2 else []
        sets = [nodes(a, spacing)] + [nodes(s, spacing) for s in others]
        grid = np.stack([x.ravel() for x in np.indices([x[0].size for x in sets])], axis=1)
        probability = np.prod([x[2][grid[:, i]] for i, x in enumerate(sets)], axis=0)
        grid, probability = grid[probability > 1e-13], probability[probability > 1e-13]
        # Places that no term depends on hold an arbitrary draw their component can make.
        tau = np.zeros((grid.shape[0], len(sampled), num_particles), dtype=int)
        noise = np.full(tau.shape, 0.37)
        slots = [(position, 0)] + [(sampled.index(s), 1) for s in others]
        for i, (s, k) in enumerate(slots):
            tau[:, s, k], noise[:, s, k] = sets[i][0][grid[:, i]], sets[i][1][grid[:, i]]
        draws = Draws(denominators, sampled, tau, noise)
        gradient += num_particles * np.tensordot(probability, draws.estimates(kind, (position, 0)), 1)
    return gradient


@ENUMERATED
def test_reparameterised_is_unbiased(estimator, num_components, sampled):
    denominators = denominators_of(estimator, num_components, sampled)
    found = expected_estimate(BranchGradient.REPARAMETERISED, denominators, sampled, 1, spacing=0.125)
    exact = exact_gradient(denominators, sampled, 1)
    assert np.abs(exact).max() > 0.02
    # 1e-8: the trapezoidal rule converges geometrically; the cut at seven standard deviations costs 1e-10.
    np.testing.assert_allclose(found, exact, atol=1e-8)


@ENUMERATED
@pytest.mark.parametrize("num_particles", [1, 2])
def test_doubly_reparameterised_is_unbiased(estimator, num_components, sampled, num_particles):
    kind, denominators = (
        BranchGradient.DOUBLY_REPARAMETERISED,
        denominators_of(estimator, num_components, sampled),
    )
    # Three draws to integrate over (two batches of two) allow only a coarse grid, good to about 3e-4; leaving
    # out a
    # term of the formula costs 0.01 to 0.1.
    is_coarse = num_particles == 2 and len(sampled) == 2
    spacing, tolerance = (0.6, 4e-4) if is_coarse else (0.2, 1e-7)
    found = expected_estimate(kind, denominators, sampled, num_particles, spacing)
    np.testing.assert_allclose(found, exact_gradient(denominators, sampled, num_particles), atol=tolerance)


def random_draws(denominators, sampled, num_particles, size, seed):
    """A batch of independent problems."""
    rng = np.random.default_rng(seed)
    tau = np.stack([rng.choice(3, p=PROBABILITIES[s], size=(size, num_particles)) for s in sampled], axis=1)
    return Draws(denominators, sampled, tau, rng.normal(size=tau.shape))


@pytest.mark.parametrize(
    ("denominators", "sampled", "num_particles"), [((0, 1, 2), (0, 1, 2), 3), ((0, 1, 2), (0, 2), 4)]
)
def test_doubly_reparameterised_agrees_with_reparameterised_in_the_mean(denominators, sampled, num_particles):
    draws = random_draws(denominators, sampled, num_particles, 30_000, seed=1)
    difference = draws.estimates(BranchGradient.DOUBLY_REPARAMETERISED) - draws.estimates(
        BranchGradient.REPARAMETERISED
    )
    standard_error = difference.std(0) / math.sqrt(difference.shape[0])
    # Eighteen comparisons: four and a half standard errors.
    assert standard_error.max() < 5e-3
    assert np.all(np.abs(difference.mean(0)) <= 4.5 * standard_error)
    # The same comparison sees the bias of squared weights.
    biased = draws.estimates(BranchGradient.SQUARED_PATH) - draws.estimates(BranchGradient.REPARAMETERISED)
    assert (np.abs(biased.mean(0)) > 10.0 * biased.std(0) / math.sqrt(biased.shape[0])).any()


def test_doubly_reparameterised_has_the_lower_variance():
    draws = random_draws((0, 2), (0, 2), 10, 4000, seed=2)
    plain = draws.estimates(BranchGradient.REPARAMETERISED).var(0).sum()
    doubly = draws.estimates(BranchGradient.DOUBLY_REPARAMETERISED).var(0).sum()
    assert doubly < plain / 3.0


@ENUMERATED
def test_path_is_unbiased_for_the_bound_of_one_particle(estimator, num_components, sampled):
    denominators = denominators_of(estimator, num_components, sampled)
    found = expected_estimate(BranchGradient.PATH, denominators, sampled, 1, spacing=0.125)
    np.testing.assert_allclose(found, exact_gradient(denominators, sampled, 1), atol=1e-8)


def test_squared_path_is_biased_for_mixtures_only():
    kind = BranchGradient.SQUARED_PATH
    alone = expected_estimate(kind, (0,), (0,), 2, spacing=0.25)
    np.testing.assert_allclose(alone, exact_gradient((0,), (0,), 2), atol=1e-7)
    mixture = expected_estimate(kind, (0, 1), (0,), 2, spacing=0.25)
    assert np.abs(mixture - exact_gradient((0, 1), (0,), 2)).max() > 0.02
