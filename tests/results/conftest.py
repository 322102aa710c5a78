"""Mixtures on the 105 topologies of six taxa: one with an exactly known posterior, one for real data."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import norm

from vbpi_mix.alignment import Alignment
from vbpi_mix.datasets import load_dataset
from vbpi_mix.patterns import SitePatterns, compress
from vbpi_mix.results.draws import PosteriorDraws
from vbpi_mix.sbn.support import build_support
from vbpi_mix.training.config import MixtureConfig, OptimisationConfig
from vbpi_mix.training.mixture import Mixture
from vbpi_mix.training.state import initial_mixture
from vbpi_mix.trees.enumeration import all_topologies
from vbpi_mix.trees.samples import TreeSample
from vbpi_mix.trees.topology import topologies_from_choices, unique_topologies

TAXA = ("A", "B", "C", "D", "E", "F")
LOG_MARGINAL = -1234.5
POSTERIOR_SCALE = 0.6
POSTERIOR_MEAN = np.linspace(-3.0, -1.5, 9)


@dataclass(frozen=True)
class Toy:
    """Target p(Y) p(tau) p(b | tau) and proposal (1/2) sum_a q_a(tau) q_a(b | tau), log b normal in both."""

    topologies: np.ndarray  # [105, 4, 2]
    posterior: np.ndarray  # [105]
    q: np.ndarray  # [component, 105]
    means: np.ndarray  # [component, edge]
    scale: float
    log_marginal: float = LOG_MARGINAL

    def draw(self, num_draws: int, rng: np.random.Generator) -> PosteriorDraws:
        """Stratified draws, the components' interleaved."""
        component = np.tile(np.arange(2), num_draws // 2)
        chosen = np.empty(num_draws, dtype=np.int64)
        for a in range(2):
            chosen[component == a] = rng.choice(len(self.q[a]), p=self.q[a], size=num_draws // 2)
        log_lengths = rng.normal(self.means[component], self.scale)
        log_q_each = np.stack(
            [
                np.log(self.q[a, chosen]) + norm.logpdf(log_lengths, self.means[a], self.scale).sum(axis=1)
                for a in range(2)
            ]
        )
        log_p = (
            LOG_MARGINAL
            + np.log(self.posterior[chosen])
            + norm.logpdf(log_lengths, POSTERIOR_MEAN, POSTERIOR_SCALE).sum(axis=1)
        )
        distinct, index, _ = unique_topologies(self.topologies[chosen])
        first = np.array([np.flatnonzero(index == u)[0] for u in range(len(distinct))])
        return PosteriorDraws(
            taxa=TAXA,
            topologies=distinct,
            log_q=np.log(self.q.mean(axis=0))[chosen[first]],
            topology_index=index,
            branch_lengths=np.exp(log_lengths),
            log_weights=log_p - (logsumexp(log_q_each, axis=0) - np.log(2)),
            component=component,
            responsibilities=np.exp(log_q_each - logsumexp(log_q_each, axis=0)).T.copy(),
        )


def _make_toy(concentration: float = 0.3, seed: int = 11) -> Toy:
    """A toy whose posterior and components differ, all three peaked (small concentration) or flat (large)."""
    rng = np.random.default_rng(seed)
    choices = np.array([(i, j, k) for i in range(3) for j in range(5) for k in range(7)], dtype=np.int64)
    noise = rng.dirichlet(np.full(105, concentration), size=3) + 1e-4
    noise /= noise.sum(axis=1, keepdims=True)
    return Toy(
        topologies=topologies_from_choices(choices),
        posterior=noise[0],
        q=np.stack([0.5 * noise[0] + 0.5 * noise[1], 0.7 * noise[0] + 0.3 * noise[2]]),
        means=np.stack([POSTERIOR_MEAN - 0.1, POSTERIOR_MEAN + 0.15]),
        scale=0.7,
    )


@pytest.fixture(scope="session")
def make_toy() -> Callable[..., Toy]:
    """Function that makes a toy."""
    return _make_toy


@pytest.fixture(scope="session")
def patterns() -> SitePatterns:
    """Six taxa and 150 sites of DS1."""
    whole = load_dataset("DS1")
    chosen = [0, 5, 9, 14, 19, 24]
    taxa = tuple(whole.taxa[i] for i in chosen)
    return compress(Alignment(taxa, whole.states[chosen, 400:550], "part of DS1"))


@pytest.fixture(scope="session")
def mixture(patterns: SitePatterns) -> Mixture:
    """An untrained mixture of two different components on all 105 topologies."""
    rng = np.random.default_rng(0)
    children = all_topologies(6)
    support = build_support(children, patterns.taxa)
    sample = TreeSample(patterns.taxa, children, np.ones(105), "all topologies")
    mixture = initial_mixture(support, sample, MixtureConfig(components=2), OptimisationConfig())
    mixture.networks.logits += rng.normal(0.0, 0.7, mixture.networks.logits.shape)
    mixture.networks.refresh()
    mixture.branches.table[:, :-1] += rng.normal(0.0, 0.05, mixture.branches.table[:, :-1].shape)
    return mixture
