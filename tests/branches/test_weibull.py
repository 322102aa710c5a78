"""Compiled functions of one branch against scipy and against each other."""

import numpy as np
import pytest
from scipy.special import log_ndtr

from vbpi_mix.branches import _weibull, densities

SKEWS = [-6.0, -2.0, -0.3, 0.0, 0.7, 3.0, 12.0]


@pytest.mark.parametrize("skew", SKEWS)
def test_noise_is_recovered(skew):
    for noise in np.linspace(-8.0, 8.0, 321):
        surprise = _weibull.surprise_of_step(
            _weibull.step_of_surprise(_weibull.surprise_of_noise(noise), skew), skew
        )
        assert _weibull.noise_of_surprise(surprise) == pytest.approx(noise, rel=0, abs=1e-9)


@pytest.mark.parametrize("skew", SKEWS)
def test_noise_is_that_of_the_reference(skew):
    steps = np.linspace(-40.0, 10.0, 401)
    expected = densities.inverse(steps, np.zeros(401), np.zeros(401), np.full(401, skew))
    surprises = [_weibull.surprise_of_step(step, skew) for step in steps]
    got = np.array([_weibull.noise_of_surprise(surprise) for surprise in surprises])
    is_far = np.abs(expected) > 36.0  # the reference has no right tail there
    np.testing.assert_allclose(got[~is_far], expected[~is_far], rtol=1e-9, atol=1e-9)
    assert np.isfinite(got).all()
    assert (np.diff(got) >= 0.0).all()


def test_distance_of_a_tail():
    distance = np.linspace(0.0, 38.0, 5_000)
    got = [_weibull._distance_of_tail(-log_tail) for log_tail in log_ndtr(-distance)]
    np.testing.assert_allclose(got, distance, rtol=1e-11, atol=1e-11)
    far = np.linspace(38.0, 2000.0, 500)
    got = [_weibull._distance_of_tail(-log_tail) for log_tail in log_ndtr(-far)]
    np.testing.assert_allclose(got, far, rtol=1e-6)


def test_no_surprise_is_a_draw_far_to_the_right():
    assert _weibull.noise_of_surprise(0.0) == pytest.approx(37.0, abs=0.1)
