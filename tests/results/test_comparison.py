import numpy as np
import pytest

from vbpi_mix.results import comparison
from vbpi_mix.trees.summaries import split_table
from vbpi_mix.trees.topology import topologies_from_choices


def five_taxa():
    """The 15 unrooted topologies of five taxa."""
    return topologies_from_choices(np.array([(i, j) for i in range(3) for j in range(5)], dtype=np.int64))


def test_hand_worked_agreement():
    # Reference (.5, .3, .2); q has .4, .1, nothing on them and .5 elsewhere.
    result = comparison.agreement(
        np.array([5.0, 3.0, 2.0]), np.array([np.log(0.4), np.log(0.1), -np.inf]), mass_elsewhere=0.5
    )
    assert result.coverage == pytest.approx(0.8)
    assert result.kl == pytest.approx(5 / 8 * np.log((5 / 8) / 0.4) + 3 / 8 * np.log((3 / 8) / 0.1))
    assert result.total_variation == pytest.approx(0.5 * (0.1 + 0.2 + 0.2 + 0.5))


def test_exact_comparison_counts_what_q_holds_outside_the_reference():
    result = comparison.compare_exact(np.array([0.6, 0.4]), np.log([0.3, 0.2]))
    assert result.coverage == 1.0
    assert result.total_variation == pytest.approx(0.5 * (0.3 + 0.2 + 0.5))
    assert result.kl == pytest.approx(np.log(2))


def test_equal_distributions_agree():
    p = np.random.default_rng(0).dirichlet(np.ones(15))
    result = comparison.compare_exact(p, np.log(p))
    assert result.total_variation == pytest.approx(0.0, abs=1e-12)
    assert result.kl == pytest.approx(0.0, abs=1e-12)


def test_disjoint_distributions_are_as_far_apart_as_can_be():
    topologies = five_taxa()
    result = comparison.compare_drawn(topologies[:5], np.ones(5), topologies[5:], np.full(10, -np.log(10)))
    assert result.coverage == 0.0
    assert result.kl is None
    assert result.total_variation == pytest.approx(1.0)


def test_comparison_on_drawn_topologies_agrees_with_the_definition_on_all():
    rng = np.random.default_rng(3)
    topologies = five_taxa()
    p, q = rng.dirichlet(np.ones(15)), rng.dirichlet(np.ones(15))
    in_p, in_q = rng.permutation(15)[:9], rng.permutation(15)[:11]
    full_p, full_q = np.zeros(15), np.zeros(15)
    full_p[in_p], full_q[in_q] = p[in_p] / p[in_p].sum(), q[in_q] / q[in_q].sum()
    result = comparison.compare_drawn(topologies[in_p], p[in_p], topologies[in_q], np.log(full_q[in_q]))
    assert result.total_variation == pytest.approx(0.5 * np.abs(full_p - full_q).sum())
    assert result.coverage == pytest.approx(full_p[full_q > 0].sum())


def test_a_reference_without_mass_is_refused():
    with pytest.raises(ValueError, match="positive sum, got a least weight of 0 and a sum of 0"):
        comparison.compare_exact(np.zeros(2), np.log([0.5, 0.5]))


def test_split_comparison_by_hand():
    topologies = five_taxa()
    uniform = split_table(topologies, np.ones(15))
    single = split_table(topologies[:1], np.ones(1))
    result = comparison.compare_splits(uniform, single)
    # Three of the 15 topologies have a given pair as a cherry, so each of the ten splits has .2 in the first.
    # The two splits of the single tree differ by .8 each, the other eight by .2.
    assert result.num_splits == 10
    assert result.maximum == pytest.approx(0.8)
    assert result.mean == pytest.approx((2 * 0.8 + 8 * 0.2) / 10)
    assert comparison.compare_splits(uniform, single, minimum=0.5).num_splits == 2
    assert comparison.compare_splits(uniform, uniform, minimum=0.5).num_splits == 0
