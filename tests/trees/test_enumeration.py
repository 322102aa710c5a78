import math

import numpy as np
import pytest

from vbpi_mix.trees.enumeration import all_topologies, log_num_topologies, num_topologies
from vbpi_mix.trees.topology import canonicalise, unique_topologies, validate


def test_counts():
    # (2n-5)!!: Felsenstein (1978), table of unrooted bifurcating trees.
    assert [num_topologies(n) for n in (3, 4, 5, 6, 7, 8, 9, 10)] == [
        1,
        3,
        15,
        105,
        945,
        10395,
        135135,
        2027025,
    ]
    for n in (3, 4, 9, 27, 100, 1000):
        # lgamma is good to a few units in the last place of terms near 1e4.
        assert log_num_topologies(n) == pytest.approx(math.log(num_topologies(n)), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("num_taxa", range(3, 10))
def test_all_topologies_are_distinct_and_canonical(num_taxa):
    trees = all_topologies(num_taxa)
    assert trees.shape == (num_topologies(num_taxa), num_taxa - 2, 2)
    validate(trees)
    np.testing.assert_array_equal(canonicalise(trees), trees)
    assert len(unique_topologies(trees)[0]) == len(trees)


def test_out_of_range():
    with pytest.raises(ValueError, match="at most 9 taxa to enumerate, got 10"):
        all_topologies(10)
    for function in (all_topologies, num_topologies, log_num_topologies):
        with pytest.raises(ValueError, match="at least 3 taxa, got 2"):
            function(2)
