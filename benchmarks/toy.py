"""Claim: what the estimators A2A, S2A and S2S reach in a given time, on a model small enough to see why.

The latent variable z has Neal's funnel as prior, z_1 ~ N(0, 3^2) and z_i ~ N(0, exp(z_1 / 2)^2), and the data
are binary with an autoregressive likelihood, x_t ~ Bernoulli(sigmoid(w_t . z + r (2 x_{t-1} - 1))). The
posterior is approximated by A Gaussians with free means and standard deviations, uniformly weighted, in torch
on one thread; one particle a component, so that the bound of A2A and S2A is MISELBO. For each estimator, A
and S the same bound, MISELBO of all components from fresh draws, is recorded as training goes on, the
recording off the clock.

    python benchmarks/toy.py [--seconds 4] [--seeds 0 1 2] [--again]
"""

import argparse
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from _common import RESULTS, save

from vbpi_mix.objectives.bounds import importance_weights
from vbpi_mix.objectives.estimators import ComponentChoice, Estimator, choose_components

DIMENSION = 20
NUM_DATA = 500
FUNNEL = 3.0
"""Standard deviation of z_1."""

PERSISTENCE = 0.5
"""r: how much a datum depends on the one before."""

LEARNING_RATE = 0.03
EVALUATION_DRAWS = 4_000
MOMENTS = 12
"""Moments at which the bound is recorded, evenly in the logarithm of time."""

CONFIGURATIONS = (
    ("a2a", 1, 1),
    ("a2a", 10, 10),
    ("s2a", 10, 1),
    ("s2s", 10, 2),
    ("a2a", 50, 50),
    ("s2a", 50, 1),
    ("s2s", 50, 2),
    ("a2a", 200, 200),
    ("s2a", 200, 1),
    ("s2a", 200, 10),
    ("s2s", 200, 2),
    ("s2s", 200, 10),
)
"""Estimator, A and S."""


@dataclass(frozen=True)
class Problem:
    """Data and what their likelihood takes.

    Attributes:
        data: Binary data x [datum].
        weights: w [datum, latent].
    """

    data: torch.Tensor
    weights: torch.Tensor

    @classmethod
    def simulated(cls, seed: int = 0) -> "Problem":
        """Data drawn from the model."""
        generator = torch.Generator().manual_seed(seed)
        z = torch.randn(DIMENSION, generator=generator, dtype=torch.float64)
        z[1:] *= torch.exp(z[0] / 2)
        weights = torch.randn(NUM_DATA, DIMENSION, generator=generator, dtype=torch.float64)
        weights /= math.sqrt(DIMENSION)
        data = torch.empty(NUM_DATA, dtype=torch.float64)
        before = 0.0
        for t in range(NUM_DATA):
            probability = torch.sigmoid(weights[t] @ z + PERSISTENCE * before)
            data[t] = torch.rand((), generator=generator) < probability
            before = 2 * float(data[t]) - 1
        return cls(data, weights)

    def log_joint(self, z: torch.Tensor) -> torch.Tensor:
        """log p(x, z) in nats [...] of latent variables [..., latent]."""
        log_scale = z[..., :1] / 2
        log_prior = _log_normal(z[..., :1], torch.zeros(()), torch.tensor(math.log(FUNNEL))).sum(-1)
        log_prior = log_prior + _log_normal(z[..., 1:], torch.zeros(()), log_scale).sum(-1)
        before = torch.cat([torch.zeros(1, dtype=z.dtype), 2 * self.data[:-1] - 1])
        logits = z @ self.weights.T + PERSISTENCE * before
        sign = 2 * self.data - 1
        return log_prior + torch.nn.functional.logsigmoid(sign * logits).sum(-1)


def _log_normal(x: torch.Tensor, mean: torch.Tensor, log_scale: torch.Tensor) -> torch.Tensor:
    return -0.5 * ((x - mean) / torch.exp(log_scale)) ** 2 - log_scale - 0.5 * math.log(2 * math.pi)


class Gaussians:
    """A Gaussians with independent coordinates; their means and log standard deviations are learnt."""

    def __init__(self, num_components: int, seed: int) -> None:
        """Random means, so that the components differ."""
        generator = torch.Generator().manual_seed(seed)
        self.mean = torch.randn(num_components, DIMENSION, generator=generator, dtype=torch.float64)
        self.log_scale = torch.full_like(self.mean, -1.0)
        self.mean.requires_grad_()
        self.log_scale.requires_grad_()

    def log_weights_input(
        self, problem: Problem, choice: ComponentChoice, noise: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """log p(x, z) [sampled, particle] and log q_d(z) [sampled, particle, denominator] of new particles.

        Args:
            problem: The data.
            choice: The components to draw from, and those of the mixture's density.
            noise: Standard normal numbers [sampled, particle, latent].
        """
        sampled = torch.from_numpy(choice.sampled)
        denominators = torch.from_numpy(choice.denominators)
        mean, log_scale = self.mean[sampled, None], self.log_scale[sampled, None]
        z = mean + torch.exp(log_scale) * noise
        # The square expanded, so that the densities of all particles under all components are two products.
        own, inverse = self.mean[denominators], torch.exp(-2 * self.log_scale[denominators])
        square = (z * z) @ inverse.T - 2 * z @ (own * inverse).T + (own * own * inverse).sum(-1)
        constant = self.log_scale[denominators].sum(-1) + 0.5 * DIMENSION * math.log(2 * math.pi)
        return problem.log_joint(z), -0.5 * square - constant

    def bound(self, problem: Problem, choice: ComponentChoice, noise: torch.Tensor) -> torch.Tensor:
        """The estimator's bound in nats, differentiable."""
        return importance_weights(*self.log_weights_input(problem, choice, noise)).bound

    def miselbo(self, problem: Problem) -> float:
        """MISELBO of all components, in nats, from `EVALUATION_DRAWS` draws that are always the same."""
        num_components = len(self.mean)
        generator = torch.Generator().manual_seed(1)
        shape = (num_components, EVALUATION_DRAWS // num_components, DIMENSION)
        noise = torch.randn(shape, generator=generator, dtype=torch.float64)
        everything = choose_components(
            Estimator.A2A, num_components, num_components, np.random.default_rng(0)
        )
        with torch.no_grad():
            log_joint, log_density = self.log_weights_input(problem, everything, noise)
            log_q = torch.logsumexp(log_density, -1) - math.log(num_components)
            return float((log_joint - log_q).mean())


def train(
    problem: Problem, estimator: Estimator, num_components: int, num_sampled: int, seed: int, seconds: float
) -> Iterator[dict[str, float]]:
    """Train for some time; yields steps, seconds and MISELBO at moments on the way."""
    family = Gaussians(num_components, seed)
    optimiser = torch.optim.Adam([family.mean, family.log_scale], lr=LEARNING_RATE)
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    spent, step = 0.0, 0
    for moment in np.geomspace(seconds / 100, seconds, MOMENTS):
        began = time.perf_counter()
        while spent + time.perf_counter() - began < moment:
            choice = choose_components(estimator, num_components, num_sampled, rng)
            noise = torch.randn((num_sampled, 1, DIMENSION), generator=generator, dtype=torch.float64)
            optimiser.zero_grad()
            (-family.bound(problem, choice, noise)).backward()
            optimiser.step()
            step += 1
        spent += time.perf_counter() - began
        yield {"steps": step, "seconds": spent, "bound": family.miselbo(problem)}


def measure(seconds: float, seeds: list[int]) -> dict[str, Any]:
    """Courses of the bound of all configurations."""
    problem = Problem.simulated()
    for _ in train(problem, Estimator.A2A, 2, 2, 0, 1.0):  # a warm-up
        pass
    runs = [
        {
            "estimator": estimator,
            "components": num_components,
            "sampled": num_sampled,
            "seed": seed,
            "course": list(train(problem, Estimator(estimator), num_components, num_sampled, seed, seconds)),
        }
        for seed in seeds
        for estimator, num_components, num_sampled in CONFIGURATIONS
    ]
    return {
        "dimension": DIMENSION,
        "num_data": NUM_DATA,
        "learning_rate": LEARNING_RATE,
        "seconds": seconds,
        "evaluation_draws": EVALUATION_DRAWS,
        "runs": runs,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=4.0, help="training time of a run")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--again", action="store_true", help="measure again what has been measured")
    chosen = parser.parse_args()
    if chosen.again or not (RESULTS / "toy.json").exists():
        torch.set_num_threads(1)
        save("toy", measure(chosen.seconds, chosen.seeds))


if __name__ == "__main__":
    main()
