"""The compiled likelihood of trees with models of their own: all derivatives, by several independent ways."""

import numpy as np
import pytest
import torch

from vbpi_mix.likelihood.compiled import CompiledGeneralLikelihood, CompiledPerTreeLikelihood
from vbpi_mix.likelihood.models import ModelParameters, discrete_gamma_rates, gtr, jc69
from vbpi_mix.likelihood.reference import log_likelihood_of_parameters
from vbpi_mix.patterns import SitePatterns

HALVES = (slice(4000), slice(4000, None))


def draw_parameters(num_trees, num_categories, seed, *, invariable=True):
    """Parameters without any relation to each other."""
    rng = np.random.default_rng(seed)
    constant = rng.uniform(0.05, 0.3, num_trees) if invariable else np.zeros(num_trees)
    weights = rng.dirichlet(np.full(num_categories, 5.0), num_trees) * (1 - constant)[:, None]
    return ModelParameters(
        rng.dirichlet(np.full(4, 5.0), num_trees),
        rng.gamma(2.0, 1.0, (num_trees, 6)),
        rng.gamma(2.0, 0.5, (num_trees, num_categories)),
        weights,
        constant,
    )


def by_autograd(children, lengths, parameters, patterns):
    """Values and all derivatives by the reference; invariable sites are its last category, of rate zero."""
    values, by_lengths, by_parameters = [], [], []
    for tree in range(len(children)):
        branches = torch.from_numpy(lengths[tree].copy()).requires_grad_()
        f, s, rates, weights, constant = (
            torch.tensor(x[tree], dtype=torch.float64, requires_grad=True) for x in parameters
        )
        value = log_likelihood_of_parameters(
            children[tree],
            branches,
            f,
            s,
            torch.cat([rates, torch.zeros(1, dtype=torch.float64)]),
            torch.cat([weights, constant[None]]),
            patterns,
        )
        by_length, *rest = torch.autograd.grad(value, (branches, f, s, rates, weights, constant))
        values.append(value.item())
        by_lengths.append(by_length.numpy())
        by_parameters.append([x.numpy() for x in rest])
    stacked = ModelParameters(*(np.stack(x) for x in zip(*by_parameters, strict=True)))
    return np.array(values), np.stack(by_lengths), stacked


def assert_all_same(actual, expected, rtol):
    """Values to a relative tolerance, derivatives to one relative to the largest of their kind and tree."""
    np.testing.assert_allclose(actual[0], expected[0], rtol=rtol)
    for mine, theirs in zip((actual[1], *actual[2]), (expected[1], *expected[2]), strict=True):
        scale = np.abs(theirs).reshape(len(theirs), -1).max(1)
        difference = np.abs(mine - theirs).reshape(len(theirs), -1).max(1)
        assert (difference <= rtol * scale).all(), (mine, theirs)


@pytest.mark.parametrize(
    ("num_taxa", "num_patterns", "num_categories"), [(3, 1, 1), (5, 32, 4), (9, 129, 1), (13, 200, 3)]
)
def test_agrees_with_autograd_of_the_reference(
    num_taxa, num_patterns, num_categories, draw_trees, draw_patterns
):
    children, lengths = draw_trees(num_taxa, 3, seed=num_taxa)
    patterns = draw_patterns(num_taxa, num_patterns, seed=num_patterns)
    parameters = draw_parameters(3, num_categories, seed=1)
    actual = CompiledPerTreeLikelihood(patterns, num_categories).value_and_gradients(
        children, lengths, parameters
    )
    assert_all_same(actual, by_autograd(children, lengths, parameters, patterns), rtol=1e-9)


# The kernel's vectors hold four categories or eight, and take turns where there are more.
@pytest.mark.parametrize(("dtype", "rtol"), [("float64", 1e-9), ("float32", 1e-4)])
@pytest.mark.parametrize("num_categories", [5, 9, 33])
def test_many_categories(num_categories, dtype, rtol, draw_trees, draw_patterns):
    children, lengths = draw_trees(6, 1, seed=41)
    patterns = draw_patterns(6, 37, seed=42)
    parameters = draw_parameters(1, num_categories, seed=43)
    actual = CompiledPerTreeLikelihood(patterns, num_categories, dtype=dtype).value_and_gradients(
        children, lengths, parameters
    )
    assert_all_same(actual, by_autograd(children, lengths, parameters, patterns), rtol=rtol)


def test_halves_of_a_long_alignment_add_up(draw_trees, draw_patterns):
    # So long that pieces of work have more blocks than derivatives are gathered over.
    children, lengths = draw_trees(5, 1, seed=44)
    whole = draw_patterns(5, 9001, seed=45)
    halves = [SitePatterns(whole.taxa, whole.states[:, part], whole.weights[part]) for part in HALVES]
    parameters = draw_parameters(1, 2, seed=46)
    expected, first, second = (
        CompiledPerTreeLikelihood(patterns, 2).value_and_gradients(children, lengths, parameters)
        for patterns in (whole, *halves)
    )
    total = ModelParameters(*(x + y for x, y in zip(first[2], second[2], strict=True)))
    assert_all_same((first[0] + second[0], first[1] + second[1], total), expected, rtol=1e-10)


def test_batches_in_parts(draw_trees, draw_patterns):
    children, lengths = draw_trees(5, 75, seed=47)
    likelihood = CompiledPerTreeLikelihood(draw_patterns(5, 20, seed=48), 2)
    parameters = draw_parameters(75, 2, seed=49)
    expected, _, _ = likelihood.value_and_gradients(children, lengths, parameters)
    np.testing.assert_array_equal(likelihood.value(children, lengths, parameters), expected)


# Eigenvalues: three equal (JC), two equal (K80, F81), two that differ by 1e-9 and by about the border of the
# series; branches from very short to long.
@pytest.mark.parametrize(
    ("frequencies", "exchangeabilities"),
    [
        ([0.25, 0.25, 0.25, 0.25], [1, 1, 1, 1, 1, 1]),
        ([0.25, 0.25, 0.25, 0.25], [1, 3, 1, 1, 3, 1]),
        ([0.1, 0.2, 0.3, 0.4], [1, 1, 1, 1, 1, 1]),
        ([0.25, 0.25, 0.25, 0.25], [1, 3, 1, 1, 3 + 1e-9, 1]),
        ([0.25, 0.25, 0.25, 0.25], [1, 3, 1, 1, 3.05, 1]),
        ([0.01, 0.29, 0.3, 0.4], [0.05, 3, 1, 20, 5, 1]),
    ],
)
def test_equal_and_nearly_equal_eigenvalues(frequencies, exchangeabilities, draw_trees, draw_patterns):
    children, lengths = draw_trees(7, 2, seed=2)
    lengths[0, :5] = [1e-9, 1e-4, 0.02, 1.0, 8.0]
    patterns = draw_patterns(7, 60, seed=3)
    parameters = draw_parameters(2, 2, seed=4)._replace(
        frequencies=np.tile(frequencies, (2, 1)), exchangeabilities=np.tile(exchangeabilities, (2, 1)) * 1.0
    )
    actual = CompiledPerTreeLikelihood(patterns, 2).value_and_gradients(children, lengths, parameters)
    assert_all_same(actual, by_autograd(children, lengths, parameters, patterns), rtol=1e-8)


def test_derivatives_are_central_differences(draw_trees, draw_patterns):
    # Truncation is step**2 / 6 times a third derivative, rounding 1e-13 over the step: both below 1e-6 here.
    children, lengths = draw_trees(8, 1, seed=5)
    patterns = draw_patterns(8, 90, seed=6)
    parameters = draw_parameters(1, 2, seed=7)
    likelihood = CompiledPerTreeLikelihood(patterns, 2)
    _, _, derivatives = likelihood.value_and_gradients(children, lengths, parameters)
    for field in parameters._fields:
        flat = getattr(parameters, field).ravel()
        for k in range(flat.size):
            step = 1e-5 * flat[k]
            values = []
            for sign in (1, -1):
                moved = flat.copy()
                moved[k] += sign * step
                changed = parameters._replace(**{field: moved.reshape(getattr(parameters, field).shape)})
                values.append(likelihood.value(children, lengths, changed)[0])
            difference = (values[0] - values[1]) / (2 * step)
            assert getattr(derivatives, field).ravel()[k] == pytest.approx(difference, rel=1e-5, abs=1e-4)


def test_scale_of_exchangeabilities_does_not_matter(draw_trees, draw_patterns):
    children, lengths = draw_trees(8, 3, seed=8)
    likelihood = CompiledPerTreeLikelihood(draw_patterns(8, 50, seed=9), 3)
    parameters = draw_parameters(3, 3, seed=10)
    scaled = parameters._replace(exchangeabilities=parameters.exchangeabilities * 37.0)
    value, _, derivatives = likelihood.value_and_gradients(children, lengths, parameters)
    np.testing.assert_allclose(likelihood.value(children, lengths, scaled), value, rtol=1e-13)
    along = (derivatives.exchangeabilities * parameters.exchangeabilities).sum(1)
    np.testing.assert_allclose(along, 0.0, atol=1e-10 * np.abs(derivatives.exchangeabilities).max())


def test_scale_of_rates_is_that_of_branches(draw_trees, draw_patterns):
    children, lengths = draw_trees(8, 2, seed=11)
    parameters = draw_parameters(2, 3, seed=12)
    likelihood = CompiledPerTreeLikelihood(draw_patterns(8, 50, seed=13), 3)
    _, by_length, derivatives = likelihood.value_and_gradients(children, lengths, parameters)
    np.testing.assert_allclose(
        (by_length * lengths).sum(1),
        (derivatives.category_rates * parameters.category_rates).sum(1),
        rtol=1e-9,
    )


def test_trees_do_not_influence_each_other(draw_trees, draw_patterns):
    children, lengths = draw_trees(9, 4, seed=14)
    parameters = draw_parameters(4, 2, seed=15)
    likelihood = CompiledPerTreeLikelihood(draw_patterns(9, 150, seed=16), 2)
    value, by_length, derivatives = likelihood.value_and_gradients(children, lengths, parameters)
    for tree in range(4):
        one = slice(tree, tree + 1)
        alone = likelihood.value_and_gradients(
            children[one], lengths[one], ModelParameters(*(x[one] for x in parameters))
        )
        np.testing.assert_array_equal(alone[0], value[one])
        np.testing.assert_array_equal(alone[1], by_length[one])
        for mine, whole in zip(alone[2], derivatives, strict=True):
            np.testing.assert_array_equal(mine, whole[one])


def test_one_model_for_all_trees_is_the_general_likelihood(draw_trees, draw_patterns, uneven_model):
    children, lengths = draw_trees(9, 3, seed=17)
    patterns = draw_patterns(9, 150, seed=18)
    model = uneven_model.parameters()
    parameters = ModelParameters(*(np.repeat(x, 3, 0) for x in model))
    expected = CompiledGeneralLikelihood(patterns, uneven_model).value_and_gradient(children, lengths)
    value, by_length, _ = CompiledPerTreeLikelihood(patterns, 3).value_and_gradients(
        children, lengths, parameters
    )
    np.testing.assert_array_equal(value, expected[0])
    np.testing.assert_array_equal(by_length, expected[1])


@pytest.mark.parametrize("threads", [2, 50])
def test_threads_do_not_change_a_bit(threads, draw_trees, draw_patterns):
    children, lengths = draw_trees(9, 3, seed=19)
    patterns, parameters = draw_patterns(9, 700, seed=20), draw_parameters(3, 2, seed=21)
    expected, actual = (
        CompiledPerTreeLikelihood(patterns, 2, threads=t).value_and_gradients(children, lengths, parameters)
        for t in (1, threads)
    )
    for mine, theirs in zip((*actual[:2], *actual[2]), (*expected[:2], *expected[2]), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_float32(bundled_patterns, draw_trees):
    patterns = bundled_patterns("DS1")
    children, lengths = draw_trees(patterns.num_taxa, 3, seed=22)
    parameters = draw_parameters(3, 4, seed=23)
    exact, single = (
        CompiledPerTreeLikelihood(patterns, 4, dtype=dtype).value_and_gradients(children, lengths, parameters)
        for dtype in ("float64", "float32")
    )
    np.testing.assert_allclose(single[0], exact[0], rtol=0, atol=0.02)
    assert_all_same(single, exact, rtol=1e-4)  # rounding of a part in 10^7, many times over


@pytest.mark.parametrize(("dtype", "rtol"), [("float64", 1e-9), ("float32", 1e-4)])
def test_invariable_sites_among_scaled_patterns(dtype, rtol, draw_trees, draw_patterns):
    # With 700 taxa every pattern is scaled; the constant ones are explained by invariable sites alone.
    children, lengths = draw_trees(700, 1, seed=24)
    some = draw_patterns(700, 3, seed=25)
    states = np.concatenate((some.states, np.ones((700, 1), np.uint8)), 1)
    patterns = SitePatterns(some.taxa, states, np.ones(4))
    parameters = draw_parameters(1, 2, seed=26)
    actual = CompiledPerTreeLikelihood(patterns, 2, dtype=dtype).value_and_gradients(
        children, lengths, parameters
    )
    value, by_length, derivatives = by_autograd(children, lengths, parameters, patterns)
    # The reference's largest partial is that of the invariable category, which scales it just as well.
    assert_all_same(actual, (value, by_length, derivatives), rtol=rtol)


def test_impossible_data_have_no_derivatives(draw_trees, draw_patterns):
    children, lengths = draw_trees(10, 2, seed=27)
    lengths[1] = 0.0
    parameters = draw_parameters(2, 2, seed=28, invariable=False)
    value, by_length, derivatives = CompiledPerTreeLikelihood(
        draw_patterns(10, 40, seed=29), 2
    ).value_and_gradients(children, lengths, parameters)
    assert value[1] == -np.inf
    assert np.isfinite(value[0])
    for array in (by_length, *derivatives):
        np.testing.assert_array_equal(array[1], 0.0)
        assert np.isfinite(array).all()


def test_arrays_given_are_filled(draw_trees, draw_patterns):
    children, lengths = draw_trees(6, 2, seed=30)
    likelihood = CompiledPerTreeLikelihood(draw_patterns(6, 10, seed=31), 2)
    parameters = draw_parameters(2, 2, seed=32)
    out = np.empty(2), np.empty_like(lengths), ModelParameters.empty(2, 2)
    expected = likelihood.value_and_gradients(children, lengths, parameters)
    assert likelihood.value_and_gradients(children, lengths, parameters, out=out) is out
    for mine, theirs in zip((*out[:2], *out[2]), (*expected[:2], *expected[2]), strict=True):
        np.testing.assert_array_equal(mine, theirs)


class TestMessages:
    @pytest.mark.parametrize(
        ("field", "value", "message"),
        [
            ("frequencies", 0.0, "Tree 1: frequencies must be positive and be finite"),
            ("exchangeabilities", np.nan, "Tree 1: exchangeabilities must be positive"),
            ("category_rates", -1.0, "Tree 1: category_rates must not be negative"),
            ("category_weights", np.inf, "Tree 1: category_weights must be positive"),
        ],
    )
    def test_parameters_out_of_range(self, field, value, message, draw_trees, draw_patterns):
        parameters = draw_parameters(2, 2, seed=33)
        getattr(parameters, field)[1, 0] = value
        likelihood = CompiledPerTreeLikelihood(draw_patterns(6, 10, seed=34), 2)
        with pytest.raises(ValueError, match=message):
            likelihood.value(*draw_trees(6, 2, seed=35), parameters)

    def test_wrong_shape(self, draw_trees, draw_patterns):
        likelihood = CompiledPerTreeLikelihood(draw_patterns(6, 10, seed=36), 3)
        with pytest.raises(ValueError, match=r"category_rates must have shape \(2, 3\), got \(2, 2\)"):
            likelihood.value(*draw_trees(6, 2, seed=37), draw_parameters(2, 2, seed=38))


def test_jukes_cantor_as_general(draw_trees, draw_patterns):
    children, lengths = draw_trees(8, 2, seed=39)
    patterns = draw_patterns(8, 40, seed=40)
    one = jc69().parameters()
    parameters = ModelParameters(*(np.repeat(x, 2, 0) for x in one))
    actual = CompiledPerTreeLikelihood(patterns, 1).value_and_gradients(children, lengths, parameters)
    assert_all_same(actual, by_autograd(children, lengths, parameters, patterns), rtol=1e-9)


def test_categories_of_rate_zero_are_invariable_sites():
    model = gtr(
        np.full(4, 0.25),
        np.ones(6),
        np.concatenate(([0.0], discrete_gamma_rates(1.0, 2))),
        np.array([0.2, 0.4, 0.4]),
    )
    parameters = model.parameters()
    assert parameters.category_rates.shape == (1, 2)
    np.testing.assert_allclose(parameters.invariable, [0.2])
