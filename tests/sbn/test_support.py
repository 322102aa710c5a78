"""The support's tables against its definition as sets."""

import numpy as np
import pytest

from vbpi_mix.errors import OutOfSupportError
from vbpi_mix.sbn.reference import parameter_names, rooted_versions
from vbpi_mix.sbn.support import build_support
from vbpi_mix.trees.topology import random_topologies


def taxa(n):
    return tuple(f"t{i}" for i in range(n))


@pytest.mark.parametrize(("num_taxa", "num_trees"), [(4, 1), (5, 3), (8, 6), (70, 2)])
def test_parameters_are_the_rootsplits_and_pcsps_of_all_rootings(num_taxa, num_trees):
    children = random_topologies(num_taxa, num_trees, np.random.default_rng(num_taxa))
    expected = set()
    for tree in children:
        for rootsplit, pcsps in rooted_versions(tree):
            expected.add(rootsplit)
            expected.update(pcsps)
    names = parameter_names(build_support(children, taxa(num_taxa)))
    assert len(names) == len(set(names))
    assert set(names) == expected


def test_children_of_a_parent_split_the_parents_focal_clade():
    support = build_support(random_topologies(9, 20, np.random.default_rng(1)), taxa(9))
    for name in parameter_names(support)[support.num_splits :]:
        sister, focal, parts = name
        assert frozenset().union(*parts) == focal
        assert not sister & focal


def test_repeated_and_reordered_topologies_give_the_same_support():
    children = random_topologies(10, 8, np.random.default_rng(2))
    once = build_support(children, taxa(10))
    again = build_support(np.concatenate([children[::-1], children[2:5]]), taxa(10))
    for name in ("masks", "tripartitions", "parent_start", "parent_clades", "parameter_subsplit"):
        np.testing.assert_array_equal(getattr(once, name), getattr(again, name))


def test_branch_features_are_splits_and_the_subsplits_on_both_sides():
    children = random_topologies(7, 3, np.random.default_rng(3))
    support = build_support(children, taxa(7))
    index = support.index(children, with_psp=True)
    dummy = support.num_splits + support.num_subsplits
    assert (index.feature_index[:, :7, 1] == dummy).all()  # below a pendant branch there is nothing to split
    assert (index.feature_index[:, 7:] < dummy).all()
    for t in range(3):
        for e in range(11):
            for side, row in enumerate(index.feature_index[t, e, 1:]):
                if row < dummy:
                    tripartition, k = divmod(row - support.num_splits, 3)
                    focal = support.tripartitions[tripartition, k] ^ 1
                    assert focal == 2 * index.feature_index[t, e, 0] + side
    without = support.index(children, with_psp=False)
    np.testing.assert_array_equal(without.feature_index[:, :, 0], index.feature_index[:, :, 0])
    assert (without.feature_index[:, :, 1:] == support.num_splits).all()


def test_errors_say_what_was_expected():
    with pytest.raises(OutOfSupportError, match="at least one topology"):
        build_support(np.empty((0, 3, 2), np.int32), taxa(5))
    with pytest.raises(ValueError, match="expected topologies of 6"):
        build_support(random_topologies(5, 1, np.random.default_rng(0)), taxa(6))
