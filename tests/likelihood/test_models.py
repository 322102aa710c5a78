import numpy as np
import pytest
from scipy.linalg import expm
from scipy.stats import gamma

from vbpi_mix.likelihood.models import SubstitutionModel, discrete_gamma_rates, gtr, jc69

FREQUENCIES = np.array([0.1, 0.2, 0.3, 0.4])
EXCHANGEABILITIES = np.array([1.0, 2.5, 0.7, 0.4, 3.1, 1.3])


def test_rate_matrix_by_hand():
    rates = gtr(FREQUENCIES, EXCHANGEABILITIES).rate_matrix()
    # AC exchangeability times the frequency of C over AG exchangeability times the frequency of G
    assert rates[0, 1] / rates[0, 2] == pytest.approx(1.0 * 0.2 / (2.5 * 0.3), rel=1e-14)
    assert rates[3, 2] / rates[3, 0] == pytest.approx(1.3 * 0.3 / (0.7 * 0.1), rel=1e-14)
    np.testing.assert_allclose(rates.sum(1), 0.0, atol=1e-15)
    assert -(FREQUENCIES @ np.diag(rates)) == pytest.approx(1.0, rel=1e-14)


def test_process_is_reversible():
    flow = FREQUENCIES[:, None] * gtr(FREQUENCIES, EXCHANGEABILITIES).rate_matrix()
    np.testing.assert_allclose(flow, flow.T, rtol=1e-13)


def test_eigen_system_reconstructs_rate_matrix():
    model = gtr(FREQUENCIES, EXCHANGEABILITIES)
    values, right, left = model.eigen_system()
    np.testing.assert_allclose(right @ np.diag(values) @ left, model.rate_matrix(), atol=1e-14)
    np.testing.assert_allclose(left @ right, np.eye(4), atol=1e-14)
    assert values[-1] == 0.0
    assert (values[:-1] < 0.0).all()


def test_transition_matrices_are_matrix_exponentials(uneven_model):
    lengths = np.array([[0.0, 1e-9, 0.1], [0.7, 3.0, 50.0]])
    transitions = uneven_model.transition_matrices(lengths)
    rates = uneven_model.rate_matrix()
    for index in np.ndindex(lengths.shape):
        for category, rate in enumerate(uneven_model.category_rates):
            expected = expm(rates * rate * lengths[index])
            np.testing.assert_allclose(transitions[(*index, category)], expected, rtol=1e-11, atol=1e-20)


def test_short_branches_keep_relative_accuracy():
    length = 1e-12
    transitions = gtr(FREQUENCIES, EXCHANGEABILITIES).transition_matrices(np.array(length))[0]
    off_diagonal = ~np.eye(4, dtype=bool)
    expected = gtr(FREQUENCIES, EXCHANGEABILITIES).rate_matrix() * length
    # to first order in t; the next term is t times smaller
    np.testing.assert_allclose(transitions[off_diagonal], expected[off_diagonal], rtol=1e-10)


def test_jc69_closed_form():
    transitions = jc69().transition_matrices(np.array(0.3))[0]
    decay = np.exp(-4.0 / 3.0 * 0.3)
    np.testing.assert_allclose(transitions, decay * np.eye(4) + (1.0 - decay) / 4.0, rtol=1e-14)


def test_category_rates_are_scaled_to_mean_one():
    model = gtr(FREQUENCIES, EXCHANGEABILITIES, np.array([0.0, 2.0, 6.0]), np.array([0.5, 0.3, 0.2]))
    np.testing.assert_allclose(model.category_rates, np.array([0.0, 2.0, 6.0]) / 1.8, rtol=1e-15)


def test_only_jc69_is_jc69(uneven_model):
    assert jc69().is_jc69
    assert gtr(np.full(4, 0.25), np.full(6, 7.0)).is_jc69
    assert not uneven_model.is_jc69
    assert not gtr(FREQUENCIES, np.ones(6)).is_jc69
    assert not gtr(np.full(4, 0.25), EXCHANGEABILITIES).is_jc69
    assert not gtr(np.full(4, 0.25), np.ones(6), np.array([0.5, 1.5])).is_jc69


@pytest.mark.parametrize("shape", [0.05, 0.5, 2.0, 50.0])
def test_discrete_gamma_rates_by_quadrature(shape):
    rates = discrete_gamma_rates(shape, 4)
    assert rates.mean() == pytest.approx(1.0, rel=1e-12)
    distribution = gamma(shape, scale=1.0 / shape)
    for category in range(1, 4):  # the first has a singular integrand for small shapes
        low, high = distribution.ppf([category / 4, (category + 1) / 4])
        mean = 4 * distribution.expect(lambda rate: rate, lb=low, ub=high, epsabs=1e-12)
        assert rates[category] == pytest.approx(mean, rel=1e-7)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"frequencies": np.array([0.1, 0.2, 0.3, 0.5])}, "frequencies must sum to one, their sum is 1.1"),
        ({"frequencies": np.array([0.0, 0.2, 0.4, 0.4])}, "frequencies must be finite and positive"),
        (
            {"exchangeabilities": np.array([1.0, -1, 1, 1, 1, 1])},
            "exchangeabilities must be finite and positive",
        ),
        ({"category_rates": np.array([1.0, -1.0])}, "category_rates must be finite and not negative"),
        ({"category_rates": np.zeros(2)}, "At least one of category_rates must be positive"),
        ({"category_weights": np.array([0.5, 0.6])}, "category_weights must sum to one"),
    ],
)
def test_bad_parameters_are_refused(changed, message):
    parameters = {
        "frequencies": FREQUENCIES,
        "exchangeabilities": EXCHANGEABILITIES,
        "category_rates": np.array([0.5, 1.5]),
        "category_weights": np.array([0.5, 0.5]),
    }
    with pytest.raises(ValueError, match=message):
        SubstitutionModel(**(parameters | changed))


def test_bad_gamma_is_refused():
    with pytest.raises(ValueError, match="shape must be positive and finite, got 0"):
        discrete_gamma_rates(0.0, 4)
    with pytest.raises(ValueError, match="at least one category, got 0"):
        discrete_gamma_rates(0.5, 0)
