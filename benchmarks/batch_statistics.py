"""Claim: batch statistics in a decoder let a mixture of encoders fake a gain of up to log A nats.

No training, no images: a model whose evidence is known. Latent variables z ~ N(0, I) of eight dimensions
make binary pixels, x_j ~ Bernoulli(sigmoid(w_j . n(z))), where n normalises z. Every datum has its Laplace
approximation N(m(x), C(x)) of the posterior, and component a of A shifts it by c_a: all data by the same.

========  ====================================================================  ==============================
frozen    n(z) = z, the statistics of the prior                                 a likelihood of x_i given z_i
batch     n subtracts the mean of the batch and divides by its standard         no likelihood of x_i given z_i
          deviation; all data of the batch are encoded by one component, as
          S2A with S = 1 trains
mixed     the same, each datum of the batch encoded by a component of its own   no likelihood of x_i given z_i
========  ====================================================================  ==============================

Batch statistics take c_a out again, so p(x|z) does not see it; but the components have come apart, q_a / q is
A, and the bound log p(x|z) + log p(z) - log q(z|x) is higher by log A, less what the prior takes for the
shift. It exceeds log p(x), which no bound does. Under frozen statistics the same shifts gain nothing.

    python benchmarks/batch_statistics.py [--again]
"""

import argparse
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from _common import RESULTS, save

LATENT = 8
NUM_PIXELS = 784
NUM_DATA = 2_000
"""Data, all of them one batch: its statistics are then close to the prior's."""

NUM_DRAWS = 500
"""Draws for the evidence of a datum."""

COMPONENTS = (1, 2, 5, 10, 20, 50)
SHIFTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
"""Lengths of the shifts c_a; for each A the one with the highest bound is taken, as training would."""

WAYS = ("frozen", "batch", "mixed")


@dataclass(frozen=True)
class Problem:
    """Data, the weights that made them, and the Laplace approximations of the posterior.

    Attributes:
        data: Pixels x [datum, pixel].
        weights: w [pixel, latent].
        mean: m [datum, latent].
        covariance_root: L with L L' = C [datum, latent, latent].
    """

    data: np.ndarray
    weights: np.ndarray
    mean: np.ndarray
    covariance_root: np.ndarray

    @classmethod
    def simulated(cls, rng: np.random.Generator, num_data: int = NUM_DATA) -> "Problem":
        """Data from the model under frozen statistics, and their approximations by Newton's method."""
        weights = rng.normal(size=(NUM_PIXELS, LATENT))
        z = rng.normal(size=(num_data, LATENT))
        data = (rng.random((num_data, NUM_PIXELS)) < _sigmoid(z @ weights.T)).astype(float)
        squares = (weights[:, :, None] * weights[:, None]).reshape(NUM_PIXELS, -1)
        mean, length = np.zeros_like(z), math.inf
        while length > 1e-6:
            probability = _sigmoid(mean @ weights.T)
            gradient = (data - probability) @ weights - mean
            curvature = (probability * (1 - probability)) @ squares
            precision = curvature.reshape(-1, LATENT, LATENT) + np.eye(LATENT)
            change = np.linalg.solve(precision, gradient[..., None])[..., 0]
            mean, length = mean + change, np.abs(change).max()
        return cls(data, weights, mean, np.linalg.cholesky(np.linalg.inv(precision)))

    def log_likelihood(self, z: np.ndarray) -> np.ndarray:
        """log p(x|z) in nats [datum] of normalised latent variables [datum, latent]."""
        logits = z @ self.weights.T
        return (self.data * logits - np.logaddexp(0, logits)).sum(-1)

    def log_density(self, offset: np.ndarray) -> np.ndarray:
        """Log density of the approximations [datum, ...] at the mean plus an offset [datum, ..., latent]."""
        inverse = np.linalg.inv(self.covariance_root)
        several = offset.reshape(len(offset), -1, LATENT)
        standardised = several @ inverse.transpose(0, 2, 1)
        log_determinant = np.log(np.diagonal(self.covariance_root, axis1=1, axis2=2)).sum(-1)
        return (_log_standard_normal(standardised) - log_determinant[:, None]).reshape(offset.shape[:-1])

    def log_evidence(self, rng: np.random.Generator, num_draws: int) -> np.ndarray:
        """log p(x) in nats [datum] by importance sampling from approximations 1.2 times as wide."""
        width = 1.2
        log_weights = []
        for _ in range(num_draws):
            offset = self._noise(rng) * width
            z = self.mean + offset
            log_q = self.log_density(offset / width) - LATENT * math.log(width)
            log_weights.append(self.log_likelihood(z) + _log_standard_normal(z) - log_q)
        return np.logaddexp.reduce(log_weights, axis=0) - math.log(num_draws)

    def bound(self, shifts: np.ndarray, way: str, rng: np.random.Generator) -> np.ndarray:
        """The mixture's bound in nats [component, datum], one draw of every component for every datum.

        Args:
            shifts: c_a [component, latent].
            way: One of `WAYS`.
            rng: Of the draws.
        """
        num_components, num_data = len(shifts), len(self.mean)
        bounds = np.empty((num_components, num_data))
        for a in range(num_components):
            # In mixed batches neighbouring data have different components; each still meets all of them.
            turn = np.arange(num_data) if way == "mixed" else np.zeros(num_data, dtype=int)
            own = shifts[(a + turn) % num_components]
            offset = own + self._noise(rng)
            z = self.mean + offset
            log_q = self.log_density(offset[:, None] - shifts)
            log_mixture = np.logaddexp.reduce(log_q, axis=1) - math.log(num_components)
            normalised = z if way == "frozen" else (z - z.mean(0)) / z.std(0)
            bounds[a] = self.log_likelihood(normalised) + _log_standard_normal(z) - log_mixture
        return bounds

    def _noise(self, rng: np.random.Generator) -> np.ndarray:
        standard = rng.normal(size=self.mean.shape)
        return (self.covariance_root @ standard[..., None])[..., 0]


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * x))


def _log_standard_normal(x: np.ndarray) -> np.ndarray:
    return -0.5 * (np.square(x).sum(-1) + x.shape[-1] * math.log(2 * math.pi))


def directions(num_components: int, rng: np.random.Generator) -> np.ndarray:
    """Unit vectors [component, latent], pushed apart as charges are."""
    points = rng.normal(size=(num_components, LATENT))
    for _ in range(200):
        points /= np.linalg.norm(points, axis=1, keepdims=True)
        difference = points[:, None] - points
        distance = np.square(difference).sum(-1) + np.eye(num_components)
        points = points + 0.1 * (difference / distance[..., None] ** 2).mean(1)
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def measure(num_data: int = NUM_DATA, components: tuple[int, ...] = COMPONENTS) -> dict[str, Any]:
    """Mean log evidence, and the highest mean bound over the shifts, by way and number of components."""
    rng = np.random.default_rng(0)
    problem = Problem.simulated(rng, num_data)
    evidence = problem.log_evidence(rng, NUM_DRAWS)
    runs = []
    for num_components in components:
        vectors = directions(num_components, rng)
        for way in WAYS:
            scale = SHIFTS if num_components > 1 else SHIFTS[:1]
            bounds = {shift: problem.bound(shift * vectors, way, rng).mean(0) for shift in scale}
            best = max(bounds, key=lambda shift: bounds[shift].mean())
            excess = bounds[best] - evidence
            runs.append(
                {
                    "components": num_components,
                    "way": way,
                    "shift": best,
                    "bound": float(bounds[best].mean()),
                    "above_evidence": float(excess.mean()),
                    "standard_error": float(excess.std() / math.sqrt(num_data)),
                }
            )
    return {
        "latent": LATENT,
        "num_pixels": NUM_PIXELS,
        "num_data": num_data,
        "posterior_deviation": float(np.linalg.norm(problem.covariance_root, axis=2).mean()),
        "log_evidence": float(evidence.mean()),
        "runs": runs,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--again", action="store_true", help="measure again what has been measured")
    chosen = parser.parse_args()
    if chosen.again or not (RESULTS / "batch_statistics.json").exists():
        save("batch_statistics", measure())


if __name__ == "__main__":
    main()
