"""Elementary functions of compiled loops against the standard library's."""

import math

import numpy as np

from vbpi_mix._elementary import exp, log


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
