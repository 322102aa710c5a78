import math

import numpy as np
import pytest
import torch
from scipy.stats import expon

from vbpi_mix.likelihood.priors import ExponentialBranchPrior, log_topology_prior


@pytest.mark.parametrize(("num_taxa", "num_topologies"), [(3, 1), (4, 3), (5, 15), (6, 105), (10, 2027025)])
def test_topology_prior_counts_topologies(num_taxa, num_topologies):
    assert log_topology_prior(num_taxa) == pytest.approx(-math.log(num_topologies), rel=1e-14)


def test_two_taxa_are_refused():
    with pytest.raises(ValueError, match="three or more taxa, got 2"):
        log_topology_prior(2)


def test_branch_prior_is_exponential_with_jacobian():
    log_lengths = np.random.default_rng(0).normal(-3.0, 1.0, (4, 7))
    lengths = np.exp(log_lengths)
    expected = (expon(scale=1 / 8.0).logpdf(lengths) + log_lengths).sum(1)
    np.testing.assert_allclose(ExponentialBranchPrior(8.0).log_density(log_lengths), expected, rtol=1e-13)


def test_branch_prior_integrates_to_one():
    grid = np.linspace(-30.0, 4.0, 200_001)
    density = np.exp(ExponentialBranchPrior().log_density(grid[:, None]))
    assert np.trapezoid(density, grid) == pytest.approx(1.0, abs=1e-9)


def test_branch_prior_gradient_is_that_of_autograd():
    log_lengths = torch.randn((3, 5), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    log_lengths.requires_grad_()
    prior = ExponentialBranchPrior(7.0)
    (expected,) = torch.autograd.grad(prior.log_density(log_lengths).sum(), log_lengths)
    torch.testing.assert_close(prior.gradient(log_lengths.detach()), expected)
    np.testing.assert_allclose(prior.gradient(log_lengths.detach().numpy()), expected.numpy(), rtol=1e-14)


@pytest.mark.parametrize("rate", [0.0, -1.0, math.inf, math.nan])
def test_bad_rate_is_refused(rate):
    with pytest.raises(ValueError, match="rate of the branch prior must be positive and finite"):
        ExponentialBranchPrior(rate)
