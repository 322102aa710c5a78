"""The parameter table of the compiled engine."""

import numpy as np
import pytest

from vbpi_mix.branches.network import BranchDensity, BranchFeatures, BranchParameters


def test_every_branch_starts_at_the_initial_values_whatever_its_psps():
    parameters = BranchParameters.initial(num_components=2, num_splits=4, num_psps=6)
    features = np.array([[[0, 4, 9], [3, 10, 5]]], dtype=np.int32)
    values = parameters.branch_parameters(features)
    np.testing.assert_array_equal(values, np.broadcast_to([-3.5, -1.0, 0.0], (2, 1, 2, 3)))
    assert (parameters.num_components, parameters.num_features, parameters.is_skewed) == (2, 10, True)


def test_split_model_has_no_psp_rows():
    parameters = BranchParameters.initial(1, 4, 6, BranchFeatures.SPLIT, BranchDensity.LOGNORMAL)
    assert parameters.table.shape == (1, 5, 3)
    assert not parameters.is_skewed


def test_rows_are_summed():
    table = np.arange(12.0).reshape(1, 4, 3)
    table[:, -1] = 0.0
    parameters = BranchParameters(table, BranchFeatures.PSP, BranchDensity.SKEWED)
    values = parameters.branch_parameters(np.array([[[0, 2, 3]]], dtype=np.int32))
    np.testing.assert_array_equal(values[0, 0, 0], [0 + 6, 1 + 7, 2 + 8])


def test_components_are_side_by_side_in_memory():
    table = np.arange(24.0).reshape(2, 4, 3)
    table[:, -1] = 0.0
    parameters = BranchParameters(table, BranchFeatures.PSP, BranchDensity.SKEWED)
    np.testing.assert_array_equal(parameters.table, table)
    for of_either_order in (parameters, BranchParameters.initial(2, 4, 6)):
        assert of_either_order.by_feature.flags.c_contiguous
        assert np.shares_memory(of_either_order.by_feature, of_either_order.table)


def test_features_of_another_support_are_refused():
    parameters = BranchParameters.initial(1, 4, 6)
    with pytest.raises(ValueError, match=r"expected features 0 \.\. 10 .* got 0 \.\. 11"):
        parameters.branch_parameters(np.array([[[0, 11, 10]]], dtype=np.int32))


def test_bad_tables_are_refused():
    table = np.zeros((1, 4, 3))
    table[0, 1, 2] = 0.1
    with pytest.raises(ValueError, match="zero skew column"):
        BranchParameters(table, BranchFeatures.PSP, BranchDensity.LOGNORMAL)
    table[0, 3, 0] = 0.1
    with pytest.raises(ValueError, match="dummy"):
        BranchParameters(table, BranchFeatures.PSP, BranchDensity.SKEWED)


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match="got 0 components, 4 splits, 6 PSPs"):
        BranchParameters.initial(0, 4, 6)
