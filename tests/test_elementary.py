"""Elementary functions of compiled loops against the standard library's."""

import math

import numpy as np

from vbpi_mix._elementary import exp, exp_and_complement, log, minus_log


def test_exp():
    for x in np.random.default_rng(0).uniform(-690, 690, 2000):
        assert math.isclose(exp(x), math.exp(x), rel_tol=5e-16)
    assert exp(0.0) == 1.0
    assert (exp(-np.inf), exp(np.inf)) == (exp(-700.0), exp(700.0))
    assert math.isnan(exp(np.nan))


def test_log():
    rng = np.random.default_rng(0)
    for x in np.concatenate([np.exp(rng.uniform(-690, 690, 2000)), 1 + 1e-3 * rng.normal(size=500)]):
        assert math.isclose(log(x), math.log(x), rel_tol=5e-16), x
    assert [log(x) for x in (1.0, 2.0, 0.5)] == [0.0, math.log(2.0), -math.log(2.0)]
    assert math.isnan(log(np.nan))


def test_exp_and_complement():
    for x in np.exp(np.random.default_rng(0).uniform(-30, 6, 2000)):
        u, v = exp_and_complement(x)
        assert math.isclose(u, math.exp(-x), rel_tol=5e-16)
        assert math.isclose(v, -math.expm1(-x), rel_tol=5e-16), x
    assert exp_and_complement(0.0) == (1.0, 0.0)
    assert exp_and_complement(np.inf) == exp_and_complement(700.0)
    assert np.isnan(exp_and_complement(np.nan)).all()


def test_minus_log():
    for x in np.exp(np.random.default_rng(0).uniform(-36, 4, 2000)):
        u, v = exp_and_complement(x)
        expected = -math.log(-math.expm1(-x)) if x < math.log(2.0) else -math.log1p(-math.exp(-x))
        assert math.isclose(minus_log(v, u), expected, rel_tol=1e-15), x
    assert minus_log(1.0, 0.0) == 0.0
    assert math.isnan(minus_log(np.nan, np.nan))
