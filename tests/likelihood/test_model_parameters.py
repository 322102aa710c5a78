"""Free parameters of models: known values, priors that integrate to one, derivatives, the discrete gamma."""

import math

import mpmath
import numpy as np
import pytest
from scipy.integrate import quad

from vbpi_mix.likelihood._gamma_kernel import fill_rates
from vbpi_mix.likelihood.compiled import CompiledPerTreeLikelihood
from vbpi_mix.likelihood.model_names import parse_model
from vbpi_mix.likelihood.model_parameters import ModelPriors, empirical_frequencies, make_transform
from vbpi_mix.likelihood.models import discrete_gamma_rates
from vbpi_mix.patterns import SitePatterns

ALL = ("GTR+FO+I+G4", "SYM+G4", "TN+FO", "HKY+FO+I", "K80", "F81+FO+G2", "JC+I+G4", "GTR")


@pytest.fixture
def transform_of(draw_patterns):
    """Function of a model's name: its transform, with frequencies of some data."""
    return lambda name, priors=None: make_transform(parse_model(name), draw_patterns(6, 40, seed=1), priors)


def rates_and_slopes(shapes, num_categories):
    rates = np.empty((len(shapes), num_categories))
    slopes = np.empty_like(rates)
    fill_rates(np.asarray(shapes, float), rates, slopes)
    return rates, slopes


@pytest.mark.parametrize("num_categories", [2, 4, 9])
def test_gamma_rates_are_those_of_quantiles(num_categories):
    shapes = [0.02, 0.1, 0.5, 1.0, 2.7, 10.0, 300.0]
    rates, _ = rates_and_slopes(shapes, num_categories)
    for shape, row in zip(shapes, rates, strict=True):
        np.testing.assert_allclose(row, discrete_gamma_rates(shape, num_categories), rtol=0, atol=1e-12)
    np.testing.assert_allclose(rates.mean(1), 1.0, rtol=1e-13)


@pytest.mark.parametrize("shape", [0.05, 0.3, 1.0, 4.0, 60.0])
def test_slopes_of_gamma_rates_are_those_of_high_precision(shape):
    # Differences of step 1e-12 in 50 digits: truncation 1e-24 times a third derivative.
    def means(a):
        below = [mpmath.mpf(0)]
        for k in (1, 2, 3):
            start = mpmath.mpf(float(quantiles[k - 1]))
            q = mpmath.findroot(
                lambda x, k=k: mpmath.gammainc(a, 0, x, regularized=True) - mpmath.mpf(k) / 4,
                (start, start * (1 + mpmath.mpf(10) ** -8)),
            )
            below.append(mpmath.gammainc(a + 1, 0, q, regularized=True))
        return [4 * (y - x) for x, y in zip(below, [*below[1:], mpmath.mpf(1)], strict=True)]

    from scipy.special import gammaincinv

    quantiles = gammaincinv(shape, np.array([0.25, 0.5, 0.75]))
    with mpmath.workdps(50):
        step = mpmath.mpf(10) ** -12
        above, below = means(mpmath.mpf(shape) + step), means(mpmath.mpf(shape) - step)
        expected = [float((x - y) / (2 * step)) for x, y in zip(above, below, strict=True)]
    _, slopes = rates_and_slopes([shape], 4)
    np.testing.assert_allclose(slopes[0], expected, rtol=1e-9, atol=1e-12)


def test_gamma_rates_of_extreme_shapes_are_finite():
    rates, slopes = rates_and_slopes([1e-5, 1e-3, 1e4], 4)
    assert np.isfinite(rates).all()
    assert np.isfinite(slopes).all()
    np.testing.assert_allclose(rates[0], [0, 0, 0, 4], atol=1e-12)
    np.testing.assert_allclose(rates[2], 1.0, atol=0.05)


@pytest.mark.parametrize("name", ALL)
def test_parameters_are_those_of_a_model(name, transform_of):
    transform = transform_of(name)
    z = np.random.default_rng(2).normal(size=(5, transform.num_coordinates))
    parameters = transform.parameters(z)
    np.testing.assert_allclose(parameters.frequencies.sum(1), 1.0)
    np.testing.assert_allclose(parameters.category_weights.sum(1) + parameters.invariable, 1.0)
    np.testing.assert_allclose((parameters.category_weights * parameters.category_rates).sum(1), 1.0)
    named = transform.named_parameters(z)
    assert named.shape == (5, len(transform.parameter_names))


def test_names_and_their_values(transform_of):
    transform = transform_of("HKY+FO+I+G4")
    assert transform.parameter_names == ("kappa", "pi(A)", "pi(C)", "pi(G)", "pi(T)", "alpha", "pinvar")
    z = np.random.default_rng(3).normal(size=(4, 6))
    named, parameters = transform.named_parameters(z), transform.parameters(z)
    ratio = parameters.exchangeabilities[:, 1] / parameters.exchangeabilities[:, 0]
    np.testing.assert_allclose(named[:, 0], ratio)
    np.testing.assert_allclose(named[:, 0], np.exp(-np.sqrt(2.0) * z[:, 0]))
    np.testing.assert_allclose(named[:, 1:5], parameters.frequencies)
    np.testing.assert_allclose(named[:, 5:], np.stack((np.exp(z[:, 4]), parameters.invariable), 1))
    assert transform_of("TN").parameter_names == ("kappa(A<->G)", "kappa(C<->T)")
    assert transform_of("GTR").parameter_names[:2] == ("r(A<->C)", "r(A<->G)")


def test_fixed_values_are_kept(transform_of):
    model = transform_of("HKY{2.5}+F{0.3,0.2,0.15,0.35}+I{0.2}+G4{0.5}").model()
    np.testing.assert_allclose(model.frequencies, [0.3, 0.2, 0.15, 0.35])
    np.testing.assert_allclose(model.exchangeabilities, [1, 2.5, 1, 1, 2.5, 1])
    np.testing.assert_allclose(model.category_rates, [0, *discrete_gamma_rates(0.5, 4) / 0.8], atol=1e-12)
    np.testing.assert_allclose(model.category_weights, [0.2, 0.2, 0.2, 0.2, 0.2])
    with pytest.raises(ValueError, match=r"K80 has free parameters: kappa"):
        transform_of("K80").model()


@pytest.mark.parametrize("name", ["K80", "F81+G4", "JC+I"])
@pytest.mark.parametrize("concentration", [1.0, 2.5])
def test_priors_of_one_coordinate_integrate_to_one(name, concentration, transform_of):
    transform = transform_of(name, ModelPriors(concentration, concentration, concentration))
    total, _ = quad(lambda z: np.exp(transform.log_prior(np.array([[z]]))[0]), -60, 60, points=[0], limit=200)
    assert total == pytest.approx(1.0, abs=1e-7)


@pytest.mark.parametrize("concentration", [1.0, 2.5])
@pytest.mark.parametrize("name", ["TN", "F81+FO", "GTR"])
def test_priors_of_simplices_integrate_to_one(name, concentration, transform_of):
    # Importance sampling from a normal density, a hundred thousand draws; five standard errors.
    transform = transform_of(name, ModelPriors(concentration, concentration))
    spread = 2.2 / np.sqrt(concentration)
    z = spread * np.random.default_rng(4).standard_t(5, (100_000, transform.num_coordinates))
    from scipy.stats import t

    weights = np.exp(transform.log_prior(z) - t.logpdf(z, 5, scale=spread).sum(1))
    assert abs(weights.mean() - 1.0) < 5 * weights.std() / np.sqrt(len(weights))
    assert weights.std() / np.sqrt(len(weights)) < 0.02


def test_kappa_has_the_prior_of_mrbayes(transform_of):
    # Beta(1, 1) on kappa / (1 + kappa): the density of log kappa is logistic.
    transform = transform_of("K80")
    z = np.linspace(-3, 3, 7)[:, None]
    log_kappa = np.log(transform.named_parameters(z)[:, 0])
    logistic = -np.logaddexp(0, log_kappa) - np.logaddexp(0, -log_kappa)
    np.testing.assert_allclose(transform.log_prior(z), logistic + 0.5 * np.log(2.0), rtol=1e-12)


@pytest.mark.parametrize("name", ALL)
def test_prior_gradient_is_that_of_differences(name, transform_of):
    transform = transform_of(name, ModelPriors(1.5, 2.0, 0.7))
    z = np.random.default_rng(5).normal(size=(3, transform.num_coordinates))
    _, gradient = transform.log_prior_and_gradient(z)
    for k in range(transform.num_coordinates):
        step = np.zeros_like(z)
        step[:, k] = 1e-5
        difference = (transform.log_prior(z + step) - transform.log_prior(z - step)) / 2e-5
        np.testing.assert_allclose(gradient[:, k], difference, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("name", ALL)
def test_likelihood_gradient_is_that_of_differences(name, transform_of, draw_trees, draw_patterns):
    # Truncation is 1e-8 / 6 times a third derivative, rounding about 1e-12 / 1e-4.
    transform = transform_of(name)
    children, lengths = draw_trees(6, 2, seed=6)
    likelihood = CompiledPerTreeLikelihood(draw_patterns(6, 40, seed=7), transform.num_categories)
    z = np.random.default_rng(8).normal(scale=0.5, size=(2, transform.num_coordinates))
    *_, derivatives = likelihood.value_and_gradients(children, lengths, transform.parameters(z))
    gradient = transform.pull_back(z, transform.models(z), derivatives)
    for k in range(transform.num_coordinates):
        step = np.zeros_like(z)
        step[:, k] = 1e-4
        above, below = (
            likelihood.value(children, lengths, transform.parameters(moved)) for moved in (z + step, z - step)
        )
        np.testing.assert_allclose(gradient[:, k], (above - below) / 2e-4, rtol=1e-5, atol=1e-5)


def test_start_has_the_frequencies_of_the_data(transform_of):
    transform = transform_of("GTR+FO+I+G4")
    parameters = transform.parameters(transform.start()[None])
    np.testing.assert_allclose(parameters.frequencies[0], transform.frequencies, rtol=1e-12)
    np.testing.assert_allclose(parameters.exchangeabilities, 1 / 6)
    np.testing.assert_allclose(parameters.invariable, 0.1)


def test_empirical_frequencies():
    states = np.array([[1, 1, 2, 4, 8, 15, 5]], np.uint8)
    patterns = SitePatterns(("a",), states, np.array([2.0, 1.0, 1.0, 1.0, 1.0, 9.0, 4.0]))
    # Three A, one each of C, G, T, four R: R goes to A and G as 3 to 1.
    np.testing.assert_allclose(empirical_frequencies(patterns), [0.6, 0.1, 0.2, 0.1], rtol=1e-11)
    missing = SitePatterns(("a",), np.array([[15]], np.uint8), np.ones(1))
    np.testing.assert_array_equal(empirical_frequencies(missing), 0.25)
    one = SitePatterns(("a",), np.array([[1]], np.uint8), np.ones(1))
    assert (empirical_frequencies(one) > 0).all()


def test_a_bad_prior_is_refused():
    with pytest.raises(ValueError, match="shape_rate of a prior must be positive and finite, got 0"):
        ModelPriors(shape_rate=0.0)


@pytest.mark.parametrize("name", [*ALL, "JC", "HKY{2}+F", "GTR{1,2,3,4,5}+FQ+I{0.1}+G4{0.5}"])
def test_densities_of_the_parameters_themselves_are_flat_but_for_the_shape(transform_of, name):
    transform = transform_of(name)
    assert parse_model(name).is_estimated == (transform.num_coordinates > 0)
    coordinates = np.random.default_rng(2).normal(size=(5, transform.num_coordinates))
    named = dict(zip(transform.parameter_names, transform.named_parameters(coordinates).T, strict=True))
    num_rates = sum(key.startswith("r(") for key in named) or 1 + sum(
        key.startswith("kappa") for key in named
    )
    num_frequencies = sum(key.startswith("pi(") for key in named)
    expected = np.zeros(5) + math.lgamma(num_rates) + math.lgamma(max(1, num_frequencies))
    if "alpha" in named:
        expected -= named["alpha"]
    density = transform.log_prior(coordinates) - transform.log_jacobian(coordinates)
    np.testing.assert_allclose(density, expected, atol=1e-12)
