"""Densities of log branch lengths against quadrature, scipy, autograd and finite differences."""

import numpy as np
import pytest
import torch
from scipy import integrate, optimize, stats

from vbpi_mix.branches import densities

CASES = [(-3.5, -1.0, 0.0), (0.3, 0.4, 0.9), (-1.2, -0.7, -1.4)]


def arguments(seed: int, size: int = 40) -> tuple[np.ndarray, ...]:
    """Log lengths, locations, log scales and skews."""
    rng = np.random.default_rng(seed)
    loc, log_scale, skew = rng.normal(size=size), 0.5 * rng.normal(size=size), rng.normal(size=size)
    return densities.transform(rng.normal(size=size), loc, log_scale, skew), loc, log_scale, skew


@pytest.mark.parametrize(("loc", "log_scale", "skew"), CASES)
def test_density_integrates_to_one_and_to_the_probability_of_the_noise(loc, log_scale, skew):
    def density(y):
        return float(np.exp(densities.log_density(np.float64(y), loc, log_scale, skew)))

    def quantile(noise):
        return float(densities.transform(np.float64(noise), *map(np.float64, (loc, log_scale, skew))))

    # 1e-9: quadrature is asked for 1e-11; the mass beyond nine standard deviations of noise is below 1e-18.
    total = integrate.quad(density, quantile(-9.0), quantile(9.0), epsabs=1e-11, epsrel=1e-11, limit=200)[0]
    below = integrate.quad(density, quantile(-9.0), quantile(0.7), epsabs=1e-11, epsrel=1e-11, limit=200)[0]
    assert total == pytest.approx(1.0, abs=1e-9)
    assert below == pytest.approx(stats.norm.cdf(0.7), abs=1e-9)


def test_without_skew_it_is_normal():
    y, loc, log_scale, _ = arguments(0)
    expected = stats.norm.logpdf(y, loc, np.exp(log_scale))
    np.testing.assert_allclose(densities.log_density(y, loc, log_scale), expected, rtol=1e-13)
    noise = densities.inverse(y, loc, log_scale)
    np.testing.assert_allclose(densities.transform(noise, loc, log_scale), y, rtol=1e-13)


def test_density_is_that_of_an_exponentiated_weibull_variable():
    y, loc, log_scale, skew = arguments(1)
    G0 = np.exp(-skew)
    alpha = -np.log(2.0) / np.log(-np.expm1(-G0))
    # The median of b is exp(loc), and dy/dnoise = exp(log_scale) there settles k.
    k = stats.norm.pdf(0.0) / np.exp(log_scale) / (0.5 * alpha * G0 / np.expm1(G0))
    scipy_density = stats.exponweib.logpdf(np.exp(y), alpha, k, scale=np.exp(loc - np.log(G0) / k)) + y
    np.testing.assert_allclose(densities.log_density(y, loc, log_scale, skew), scipy_density, rtol=1e-9)


@pytest.mark.parametrize("shape", [1.0, 2.0, 5.0, 20.0])
def test_log_gamma_densities_are_within_a_ten_thousandth_of_a_nat(shape):
    # The posterior of a branch is nearly Gamma; the best density of the family must be nearly it, tails too.
    y = np.linspace(-25.0, 5.0, 20_001) / np.sqrt(shape) + np.log(shape)
    target = stats.loggamma.logpdf(y, shape)
    weight = np.exp(target) * (y[1] - y[0])

    def divergence(parameters):
        return float(weight @ (target - densities.log_density(y, *map(np.float64, parameters))))

    start = [np.log(shape), -0.5 * np.log(shape), 0.5]
    best = optimize.minimize(divergence, start, method="Nelder-Mead", options={"fatol": 1e-9, "maxiter": 999})
    assert best.fun < 2e-4
    log_ratio = target - densities.log_density(y, *best.x)
    assert weight @ np.exp(log_ratio) - 1.0 < 1e-3  # the relative variance of importance weights


def test_positive_skew_lengthens_the_lower_tail():
    noise = np.array([-2.0, 0.0, 2.0])
    low, middle, high = densities.transform(noise, np.zeros(3), np.zeros(3), np.full(3, 0.5))
    assert middle - low > high - middle > 0


def test_inverse_returns_the_noise_also_in_far_tails():
    noise = np.array([-40.0, -3.0, -1e-9, 0.0, 0.2, 4.0, 7.0])
    for skew in (-1.5, 0.0, 2.5):
        parameters = np.full(7, -3.5), np.full(7, -1.0), np.full(7, skew)
        y = densities.transform(noise, *parameters)
        # The rounding of y is magnified by how far G reaches on the right.
        np.testing.assert_allclose(densities.inverse(y, *parameters), noise, rtol=1e-9, atol=1e-9)


def test_tails_fall_off_exponentially_on_the_left_and_doubly_so_on_the_right():
    parameters = np.zeros(1), np.zeros(1), np.full(1, 0.5)
    left = densities.log_density(np.array([-400.0, -300.0, -200.0]), *parameters)
    assert np.diff(left)[0] == pytest.approx(np.diff(left)[1], rel=1e-12)
    assert np.diff(left)[0] > 0
    right = -densities.log_density(np.array([10.0, 11.0, 12.0]), *parameters)
    assert right[2] / right[1] == pytest.approx(right[1] / right[0], rel=1e-3)
    assert np.isfinite(left).all()


def test_gradcheck_of_the_torch_density():
    tensors = tuple(torch.tensor(a, requires_grad=True) for a in arguments(4, size=5))
    assert torch.autograd.gradcheck(densities.log_density, tensors)


def test_derivatives_integrate_to_zero():
    # E_q[d log q / d parameter] = 0 for every parameter: a closed form independent of finite differences.
    noise = torch.linspace(-10.0, 10.0, 4001, dtype=torch.float64)
    for parameters in CASES:
        tensors = [torch.full_like(noise, p).requires_grad_() for p in parameters]
        y = densities.transform(noise, *tensors).detach()
        densities.log_density(y, *tensors).sum().backward()
        for name, tensor in zip(("loc", "log_scale", "skew"), tensors, strict=True):
            mean = integrate.trapezoid(stats.norm.pdf(noise.numpy()) * tensor.grad.numpy(), noise.numpy())
            assert abs(mean) < 1e-10, name


def test_numpy_and_torch_agree():
    numpy_arguments = arguments(5)
    found = densities.log_density(*(torch.tensor(a) for a in numpy_arguments)).numpy()
    np.testing.assert_allclose(found, densities.log_density(*numpy_arguments), rtol=1e-13)
