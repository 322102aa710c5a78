"""Skewed shapes of coordinates: densities by quadrature, inverses, fits to known distributions."""

import numpy as np
import pytest
from scipy.stats import norm

from vbpi_mix.training.coordinate_shapes import fit_shapes, log_densities, unwarp, warp
from vbpi_mix.training.model_density import ModelDensity

NUM_DRAWS = 4000


def log_gamma_draws(shape, rng):
    """Standardised logarithms of gamma variables: skewed to the left."""
    values = np.log(rng.gamma(shape, size=NUM_DRAWS))
    return (values - values.mean()) / values.std()


@pytest.fixture(scope="module")
def fitted():
    """Values of four coordinates, and the shapes that fit them: left, right, little skew, none."""
    rng = np.random.default_rng(1)
    values = np.column_stack(
        [
            log_gamma_draws(1.0, rng),
            -log_gamma_draws(1.0, rng),
            log_gamma_draws(30.0, rng),
            rng.normal(size=NUM_DRAWS),
        ]
    )
    return values, fit_shapes(values, np.ones(NUM_DRAWS))


def test_direction_and_skew_are_those_of_the_values(fitted):
    _, shapes = fitted
    assert shapes[:2, 3].tolist() == [1.0, -1.0]
    assert shapes[0, 2] == pytest.approx(shapes[1, 2], abs=0.5)
    assert (shapes[:2, 2] > shapes[2:, 2] + 0.5).all()


def test_fitted_densities_are_near_the_true_ones(fitted):
    values, shapes = fitted
    gain = log_densities(values, shapes).mean(0) - norm.logpdf(values).mean(0)
    # entropies: 1 + 0.5772 - log(pi / sqrt 6) of the standardised log of an exponential variable, and of the
    # normal distribution 0.5 log(2 pi e); where the values are normal there is nothing to gain
    expected = 0.5 * np.log(2 * np.pi * np.e) - (1 + np.euler_gamma - np.log(np.pi / np.sqrt(6)))
    np.testing.assert_allclose(gain[:2], expected, atol=0.03)
    np.testing.assert_allclose(gain[3], 0.0, atol=0.005)


def test_densities_have_mass_one_mean_zero_and_variance_one(fitted):
    x = np.linspace(-39.0, 39.0, 78_001)
    for shape in fitted[1]:
        p = np.exp(log_densities(x, np.tile(shape, (len(x), 1)))) * (x[1] - x[0])
        np.testing.assert_allclose([p.sum(), p @ x, p @ x**2], [1.0, 0.0, 1.0], atol=1e-5)


def test_densities_are_those_of_warped_noise(fitted):
    noise = np.linspace(-5.0, 5.0, 41)[:, None] * np.ones(4)
    shapes = fitted[1]
    values = warp(noise, shapes)
    np.testing.assert_allclose(unwarp(values, shapes), noise, atol=1e-8)
    step = 1e-6
    slope = (warp(noise + step, shapes) - warp(noise - step, shapes)) / (2 * step)
    np.testing.assert_allclose(log_densities(values, shapes), norm.logpdf(noise) - np.log(slope), atol=1e-6)


def test_far_away_everything_is_finite(fitted):
    values = np.array([[-1e6] * 4, [1e6] * 4])
    assert np.isfinite(log_densities(values, fitted[1])).all()
    assert np.isfinite(unwarp(values, fitted[1])).all()


def test_a_model_density_has_these_shapes(fitted):
    rng = np.random.default_rng(2)
    root = 0.4 * rng.normal(size=(2, 4, 4)) + np.eye(4)
    covariance = root @ root.transpose(0, 2, 1)
    normal = ModelDensity.of_moments(rng.normal(size=(2, 4)), covariance)
    density = ModelDensity(normal.table, np.stack([fitted[1], fitted[1][::-1]]))
    noise = rng.normal(size=(20_000, 4))
    generator = np.arange(20_000) % 2
    draws = density.draw(generator, np.array([0, 1], np.int32), noise)
    np.testing.assert_allclose(draws.normal[range(20_000), generator], noise, atol=1e-6)
    factor = density.factor()
    for a in range(2):
        own = draws.coordinates[generator == a]
        np.testing.assert_allclose(own.mean(0), density.mean[a], atol=0.07)  # standard errors are below 0.015
        np.testing.assert_allclose(np.cov(own.T), covariance[a], atol=0.15)
        u = np.linalg.solve(factor[a], (draws.coordinates - density.mean[a]).T).T
        expected = log_densities(u, density.shapes[a]).sum(1) - np.linalg.slogdet(factor[a])[1]
        np.testing.assert_allclose(draws.log_density[:, a], expected, atol=1e-8)
        np.testing.assert_allclose(density.normal_noise(draws.coordinates, a), draws.normal[:, a], atol=1e-8)
