"""Random trees, data and models of the likelihood tests."""

from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
import pytest
import torch

from vbpi_mix.datasets import load_dataset
from vbpi_mix.likelihood.models import SubstitutionModel, discrete_gamma_rates, gtr
from vbpi_mix.patterns import SitePatterns, compress
from vbpi_mix.trees.topology import random_topologies


@pytest.fixture(autouse=True)
def one_torch_thread() -> Iterator[None]:
    """Tensors are tiny here: more threads than one only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def draw_trees() -> Callable:
    """Function of taxa, trees and seed: random topologies, branch lengths around 0.05."""

    def draw(num_taxa: int, num_trees: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        branch_lengths = np.exp(rng.normal(-3.0, 1.0, (num_trees, 2 * num_taxa - 3)))
        return random_topologies(num_taxa, num_trees, rng), branch_lengths

    return draw


@pytest.fixture
def draw_patterns() -> Callable:
    """Function of taxa, patterns and seed: with ambiguity codes, missing data and weights above one."""

    def draw(num_taxa: int, num_patterns: int, seed: int) -> SitePatterns:
        rng = np.random.default_rng(seed)
        states = rng.choice(np.array([1, 2, 4, 8], np.uint8), (num_taxa, num_patterns))
        is_odd = rng.random(states.shape) < 0.2
        states[is_odd] = rng.integers(1, 16, int(is_odd.sum()), dtype=np.uint8)
        taxa = tuple(f"taxon{i}" for i in range(num_taxa))
        return SitePatterns(taxa, states, rng.integers(1, 5, num_patterns).astype(float))

    return draw


@pytest.fixture
def uneven_model() -> SubstitutionModel:
    """GTR with an invariable category and three gamma categories; no two parameters are equal."""
    return gtr(
        np.array([0.1, 0.2, 0.3, 0.4]),
        np.array([1.0, 2.5, 0.7, 0.4, 3.1, 1.3]),
        np.concatenate(([0.0], discrete_gamma_rates(0.5, 3))),
        np.array([0.1, 0.2, 0.3, 0.4]),
    )


@cache
def _compressed(name: str) -> SitePatterns:
    return compress(load_dataset(name))


@pytest.fixture
def bundled_patterns() -> Callable:
    """Function of a data set's name: its site patterns."""
    return _compressed
