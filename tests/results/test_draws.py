import dataclasses

import numpy as np
import pytest


@pytest.fixture(scope="module")
def draws(make_toy):
    return make_toy().draw(400, np.random.default_rng(1))


def test_by_component_keeps_each_components_draws_in_their_order(draws):
    rows = draws.by_component(draws.log_weights)
    assert rows.shape == (2, 200)
    for a in range(2):
        np.testing.assert_array_equal(rows[a], draws.log_weights[draws.component == a])


def test_draws_that_are_not_stratified_are_refused(draws):
    component = draws.component.copy()
    component[0] = 1 - component[0]
    with pytest.raises(ValueError, match=r"same number of draws from every component, got \[199, 201\]"):
        dataclasses.replace(draws, component=component)


def test_a_topology_without_draws_is_refused(draws):
    with pytest.raises(ValueError, match="1 do not occur"):
        dataclasses.replace(
            draws,
            topologies=np.concatenate([draws.topologies, draws.topologies[:1]]),
            log_q=np.append(draws.log_q, -1.0),
        )


def test_weights_that_are_not_finite_are_refused(draws):
    log_weights = draws.log_weights.copy()
    log_weights[3] = np.nan
    with pytest.raises(ValueError, match="log_weights to be finite, got 1 values"):
        dataclasses.replace(draws, log_weights=log_weights)


def test_branch_lengths_of_another_number_of_taxa_are_refused(draws):
    with pytest.raises(ValueError, match="4 internal nodes and 9 branch lengths for 6 taxa, got 4 and 8"):
        dataclasses.replace(draws, branch_lengths=draws.branch_lengths[:, :8])
