"""Kernels for all components at once against those that go one by one."""

import numpy as np
import pytest

from vbpi_mix.branches import _all_kernels, _kernels

NUM_FEATURES, NUM_TREES = 30, 6


class Case:
    """Trees that share features, and random parameters."""

    def __init__(self, num_components, num_edges, skewed):
        rng = np.random.default_rng(num_components)
        self.skewed = skewed
        self.params = 0.4 * rng.normal(size=(NUM_FEATURES + 1, 3, num_components))
        self.params[-1] = 0.0
        kinds = rng.integers(0, NUM_FEATURES + 1, size=(2 * num_edges, 3)).astype(np.int32)
        kinds[3] = kinds[4, [0, 2, 1]]
        self.features = kinds[rng.integers(0, len(kinds), size=(NUM_TREES, num_edges))]
        self.log_lengths = rng.normal(size=(NUM_TREES, num_edges))
        self.generator = rng.integers(0, num_components, size=NUM_TREES)
        self.d_path, self.d_score = rng.normal(size=(2, NUM_TREES, num_components))
        self.d_score[:, 0] = 0.0
        self.d_score[1:, 1] = 0.0
        self.d_log_lengths = rng.normal(size=(NUM_TREES, num_edges))
        size = NUM_TREES * num_edges
        self.first_of_row = np.full(NUM_FEATURES + 1, -1, np.int32)
        self.triples = np.empty((size, 3), np.int32)
        self.start, self.edges = np.empty(size + 1, np.int32), np.empty(size, np.int32)
        self.num_triples = _all_kernels.number_triples(
            self.features, self.first_of_row, np.empty(size, np.int32), np.empty(size, np.int32),
            self.triples, self.start, self.edges,
        )  # fmt: skip
        self.sums = np.empty((size, _all_kernels.NUM_SUMS, num_components))
        _all_kernels.sum_features(self.params, self.triples, self.num_triples, skewed, self.sums)
        self.hazards = np.full((size, 2, num_components), np.nan)
        self.log_density = np.empty((NUM_TREES, num_components))
        _all_kernels.log_density(
            self.sums, self.num_triples, self.start, self.edges, self.log_lengths, skewed, self.hazards,
            self.log_density,
        )  # fmt: skip


CASES = pytest.mark.parametrize(
    ("num_components", "num_edges", "skewed"), [(4, 5, True), (5, 70, True), (33, 32, True), (9, 33, False)]
)


@CASES
def test_triples_number_the_features(num_components, num_edges, skewed):
    case = Case(num_components, num_edges, skewed)
    assert sorted(case.edges.tolist()) == list(range(len(case.edges)))
    triple_of_edge = np.repeat(np.arange(case.num_triples), np.diff(case.start[: case.num_triples + 1]))
    np.testing.assert_array_equal(case.triples[triple_of_edge], case.features.reshape(-1, 3)[case.edges])
    kinds = np.unique(case.features.reshape(-1, 3), axis=0)
    assert case.num_triples == len(kinds) == triple_of_edge.max() + 1
    assert (case.first_of_row == -1).all()


@CASES
def test_log_density_is_that_of_every_component(num_components, num_edges, skewed):
    case = Case(num_components, num_edges, skewed)
    expected = np.empty((NUM_TREES, num_components))
    _kernels.log_density(
        case.params.transpose(2, 0, 1), case.features, case.log_lengths, np.arange(num_components), skewed,
        _kernels.make_work(num_edges), expected,
    )  # fmt: skip
    np.testing.assert_allclose(case.log_density, expected, rtol=1e-12)


@CASES
def test_gradient_is_that_of_every_component(num_components, num_edges, skewed):
    case = Case(num_components, num_edges, skewed)
    num_rows = NUM_FEATURES + 1
    expected = np.zeros((num_components, num_rows, 3))
    touched = np.zeros(expected.shape[:2], np.uint8)
    expected_total, total = case.d_log_lengths.copy(), case.d_log_lengths.copy()
    params, components = case.params.transpose(2, 0, 1), np.arange(num_components)
    _kernels.backward(
        params, case.features, case.log_lengths, case.generator, components, skewed, case.d_path,
        case.d_score, expected_total, _kernels.make_work(num_edges), expected, touched,
        np.empty(touched.size, np.int64), np.zeros(1, np.int64),
    )  # fmt: skip
    slopes = np.empty((case.num_triples, 3, num_components))
    flags = np.empty((case.num_triples, num_components), np.uint8)
    _all_kernels.backward(
        case.sums, case.num_triples, case.start, case.edges, case.log_lengths, case.hazards, case.generator,
        skewed, case.d_path, case.d_score, total, slopes, flags,
    )  # fmt: skip
    rows, row_triple = np.empty((2, 3 * case.num_triples), np.int32)
    start, position = np.empty(3 * case.num_triples + 1, np.int32), np.full(num_rows, -1, np.int32)
    count = _all_kernels.triples_of_rows(
        case.triples, case.num_triples, NUM_FEATURES, position, rows, start, row_triple
    )
    assert (position == -1).all()
    used = set(case.features.ravel().tolist()) - {NUM_FEATURES}
    assert sorted(rows[:count].tolist()) == sorted(used)
    got, is_touched = np.zeros_like(expected), np.zeros_like(touched)
    for n in range(count):
        own = row_triple[start[n] : start[n + 1]]
        got[:, rows[n]] = slopes[own].sum(0).T
        is_touched[:, rows[n]] = flags[own].any(0)
    np.testing.assert_allclose(total, expected_total, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(is_touched, touched)
