"""The compiled kernels against the reference; scaling, blocks, threads, buffers and messages."""

import numpy as np
import pytest
from likelihood.agreement import assert_same, by_reference

from vbpi_mix.errors import NonFiniteError
from vbpi_mix.likelihood.compiled import CompiledJC69Likelihood
from vbpi_mix.likelihood.models import jc69
from vbpi_mix.patterns import SitePatterns


def evolve(children, lengths, num_sites, rng):
    """States of the leaves, one nucleotide each, simulated under JC69 from the top node down."""
    num_taxa = children.shape[0] + 2
    states = np.empty((2 * num_taxa - 2, num_sites), np.int64)
    states[-1] = rng.integers(4, size=num_sites)
    branches = [(num_taxa - 1, 2 * num_taxa - 3)]
    for i in range(num_taxa - 3, -1, -1):
        branches += [(child, num_taxa + i) for child in children[i].tolist()]
    for node, parent in branches:
        is_redrawn = rng.random(num_sites) > np.exp(-4 / 3 * lengths[node])
        states[node] = np.where(is_redrawn, rng.integers(4, size=num_sites), states[parent])
    taxa = tuple(f"taxon{i}" for i in range(num_taxa))
    return SitePatterns(taxa, (1 << states[:num_taxa]).astype(np.uint8), np.ones(num_sites))


# Pattern numbers around the kernel's block of 64: one block, exactly one, several and a part.
@pytest.mark.parametrize(("num_taxa", "num_patterns"), [(3, 1), (4, 64), (5, 65), (13, 150), (40, 200)])
def test_jc69_agrees_with_reference(num_taxa, num_patterns, draw_trees, draw_patterns):
    children, lengths = draw_trees(num_taxa, 3, seed=num_taxa)
    patterns = draw_patterns(num_taxa, num_patterns, seed=num_patterns)
    actual = CompiledJC69Likelihood(patterns).value_and_gradient(children, lengths)
    assert_same(actual, by_reference(children, lengths, patterns, jc69()), rtol=1e-11)


@pytest.mark.parametrize("name", ["DS1", "DS8"])
def test_jc69_agrees_with_reference_on_bundled_data(name, bundled_patterns, draw_trees):
    patterns = bundled_patterns(name)
    children, lengths = draw_trees(patterns.num_taxa, 2, seed=5)
    actual = CompiledJC69Likelihood(patterns).value_and_gradient(children, lengths)
    assert_same(actual, by_reference(children, lengths, patterns, jc69()), rtol=1e-10)


def test_value_alone_is_the_same(bundled_patterns, draw_trees):
    patterns = bundled_patterns("DS1")
    children, lengths = draw_trees(patterns.num_taxa, 4, seed=6)
    likelihood = CompiledJC69Likelihood(patterns)
    values, _ = likelihood.value_and_gradient(children, lengths)
    np.testing.assert_array_equal(likelihood.value(children, lengths), values)


def test_order_of_children_and_numbers_of_nodes_do_not_matter(draw_trees, draw_patterns):
    children, lengths = draw_trees(9, 1, seed=7)
    patterns = draw_patterns(9, 30, seed=8)
    likelihood = CompiledJC69Likelihood(patterns)
    flipped = np.ascontiguousarray(children[:, :, ::-1])
    assert_same(
        likelihood.value_and_gradient(flipped, lengths),
        likelihood.value_and_gradient(children, lengths),
        1e-13,
    )


@pytest.mark.parametrize("name", ["DS1", "DS8"])
def test_float32_accuracy(name, bundled_patterns, draw_trees):
    # Rounding of some n - 2 products in each of some hundred patterns, not all in one direction.
    patterns = bundled_patterns(name)
    children, lengths = draw_trees(patterns.num_taxa, 5, seed=9)
    exact = CompiledJC69Likelihood(patterns).value_and_gradient(children, lengths)
    single = CompiledJC69Likelihood(patterns, dtype="float32").value_and_gradient(children, lengths)
    assert single[0].dtype == single[1].dtype == np.float64
    np.testing.assert_allclose(single[0], exact[0], rtol=0, atol=0.005)
    assert_same(single, exact, rtol=3e-6)


@pytest.mark.parametrize(("dtype", "rtol"), [("float64", 1e-10), ("float32", 1e-5)])
def test_a_thousand_taxa_do_not_underflow(dtype, rtol, draw_trees):
    # Likelihoods of single sites are near exp(-1000) here: far below the smallest number of either dtype.
    children, lengths = draw_trees(1000, 1, seed=10)
    lengths *= 3
    patterns = evolve(children[0], lengths[0], 20, np.random.default_rng(11))
    actual = CompiledJC69Likelihood(patterns, dtype=dtype).value_and_gradient(children, lengths)
    assert actual[0][0] / patterns.num_sites < -800
    assert_same(actual, by_reference(children, lengths, patterns, jc69()), rtol=rtol)


@pytest.mark.parametrize(
    ("length", "dtype", "rtol"),
    [(1e-12, "float64", 1e-9), (1e-30, "float64", 1e-9), (1e-100, "float64", 1e-9), (1e-12, "float32", 1e-4)],
)
def test_tiny_branches_do_not_underflow(length, dtype, rtol, draw_trees, draw_patterns):
    # Every change costs a factor of length / 3, so that 20 changes at the length 1e-30 leave about 1e-600.
    children, lengths = draw_trees(40, 1, seed=12)
    lengths[0, 5:] = length
    patterns = draw_patterns(40, 20, seed=13)
    actual = CompiledJC69Likelihood(patterns, dtype=dtype).value_and_gradient(children, lengths)
    assert_same(actual, by_reference(children, lengths, patterns, jc69()), rtol=rtol)


def test_zero_lengths_with_positive_likelihood(draw_trees, draw_patterns):
    children, lengths = draw_trees(12, 2, seed=14)
    lengths[0, [0, 3, 14, 20]] = 0.0
    lengths[1, 11] = 0.0
    patterns = draw_patterns(12, 40, seed=15)
    actual = CompiledJC69Likelihood(patterns).value_and_gradient(children, lengths)
    assert np.isfinite(actual[1]).all()
    assert_same(actual, by_reference(children, lengths, patterns, jc69()), rtol=1e-10)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_impossible_data_have_minus_infinity_and_no_gradient(dtype, draw_trees, draw_patterns):
    children, lengths = draw_trees(12, 3, seed=14)
    lengths[1] = 0.0
    likelihood = CompiledJC69Likelihood(draw_patterns(12, 40, seed=15), dtype=dtype)
    values, gradients = likelihood.value_and_gradient(children, lengths)
    assert values[1] == -np.inf
    np.testing.assert_array_equal(gradients[1], 0.0)
    assert np.isfinite(values[[0, 2]]).all()
    assert (gradients[[0, 2]] != 0.0).all()


def test_infinitely_long_branches_make_taxa_independent(draw_trees):
    children, lengths = draw_trees(6, 1, seed=16)
    states = np.array([[1], [2], [4], [8], [15], [3]], np.uint8)
    patterns = SitePatterns(tuple("abcdef"), states, np.array([2.0]))
    value, gradient = CompiledJC69Likelihood(patterns).value_and_gradient(
        children, np.full_like(lengths, 1e3)
    )
    assert value[0] == pytest.approx(2 * (4 * np.log(0.25) + np.log(0.5)), rel=1e-13)
    np.testing.assert_allclose(gradient, 0.0, atol=1e-12)


def test_data_all_missing_have_likelihood_one(draw_trees):
    children, lengths = draw_trees(6, 2, seed=17)
    patterns = SitePatterns(tuple("abcdef"), np.full((6, 3), 15, np.uint8), np.ones(3))
    value, gradient = CompiledJC69Likelihood(patterns).value_and_gradient(children, lengths)
    np.testing.assert_allclose(value, 0.0, atol=1e-13)
    np.testing.assert_allclose(gradient, 0.0, atol=1e-12)


@pytest.mark.parametrize("threads", [2, 3, 100])
def test_threads_do_not_change_a_bit(threads, bundled_patterns, draw_trees):
    patterns = bundled_patterns("DS1")
    children, lengths = draw_trees(patterns.num_taxa, 3, seed=18)
    expected = CompiledJC69Likelihood(patterns).value_and_gradient(children, lengths)
    actual = CompiledJC69Likelihood(patterns, threads=threads).value_and_gradient(children, lengths)
    np.testing.assert_array_equal(actual[0], expected[0])
    np.testing.assert_array_equal(actual[1], expected[1])


def test_results_go_to_the_buffers_given_and_batches_may_change_size(draw_trees, draw_patterns):
    likelihood = CompiledJC69Likelihood(draw_patterns(8, 20, seed=19))
    children, lengths = draw_trees(8, 5, seed=20)
    out = np.full(5, np.nan), np.full(lengths.shape, np.nan)
    returned = likelihood.value_and_gradient(children, lengths, out=out)
    assert returned[0] is out[0]
    assert returned[1] is out[1]
    for tree in range(5):
        one = likelihood.value_and_gradient(children[tree : tree + 1], lengths[tree : tree + 1])
        np.testing.assert_array_equal(one[0], out[0][tree : tree + 1])
        np.testing.assert_array_equal(one[1], out[1][tree : tree + 1])
    value = np.empty(5)
    assert likelihood.value(children, lengths, out=value) is value
    np.testing.assert_array_equal(value, out[0])


class TestMessages:
    @pytest.fixture
    def likelihood(self, draw_patterns):
        return CompiledJC69Likelihood(draw_patterns(6, 5, seed=21))

    @pytest.mark.parametrize(
        ("length", "error", "message"),
        [
            (-0.1, ValueError, "Tree 1: the length of branch 7 is -0.1; it must not be negative"),
            (np.nan, NonFiniteError, "Tree 1: the length of branch 7 is nan; it must be finite"),
            (np.inf, NonFiniteError, "Tree 1: the length of branch 7 is inf; it must be finite"),
        ],
    )
    def test_bad_lengths(self, likelihood, draw_trees, length, error, message):
        children, lengths = draw_trees(6, 2, seed=22)
        lengths[1, 7] = length
        with pytest.raises(error, match=message):
            likelihood.value(children, lengths)

    @pytest.mark.parametrize(("internal", "child"), [(0, -1), (0, 5), (1, 7), (2, 100), (3, 1)])
    def test_bad_topologies(self, likelihood, internal, child):
        children = np.array([[[0, 1], [2, 6], [3, 7], [4, 8]]], np.int32)
        children[0, internal, 0] = child
        with pytest.raises(ValueError, match=f"Tree 0: the children .* of internal node {internal}"):
            likelihood.value(children, np.full((1, 9), 0.1))

    def test_wrong_number_of_taxa(self, likelihood, draw_trees):
        with pytest.raises(ValueError, match=r"trees of 6 taxa, children must have shape \(2, 4, 2\)"):
            likelihood.value(*draw_trees(7, 2, seed=23))

    def test_strided_array(self, likelihood, draw_trees):
        children, lengths = draw_trees(6, 4, seed=24)
        with pytest.raises(ValueError, match="children must be C-contiguous"):
            likelihood.value(children[::2], lengths[:2].copy())

    def test_no_threads(self, draw_patterns):
        with pytest.raises(ValueError, match="threads must be at least one, got 0"):
            CompiledJC69Likelihood(draw_patterns(6, 5, seed=21), threads=0)
