"""What holds for every engine: agreement with the reference, invariances, and the choice of an engine."""

import numpy as np
import pytest
from likelihood.agreement import assert_same, by_reference

from vbpi_mix.likelihood.base import TreeLikelihood, make_likelihood
from vbpi_mix.likelihood.compiled import CompiledGeneralLikelihood, CompiledJC69Likelihood
from vbpi_mix.likelihood.models import jc69
from vbpi_mix.likelihood.torch_kernel import TorchLikelihood
from vbpi_mix.patterns import SitePatterns
from vbpi_mix.trees.topology import canonicalise_with_lengths

ENGINES = {"compiled": CompiledGeneralLikelihood, "torch": TorchLikelihood}


@pytest.fixture(params=ENGINES)
def engine(request):
    return ENGINES[request.param]


@pytest.mark.parametrize(("num_taxa", "num_patterns"), [(3, 1), (4, 64), (5, 65), (13, 150), (40, 100)])
def test_agrees_with_reference(engine, num_taxa, num_patterns, draw_trees, draw_patterns, uneven_model):
    children, lengths = draw_trees(num_taxa, 3, seed=num_taxa)
    patterns = draw_patterns(num_taxa, num_patterns, seed=num_patterns)
    likelihood = engine(patterns, uneven_model)
    expected = by_reference(children, lengths, patterns, uneven_model)
    assert_same(likelihood.value_and_gradient(children, lengths), expected)
    np.testing.assert_allclose(likelihood.value(children, lengths), expected[0], rtol=1e-12)


@pytest.mark.parametrize("name", ["DS1", "DS8"])
def test_agrees_with_reference_on_bundled_data(engine, name, bundled_patterns, draw_trees, uneven_model):
    patterns = bundled_patterns(name)
    children, lengths = draw_trees(patterns.num_taxa, 1, seed=5)
    actual = engine(patterns, uneven_model).value_and_gradient(children, lengths)
    assert_same(actual, by_reference(children, lengths, patterns, uneven_model))


@pytest.mark.parametrize("name", ["DS1", "DS8"])
def test_general_path_agrees_with_jc69_path(engine, name, bundled_patterns, draw_trees):
    patterns = bundled_patterns(name)
    children, lengths = draw_trees(patterns.num_taxa, 2, seed=6)
    expected = CompiledJC69Likelihood(patterns).value_and_gradient(children, lengths)
    assert_same(engine(patterns, jc69()).value_and_gradient(children, lengths), expected)


def test_float32_accuracy(engine, bundled_patterns, draw_trees, uneven_model):
    # The invariable category makes single-precision likelihoods lose a little more than under JC69.
    patterns = bundled_patterns("DS1")
    children, lengths = draw_trees(patterns.num_taxa, 2, seed=7)
    exact = engine(patterns, uneven_model).value_and_gradient(children, lengths)
    single = engine(patterns, uneven_model, dtype="float32").value_and_gradient(children, lengths)
    np.testing.assert_allclose(single[0], exact[0], rtol=0, atol=0.02)
    assert_same(single, exact, rtol=2e-5)


@pytest.mark.parametrize(("dtype", "rtol"), [("float64", 1e-10), ("float32", 1e-4)])
def test_many_taxa_do_not_underflow(engine, dtype, rtol, draw_trees, draw_patterns, uneven_model):
    children, lengths = draw_trees(700, 1, seed=8)
    patterns = draw_patterns(700, 5, seed=9)  # likelihoods of single sites are far below 1e-308
    actual = engine(patterns, uneven_model, dtype=dtype).value_and_gradient(children, lengths)
    expected = by_reference(children, lengths, patterns, uneven_model)
    assert expected[0][0] / patterns.num_sites < -800
    assert_same(actual, expected, rtol=rtol)


def test_zero_lengths(engine, draw_trees, draw_patterns, uneven_model):
    children, lengths = draw_trees(10, 3, seed=10)
    lengths[0, [0, 3, 12, 15]] = 0.0
    lengths[1] = 0.0
    patterns = draw_patterns(10, 40, seed=11)
    values, gradients = engine(patterns, uneven_model).value_and_gradient(children, lengths)
    assert values[1] == -np.inf
    np.testing.assert_array_equal(gradients[1], 0.0)
    kept = [0, 2]
    expected = by_reference(children[kept], lengths[kept], patterns, uneven_model)
    assert_same((values[kept], gradients[kept]), expected)


@pytest.mark.parametrize("threads", [2, 100])
def test_threads_do_not_change_a_bit(threads, draw_trees, draw_patterns, uneven_model):
    children, lengths = draw_trees(9, 3, seed=14)
    patterns = draw_patterns(9, 200, seed=15)
    expected = CompiledGeneralLikelihood(patterns, uneven_model).value_and_gradient(children, lengths)
    actual = CompiledGeneralLikelihood(patterns, uneven_model, threads=threads).value_and_gradient(
        children, lengths
    )
    np.testing.assert_array_equal(actual[0], expected[0])
    np.testing.assert_array_equal(actual[1], expected[1])


def rerooted(children, lengths, order):
    """The same unrooted tree with taxon order[i] numbered i: another leaf hangs above the top node."""
    num_taxa = children.shape[0] + 2
    neighbours = {num_taxa - 1: [(2 * num_taxa - 3, lengths[num_taxa - 1])], 2 * num_taxa - 3: []}
    neighbours[2 * num_taxa - 3].append((num_taxa - 1, lengths[num_taxa - 1]))
    for i in range(num_taxa - 3, -1, -1):
        for child in children[i].tolist():
            neighbours.setdefault(child, []).append((num_taxa + i, lengths[child]))
            neighbours.setdefault(num_taxa + i, []).append((child, lengths[child]))
    new_children, new_lengths = [], np.empty_like(lengths)

    def number(node, above, length):
        below = [(n, t) for n, t in neighbours[node] if n != above]
        if below:
            new_children.append([number(n, node, t) for n, t in below])
            new_node = num_taxa + len(new_children) - 1
        else:
            new_node = int(np.flatnonzero(order == node)[0])
        if new_node < len(new_lengths):
            new_lengths[new_node] = length
        return new_node

    top, length = neighbours[int(order[-1])][0]
    new_lengths[num_taxa - 1] = length
    number(top, int(order[-1]), np.nan)
    return np.array([new_children], np.int32), new_lengths[None]


def test_rooting_and_order_of_taxa_do_not_matter(engine, draw_trees, draw_patterns, uneven_model):
    children, lengths = draw_trees(9, 1, seed=16)
    patterns = draw_patterns(9, 50, seed=17)
    expected = engine(patterns, uneven_model).value_and_gradient(children, lengths)
    for seed in range(4):
        order = np.random.default_rng(seed).permutation(9)
        moved = SitePatterns(
            tuple(patterns.taxa[i] for i in order),
            np.ascontiguousarray(patterns.states[order]),
            patterns.weights,
        )
        new_children, new_lengths = rerooted(children[0], lengths[0], order)
        value, gradient = engine(moved, uneven_model).value_and_gradient(new_children, new_lengths)
        assert value[0] == pytest.approx(expected[0][0], rel=1e-13)
        assert np.sort(gradient[0]) == pytest.approx(np.sort(expected[1][0]), rel=1e-10)
        np.testing.assert_allclose(gradient[0, np.argsort(order)], expected[1][0, :9], rtol=1e-10)


def test_numbering_of_nodes_does_not_matter(engine, draw_trees, draw_patterns, uneven_model):
    children, lengths = draw_trees(9, 2, seed=18)
    flipped = np.ascontiguousarray(children[:, :, ::-1])
    canonical, canonical_lengths = canonicalise_with_lengths(flipped, lengths)
    likelihood = engine(draw_patterns(9, 50, seed=19), uneven_model)
    np.testing.assert_allclose(
        likelihood.value(flipped, lengths), likelihood.value(canonical, canonical_lengths), rtol=1e-13
    )


def test_compression_of_patterns_does_not_matter(engine, draw_trees, draw_patterns, uneven_model):
    children, lengths = draw_trees(6, 2, seed=20)
    patterns = draw_patterns(6, 30, seed=21)
    repeats = patterns.weights.astype(int)
    sites = SitePatterns(patterns.taxa, np.repeat(patterns.states, repeats, 1), np.ones(repeats.sum()))
    expected = engine(patterns, uneven_model).value_and_gradient(children, lengths)
    assert_same(engine(sites, uneven_model).value_and_gradient(children, lengths), expected, rtol=1e-12)


def test_a_taxon_without_data_adds_nothing(engine, draw_trees, draw_patterns, uneven_model):
    patterns = draw_patterns(4, 30, seed=22)
    longer = SitePatterns(
        ("new", *patterns.taxa),
        np.vstack((np.full((1, 30), 15, np.uint8), patterns.states)),
        patterns.weights,
    )
    # ((new:9, a:t):u, b:v) and so on is (a:t+u, b:v) without the new taxon
    lengths = np.array([[0.9, 0.1, 0.2, 0.3, 0.4, 0.05, 0.07]])
    with_it = engine(longer, uneven_model).value(np.array([[[0, 1], [5, 2], [6, 3]]], np.int32), lengths)
    without = engine(patterns, uneven_model).value(
        np.array([[[0, 1], [4, 2]]], np.int32), np.array([[0.15, 0.2, 0.3, 0.4, 0.07]])
    )
    np.testing.assert_allclose(with_it, without, rtol=1e-13)


class TestMakeLikelihood:
    def test_choice(self, draw_patterns, uneven_model):
        patterns = draw_patterns(5, 5, seed=23)
        assert type(make_likelihood(patterns, jc69())) is CompiledJC69Likelihood
        assert type(make_likelihood(patterns, uneven_model, threads=2)) is CompiledGeneralLikelihood
        assert type(make_likelihood(patterns, jc69(), engine="torch", dtype="float32")) is TorchLikelihood
        assert isinstance(make_likelihood(patterns, jc69()), TreeLikelihood)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"dtype": "float16"}, "dtype must be float64 or float32, got 'float16'"),
            ({"engine": "beagle"}, "engine must be compiled or torch, got 'beagle'"),
            ({"device": "cuda"}, "compiled engine runs on the cpu, not 'cuda'"),
            ({"engine": "torch", "threads": 2}, "Engine torch has no option threads, got 2"),
        ],
    )
    def test_bad_options(self, options, message, draw_patterns):
        with pytest.raises(ValueError, match=message):
            make_likelihood(draw_patterns(5, 5, seed=23), jc69(), **options)
