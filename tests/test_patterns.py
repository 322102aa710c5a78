"""Compression keeps the columns; merging of relabelled patterns agrees with brute force over permutations."""

from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vbpi_mix.alignment import Alignment
from vbpi_mix.datasets import load_dataset
from vbpi_mix.patterns import SitePatterns, compress


def _alignment(states: np.ndarray) -> Alignment:
    return Alignment(tuple(f"t{i}" for i in range(len(states))), states.astype(np.uint8), "made up")


def _columns(states: np.ndarray) -> list[tuple[int, ...]]:
    return [tuple(column) for column in states.T.tolist()]


def _counts(patterns: SitePatterns) -> dict[tuple[int, ...], float]:
    return dict(zip(_columns(patterns.states), patterns.weights.tolist(), strict=True))


def _relabel(mask: int, order: tuple[int, ...]) -> int:
    """Set of the nucleotides that ``order`` makes of the members of a set."""
    return sum(1 << order[state] for state in range(4) if mask >> state & 1)


def _brute_force_class(column: tuple[int, ...]) -> frozenset:
    """All columns that a permutation of the nucleotides makes of a column."""
    return frozenset(tuple(_relabel(mask, order) for mask in column) for order in permutations(range(4)))


random_states = st.tuples(
    st.integers(4, 9), st.integers(1, 40), st.integers(0, 2**32), st.sampled_from([3, 16])
).map(lambda a: np.random.default_rng(a[2]).integers(1, a[3], (a[0], a[1]), dtype=np.uint8))
"""Small alignments: with few states columns repeat; with all fifteen they have every ambiguity."""


@settings(max_examples=60, deadline=None, derandomize=True)
@given(states=random_states)
def test_weights_expand_to_the_multiset_of_columns(states):
    patterns = compress(_alignment(states))
    assert _counts(patterns) == Counter(_columns(states))
    assert _columns(patterns.states) == list(dict.fromkeys(_columns(states)))  # in order of first occurrence
    assert patterns.weights.dtype == np.float64
    assert patterns.states.flags.c_contiguous
    assert patterns.num_sites == states.shape[1]
    assert patterns.num_patterns == patterns.states.shape[1]


@settings(max_examples=30, deadline=None, derandomize=True)
@given(states=random_states, seed=st.integers(0, 2**32))
def test_order_of_taxa_and_sites_changes_only_the_order(states, seed):
    generator = np.random.default_rng(seed)
    taxon_order, site_order = generator.permutation(states.shape[0]), generator.permutation(states.shape[1])
    original = compress(_alignment(states))
    shuffled = compress(_alignment(states[np.ix_(taxon_order, site_order)]))
    restored = np.empty_like(shuffled.states)
    restored[taxon_order] = shuffled.states
    assert dict(zip(_columns(restored), shuffled.weights.tolist(), strict=True)) == _counts(original)
    assert shuffled.merge_relabelled().num_patterns == original.merge_relabelled().num_patterns


@settings(max_examples=60, deadline=None, derandomize=True)
@given(states=random_states)
def test_relabelled_patterns_agree_with_brute_force(states):
    merged = compress(_alignment(states)).merge_relabelled()
    expected = Counter(_brute_force_class(column) for column in _columns(states))
    assert {_brute_force_class(column): weight for column, weight in _counts(merged).items()} == expected
    assert merged.num_patterns == len(expected)
    first_of_class = {_brute_force_class(column): column for column in reversed(_columns(states))}
    assert set(_columns(merged.states)) == set(first_of_class.values())


def test_hand_worked_case():
    #                    AAAA CCCC AACC GGTT TTGG -??A -C?? all missing
    states = np.array([[1, 2, 1, 4, 8, 15, 15, 15],
                       [1, 2, 1, 4, 8, 15, 2, 15],
                       [1, 2, 2, 8, 4, 15, 15, 15],
                       [1, 2, 2, 8, 4, 1, 15, 15]])  # fmt: skip
    patterns = compress(_alignment(np.hstack([states, states[:, :3]])))
    np.testing.assert_array_equal(patterns.states, states)
    np.testing.assert_array_equal(patterns.weights, [2, 2, 2, 1, 1, 1, 1, 1])
    merged = patterns.merge_relabelled()
    np.testing.assert_array_equal(merged.states, states[:, [0, 2, 5, 6, 7]])
    np.testing.assert_array_equal(merged.weights, [4, 4, 1, 1, 1])


def test_merging_twice_changes_nothing():
    merged = compress(load_dataset("DS5")).merge_relabelled()
    again = merged.merge_relabelled()
    np.testing.assert_array_equal(again.states, merged.states)
    np.testing.assert_array_equal(again.weights, merged.weights)


def test_relabelling_every_site_of_a_dataset_changes_no_count():
    alignment = load_dataset("DS1")
    table = np.array([_relabel(mask, (2, 0, 3, 1)) for mask in range(16)], dtype=np.uint8)
    merged = compress(alignment).merge_relabelled()
    relabelled = compress(_alignment(table[alignment.states])).merge_relabelled()
    np.testing.assert_array_equal(relabelled.weights, merged.weights)
    assert merged.num_sites == alignment.num_sites


@pytest.mark.parametrize("num_taxa", [4, 8, 9, 130])
def test_one_site(num_taxa):
    patterns = compress(_alignment(np.full((num_taxa, 1), 4)))
    assert (patterns.num_taxa, patterns.num_patterns) == (num_taxa, 1)
    np.testing.assert_array_equal(patterns.merge_relabelled().weights, [1.0])


def test_many_sites():
    generator = np.random.default_rng(3)
    distinct = 1 << generator.integers(0, 4, (100, 500))
    columns = np.concatenate([np.arange(500), generator.integers(0, 500, 19_500)])
    patterns = compress(_alignment(distinct[:, columns]))
    np.testing.assert_array_equal(patterns.states, distinct)
    np.testing.assert_array_equal(patterns.weights, np.bincount(columns))
