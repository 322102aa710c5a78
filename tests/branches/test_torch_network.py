"""The torch table against the compiled kernels, and the gradient of any network behind the protocol."""

import numpy as np
import pytest
import torch
from torch import nn

from vbpi_mix.branches import _kernels, densities
from vbpi_mix.branches.network import BranchDensity, BranchFeatures, BranchParameters
from vbpi_mix.branches.torch_network import TableNetwork, TreeBatch, accumulate_gradients, draw_with_density

NUM_FEATURES, NUM_EDGES, NUM_TREES = 20, 9, 4
COMPONENT_OF_TREE = np.array([1, 0, 2, 1])
DENOMINATORS = np.array([2, 1, 0])
GENERATOR = np.array([1, 2, 0, 1])


def example(density, seed=0):
    """Random parameters, trees and noise."""
    rng = np.random.default_rng(seed)
    table = 0.4 * rng.normal(size=(3, NUM_FEATURES + 1, 3))
    table[:, -1] = 0.0
    if density is BranchDensity.LOGNORMAL:
        table[..., 2] = 0.0
    features = rng.integers(0, NUM_FEATURES + 1, size=(NUM_TREES, NUM_EDGES, 3)).astype(np.int32)
    trees = TreeBatch(torch.zeros((NUM_TREES, 4, 2), dtype=torch.int32), torch.tensor(features))
    return (
        BranchParameters(table, BranchFeatures.PSP, density),
        trees,
        rng.normal(size=(NUM_TREES, NUM_EDGES)),
    )


@pytest.mark.parametrize("density", list(BranchDensity))
def test_table_agrees_with_the_kernels(density):
    parameters, trees, noise = example(density)
    features, work = trees.feature_index.numpy(), _kernels.make_work(NUM_EDGES)
    skewed = parameters.is_skewed
    log_lengths, log_density = np.empty_like(noise), np.empty((NUM_TREES, 3))
    _kernels.draw(parameters.table, features, COMPONENT_OF_TREE, noise, skewed, work, log_lengths)
    _kernels.log_density(parameters.table, features, log_lengths, DENOMINATORS, skewed, work, log_density)

    network = TableNetwork(parameters)
    draw = draw_with_density(
        network,
        trees,
        torch.tensor(COMPONENT_OF_TREE),
        torch.tensor(noise),
        torch.tensor(DENOMINATORS),
    )
    # 1e-11: two different formulas for the same quantities, each rounded to about 1e-15 of terms up to a
    # hundred.
    np.testing.assert_allclose(draw.log_lengths.detach().numpy(), log_lengths, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(draw.log_density.detach().numpy(), log_density, rtol=1e-11)

    rng = np.random.default_rng(1)
    d_path, d_score = rng.normal(size=(2, NUM_TREES, 3))
    d_log_lengths = rng.normal(size=noise.shape)
    total = accumulate_gradients(
        network, draw, torch.tensor(d_path), torch.tensor(d_score), torch.tensor(d_log_lengths)
    )
    grad = np.zeros_like(parameters.table)
    flag, rows = np.zeros(grad.shape[:2], np.uint8), np.zeros(grad.size, np.int64)
    _kernels.backward(
        parameters.table, features, log_lengths, GENERATOR, DENOMINATORS, skewed,
        d_path, d_score, d_log_lengths, work, grad, flag, rows, np.zeros(1, np.int64),
    )  # fmt: skip
    np.testing.assert_allclose(total.numpy(), d_log_lengths, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(network.table.grad.numpy()[DENOMINATORS], grad[:, :-1], rtol=1e-9, atol=1e-10)
    assert np.abs(grad).max() > 0.1


def test_table_survives_the_round_trip_and_the_dummy_stays_zero():
    parameters, _, _ = example(BranchDensity.SKEWED)
    network = TableNetwork(parameters)
    returned = network.to_parameters()
    np.testing.assert_array_equal(returned.table, parameters.table)
    assert (returned.features, returned.density) == (parameters.features, parameters.density)
    with torch.no_grad():
        network.table += 1.0
    assert not network.to_parameters().table[:, -1].any()
    np.testing.assert_array_equal(returned.table, parameters.table)


class OneHotNetwork(nn.Module):
    """A network shared by all components, which a one-hot column tells apart."""

    def __init__(self) -> None:
        super().__init__()
        self.column = nn.Parameter(torch.tensor([0.1, -0.4, 0.7], dtype=torch.float64))
        self.shared = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))

    def draw(self, trees, component_of_tree, noise):
        return densities.transform(
            noise,
            self.column[component_of_tree, None],
            self.shared,
            0.2 * self.column[component_of_tree, None],
        )

    def log_density(self, trees, log_lengths, components):
        column = self.column[components, None, None]
        return densities.log_density(log_lengths, column, self.shared, 0.2 * column).sum(-1).T


def test_gradients_of_any_network_separate_path_and_parameters():
    _, trees, noise = example(BranchDensity.SKEWED)
    network, frozen = OneHotNetwork(), OneHotNetwork()
    component, denominators = torch.tensor(COMPONENT_OF_TREE), torch.tensor(DENOMINATORS)
    rng = np.random.default_rng(2)
    d_path, d_score = (torch.tensor(x) for x in rng.normal(size=(2, NUM_TREES, 3)))
    d_log_lengths = torch.tensor(rng.normal(size=noise.shape))
    draw = draw_with_density(network, trees, component, torch.tensor(noise), denominators)
    accumulate_gradients(network, draw, d_path, d_score, d_log_lengths)

    def objective(shift):
        """The surrogate at shifted parameters; ``frozen`` holds what each kind of derivative leaves alone."""
        moved = OneHotNetwork()
        with torch.no_grad():
            for p, s in zip(moved.parameters(), shift, strict=True):
                p += s
            y = moved.draw(trees, component, torch.tensor(noise))
            fixed = frozen.draw(trees, component, torch.tensor(noise))
            return (
                (d_log_lengths * y).sum()
                + (d_path * frozen.log_density(trees, y, denominators)).sum()
                + (d_score * moved.log_density(trees, fixed, denominators)).sum()
            )

    for i, direction in enumerate(torch.eye(4, dtype=torch.float64)):
        step = 1e-5 * direction
        difference = objective([step[:3], step[3]]) - objective([-step[:3], -step[3]])
        expected = torch.cat([network.column.grad, network.shared.grad[None]])[i]
        # Central differences: 1e-10 truncation and 1e-16 / 1e-5 rounding, times values of a few hundred.
        assert (difference / 2e-5).item() == pytest.approx(expected.item(), rel=1e-6, abs=1e-7)


@pytest.mark.gpu
@pytest.mark.parametrize("density", list(BranchDensity))
def test_accelerator_agrees_with_the_host(density):
    if not torch.cuda.is_available():
        pytest.fail("the gpu tests need a CUDA device; leave out -m gpu where there is none")
    parameters, trees, noise = example(density)
    component, denominators = torch.tensor(COMPONENT_OF_TREE), torch.tensor(DENOMINATORS)
    cotangents = [torch.tensor(x) for x in np.random.default_rng(1).normal(size=(2, NUM_TREES, 2))]
    results = []
    for device in ("cpu", "cuda"):
        network = TableNetwork(parameters).to(device)
        there = TreeBatch(trees.children.to(device), trees.feature_index.to(device))
        draw = draw_with_density(
            network, there, component.to(device), torch.tensor(noise, device=device), denominators.to(device)
        )
        path, score = (x.to(device) for x in cotangents)
        total = accumulate_gradients(network, draw, path, score, torch.ones_like(draw.cut))
        results.append([x.detach().cpu().numpy() for x in (draw.log_density, total, network.table.grad)])
    for host, accelerator in zip(*results, strict=True):
        np.testing.assert_allclose(accelerator, host, rtol=1e-9, atol=1e-10)
