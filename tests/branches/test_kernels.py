"""Compiled draws, densities and gradients against plain array formulas and autograd."""

import numpy as np
import pytest
import torch

from vbpi_mix.branches import _kernels, densities

NUM_FEATURES = 30
SKEWED = pytest.mark.parametrize("skewed", [False, True])
EDGES = pytest.mark.parametrize("num_edges", [3, 8, 51])


class Case:
    """A random table of four components and five trees of which the last two are the same topology."""

    def __init__(self, num_edges: int, skewed: bool, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.skewed = skewed
        self.table = 0.4 * rng.normal(size=(4, NUM_FEATURES + 1, 3))
        self.table[:, -1] = 0.0
        if not skewed:
            # Values that a kernel must ignore.
            self.table[:, :-1, 2] = 7.0
        self.features = rng.integers(0, NUM_FEATURES - 6, size=(5, num_edges, 3)).astype(np.int32)
        self.features[:, : num_edges // 2 + 1, 1] = NUM_FEATURES
        self.features[4] = self.features[3]
        self.component = np.array([0, 2, 2, 3, 0])
        self.denominators = np.array([2, 0, 3])
        self.generator = np.array([1, 0, 0, 2, 1])
        self.noise = rng.normal(size=(5, num_edges))
        self.d_path, self.d_score = rng.normal(size=(2, 5, 3))
        self.d_log_lengths = rng.normal(size=(5, num_edges))
        self.work = _kernels.make_work(num_edges)

    def parameters(self, table):
        """Location, log scale and, where used, skew [component, tree, edge] of a table of numpy or torch."""
        sums = table[:, self.features.astype(np.int64)].sum(-2)
        return (sums[..., 0], sums[..., 1], *((sums[..., 2],) if self.skewed else ()))

    def draw(self):
        out = np.empty_like(self.noise)
        _kernels.draw(self.table, self.features, self.component, self.noise, self.skewed, self.work, out)
        return out

    def log_density(self, log_lengths):
        out = np.empty((5, self.denominators.size))
        _kernels.log_density(
            self.table, self.features, log_lengths, self.denominators, self.skewed, self.work, out
        )
        return out


class Gradient:
    """The accumulators of the backward kernel."""

    def __init__(self) -> None:
        self.grad = np.zeros((3, NUM_FEATURES + 1, 3))
        self.flag = np.zeros((3, NUM_FEATURES + 1), np.uint8)
        self.rows = np.full(3 * NUM_FEATURES, -1, np.int64)
        self.count = np.zeros(1, np.int64)

    def add(self, case, log_lengths, d_path, d_score, d_log_lengths):
        total = d_log_lengths.copy()
        _kernels.backward(
            case.table, case.features, log_lengths, case.generator, case.denominators, case.skewed,
            d_path, d_score, total, case.work, self.grad, self.flag, self.rows, self.count,
        )  # fmt: skip
        return total


@SKEWED
@EDGES
def test_draw_is_the_transform(num_edges, skewed):
    case = Case(num_edges, skewed)
    trees = np.arange(5)
    parameters = (p[case.component, trees] for p in case.parameters(case.table))
    np.testing.assert_allclose(
        case.draw(), densities.transform(case.noise, *parameters), rtol=1e-12, atol=1e-13
    )


@SKEWED
@EDGES
def test_log_density_is_the_sum_over_branches(num_edges, skewed):
    case = Case(num_edges, skewed)
    log_lengths = case.draw()
    expected = (
        densities.log_density(log_lengths, *case.parameters(case.table)).sum(-1).T[:, case.denominators]
    )
    # 1e-11: rounding of a few hundred additions, magnified where exp(x) is large.
    np.testing.assert_allclose(case.log_density(log_lengths), expected, rtol=1e-11)


def test_log_density_in_extreme_tails_and_of_extreme_skews():
    # Skews of up to 3 either way, and lengths down to exp(-60): far out the density falls off exponentially.
    case = Case(200, skewed=True)
    case.table[:, :-1, 2] *= 2.0
    log_lengths = -np.abs(20.0 * case.noise)
    expected = (
        densities.log_density(log_lengths, *case.parameters(case.table)).sum(-1).T[:, case.denominators]
    )
    np.testing.assert_allclose(case.log_density(log_lengths), expected, rtol=1e-11)


@SKEWED
def test_nan_in_the_table_reaches_the_density(skewed):
    for column in range(3 if skewed else 2):
        case = Case(51, skewed)
        log_lengths = case.draw()
        case.table[2, case.features[1, 40, 0], column] = np.nan
        assert np.isnan(case.log_density(log_lengths)[1, 0])


@SKEWED
def test_order_of_branches_does_not_matter(skewed):
    case = Case(51, skewed)
    log_lengths = case.draw()
    before = case.log_density(log_lengths)
    order = np.random.default_rng(1).permutation(51)
    case.features = case.features[:, order]
    np.testing.assert_allclose(case.log_density(log_lengths[:, order]), before, rtol=1e-13)


@SKEWED
@EDGES
def test_backward_agrees_with_autograd(num_edges, skewed):
    case = Case(num_edges, skewed)
    log_lengths = case.draw()
    gradient = Gradient()
    total = gradient.add(case, log_lengths, case.d_path, case.d_score, case.d_log_lengths)

    table = torch.tensor(case.table, requires_grad=True)
    noise, trees = torch.tensor(case.noise), np.arange(5)
    path_of_y = densities.transform(noise, *(p[case.component, trees] for p in case.parameters(table)))

    def log_density(y, table):
        terms = densities.log_density(y, *case.parameters(table))
        return terms.sum(-1).T[:, case.denominators]

    objective = (
        (torch.tensor(case.d_log_lengths) * path_of_y).sum()
        + (torch.tensor(case.d_path) * log_density(path_of_y, table.detach())).sum()
        + (torch.tensor(case.d_score) * log_density(path_of_y.detach(), table)).sum()
    )
    d_y = torch.autograd.grad(objective, path_of_y, retain_graph=True)[0]
    objective.backward()
    expected = table.grad.numpy().copy()
    expected[:, -1] = 0.0
    if not skewed:
        assert not expected[..., 2].any()
    np.testing.assert_allclose(total, d_y.numpy(), rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(gradient.grad, expected[case.denominators], rtol=1e-9, atol=1e-9)


@SKEWED
def test_touched_rows_are_those_with_a_gradient(skewed):
    case = Case(51, skewed)
    # The last denominator has no cotangents, the first has the score of one tree, the other made all trees.
    d_score = np.zeros((5, 3))
    d_score[0, 0] = 1.5
    case.generator[:] = 1
    gradient = Gradient()
    gradient.add(case, case.draw(), np.zeros((5, 3)), d_score, case.d_log_lengths)
    touched = set(gradient.rows[: gradient.count[0]].tolist())
    assert len(touched) == gradient.count[0]
    everywhere = set(case.features.ravel().tolist()) - {NUM_FEATURES}
    first_tree = set(case.features[0].ravel().tolist()) - {NUM_FEATURES}
    stride = NUM_FEATURES + 1
    assert touched == {stride + row for row in everywhere} | first_tree
    assert touched == set(np.flatnonzero(gradient.flag.ravel()).tolist())
    assert set(np.flatnonzero(np.abs(gradient.grad).sum(-1).ravel()).tolist()) <= touched


def test_calls_accumulate():
    case = Case(51, skewed=True)
    log_lengths = case.draw()
    once, twice = Gradient(), Gradient()
    once.add(case, log_lengths, case.d_path, case.d_score, case.d_log_lengths)
    for _ in range(2):
        twice.add(case, log_lengths, case.d_path, case.d_score, case.d_log_lengths)
    np.testing.assert_allclose(twice.grad, 2.0 * once.grad, rtol=1e-10, atol=1e-12)
    assert twice.count == once.count
    assert not case.table[:, -1].any()
