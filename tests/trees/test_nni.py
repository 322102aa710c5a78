import numpy as np
import pytest

from vbpi_mix.trees.nni import interchange, neighbour_trees
from vbpi_mix.trees.topology import clade_masks, nni_neighbours, random_topologies, validate


def split_lengths(children, lengths):
    """Length of every split, by the taxa on the side without the last one."""
    masks = clade_masks(children[None])[0]
    return {mask.tobytes(): length for mask, length in zip(masks, lengths, strict=True)}


@pytest.mark.parametrize("num_taxa", [4, 5, 12, 70])
def test_neighbours_keep_the_lengths_of_the_splits_that_stay(num_taxa):
    rng = np.random.default_rng(num_taxa)
    children = random_topologies(num_taxa, 1, rng)[0]
    lengths = rng.random(2 * num_taxa - 3)
    neighbours, neighbour_lengths = neighbour_trees(children, lengths)
    np.testing.assert_array_equal(neighbours, nni_neighbours(children))
    before = split_lengths(children, lengths)
    for tree, tree_lengths in zip(neighbours, neighbour_lengths, strict=True):
        after = split_lengths(tree, tree_lengths)
        (gone,), (new,) = before.keys() - after.keys(), after.keys() - before.keys()
        assert after[new] == before[gone]
        assert {k: v for k, v in after.items() if k != new} == {k: v for k, v in before.items() if k != gone}


def test_one_interchange_is_a_neighbour():
    rng = np.random.default_rng(0)
    children, lengths = random_topologies(9, 1, rng)[0], rng.random(15)
    neighbours, neighbour_lengths = neighbour_trees(children, lengths)
    for number in range(len(neighbours)):
        tree, tree_lengths = interchange(children, lengths, np.array([number]))
        np.testing.assert_array_equal(tree, neighbours[number])
        np.testing.assert_array_equal(tree_lengths, neighbour_lengths[number])


def test_interchanges_that_do_not_touch_are_made_together_and_others_left_out():
    rng = np.random.default_rng(1)
    children, lengths = random_topologies(30, 1, rng)[0], rng.random(57)
    chosen = rng.permutation(54)
    together, together_lengths = interchange(children, lengths, chosen)
    validate(together[None])
    before, after = split_lengths(children, lengths), split_lengths(together, together_lengths)
    assert sorted(after.values()) == pytest.approx(sorted(before.values()))
    num_made = len(before.keys() - after.keys())
    assert num_made > 1
    # The same by hand, from the top of the list, with the inner branches' nodes kept apart.
    inner = [(u, s, j) for u in range(28) for s in range(2) if children[u, s] >= 30 for j in range(2)]
    used, kept = set(), []
    for number in chosen:
        upper, side, _ = inner[number]
        nodes = {upper, int(children[upper, side]) - 30}
        if not nodes & used:
            used |= nodes
            kept.append(number)
    assert len(kept) == num_made
    again, _ = interchange(children, lengths, np.array(kept[::-1]))
    np.testing.assert_array_equal(again, together)
