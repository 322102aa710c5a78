"""A small real problem that every engine can handle in milliseconds: eight taxa and a few sites of DS1."""

from dataclasses import dataclass

import numpy as np
import pytest

from vbpi_mix.alignment import Alignment
from vbpi_mix.datasets import load_dataset
from vbpi_mix.likelihood.base import make_likelihood
from vbpi_mix.likelihood.models import jc69
from vbpi_mix.likelihood.priors import ExponentialBranchPrior
from vbpi_mix.patterns import SitePatterns, compress
from vbpi_mix.sbn.support import Support, build_support
from vbpi_mix.training.compiled import CompiledEngine
from vbpi_mix.training.config import MixtureConfig, OptimisationConfig
from vbpi_mix.training.state import TrainingState, initial_mixture
from vbpi_mix.training.torch_engine import TorchEngine
from vbpi_mix.trees.samples import TreeSample
from vbpi_mix.trees.topology import random_topologies, unique_topologies


@dataclass(frozen=True)
class SmallProblem:
    patterns: SitePatterns
    sample: TreeSample
    support: Support
    prior: ExponentialBranchPrior

    def state(self, mixture: MixtureConfig, optimisation: OptimisationConfig) -> TrainingState:
        """Initial state with parameters disturbed, so that components differ and nothing is zero."""
        state = TrainingState.initial(initial_mixture(self.support, self.sample, mixture, optimisation))
        rng = np.random.default_rng(11)
        networks, branches = state.mixture.networks, state.mixture.branches
        networks.logits += 0.5 * rng.normal(size=networks.logits.shape)
        networks.refresh()
        num_columns = 3 if branches.is_skewed else 2
        branches.table[:, :-1, :num_columns] += 0.2 * rng.normal(
            size=(*branches.table[:, :-1, 0].shape, num_columns)
        )
        return state

    def engine(self, kind: str, mixture: MixtureConfig, optimisation: OptimisationConfig, state=None):
        likelihood = make_likelihood(self.patterns, jc69(), engine=kind)
        state = self.state(mixture, optimisation) if state is None else state
        if kind == "compiled":
            return CompiledEngine(state, likelihood, self.prior, mixture, optimisation)
        return TorchEngine(state, likelihood, self.prior, optimisation)


def make_problem(num_taxa: int, num_sites: int, num_trees: int) -> SmallProblem:
    full = load_dataset("DS1")
    alignment = Alignment(full.taxa[:num_taxa], full.states[:num_taxa, :num_sites].copy(), "part of DS1")
    topologies, _, counts = unique_topologies(
        random_topologies(num_taxa, num_trees, np.random.default_rng(3))
    )
    sample = TreeSample(alignment.taxa, topologies, counts.astype(float), "random")
    return SmallProblem(
        compress(alignment), sample, build_support(topologies, alignment.taxa), ExponentialBranchPrior(10.0)
    )


@pytest.fixture(scope="session")
def small_problem() -> SmallProblem:
    return make_problem(8, 200, 12)
