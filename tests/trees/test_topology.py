import numpy as np
import pytest

from vbpi_mix.trees.topology import (
    Tree,
    canonicalise,
    canonicalise_with_lengths,
    clade_masks,
    nni_neighbours,
    parents,
    random_topologies,
    topologies_from_choices,
    unique_topologies,
    validate,
)


def leaves_below(children, node):
    """Leaves below a node by the plain recursive definition."""
    num_taxa = len(children) + 2
    if node < num_taxa:
        return frozenset([int(node)])
    first, second = children[node - num_taxa]
    return leaves_below(children, first) | leaves_below(children, second)


def inner_splits(children):
    """Non-trivial splits, each as its side without the last leaf; they define the topology."""
    num_taxa = len(children) + 2
    return frozenset(leaves_below(children, v) for v in range(num_taxa, 2 * num_taxa - 3))


def relabelled(children, rng):
    """The same topology with children swapped and inner nodes renumbered at random, and the new numbers."""
    num_taxa = len(children) + 2
    new = np.arange(2 * num_taxa - 2)
    placed, rows = set(range(num_taxa)), []
    waiting = set(range(num_taxa, 2 * num_taxa - 2))
    while waiting:
        ready = sorted(v for v in waiting if set(children[v - num_taxa].tolist()) <= placed)
        node = int(rng.choice(ready))
        new[node] = num_taxa + len(rows)
        rows.append(rng.permutation(new[children[node - num_taxa]]))
        placed.add(node)
        waiting.remove(node)
    return np.array(rows, np.int32), new


@pytest.mark.parametrize("num_taxa", [3, 4, 5, 9, 70])
def test_canonical_form_is_the_same_for_every_numbering(num_taxa):
    rng = np.random.default_rng(num_taxa)
    for tree in random_topologies(num_taxa, 20, rng):
        other, new = relabelled(tree, rng)
        validate(other[None])
        np.testing.assert_array_equal(canonicalise(other[None])[0], tree)
        lengths = rng.exponential(size=2 * num_taxa - 3)
        moved = np.empty_like(lengths)
        moved[new[: 2 * num_taxa - 3]] = lengths
        again, back = canonicalise_with_lengths(other[None], moved[None])
        np.testing.assert_array_equal(again[0], tree)
        np.testing.assert_array_equal(back[0], lengths)


def test_canonical_form_follows_its_definition():
    for tree in random_topologies(8, 50, np.random.default_rng(1)):
        number = [8]

        def visit(node, tree=tree, number=number):
            if node < 8:
                return
            first, second = tree[node - 8]
            assert min(leaves_below(tree, first)) < min(leaves_below(tree, second))
            visit(first)
            visit(second)
            assert node == number[0]
            number[0] += 1

        visit(13)


@pytest.mark.parametrize("num_taxa", [3, 6, 64, 65, 130])
def test_clade_masks_hold_the_leaves_below(num_taxa):
    trees = random_topologies(num_taxa, 3, np.random.default_rng(0))
    masks = clade_masks(trees)
    assert masks.shape == (3, 2 * num_taxa - 3, -(-num_taxa // 64))
    for tree, mask in zip(trees, masks, strict=True):
        for edge in range(2 * num_taxa - 3):
            value = sum(int(word) << (64 * w) for w, word in enumerate(mask[edge]))
            assert value == sum(1 << leaf for leaf in leaves_below(tree, edge))


def test_parents_invert_children():
    trees = random_topologies(11, 4, np.random.default_rng(0))
    for tree, parent in zip(trees, parents(trees), strict=True):
        assert parent[10] == 19
        for i, pair in enumerate(tree):
            assert parent[pair[0]] == parent[pair[1]] == 11 + i


def test_unique_topologies_against_sets_of_splits():
    rng = np.random.default_rng(2)
    trees = random_topologies(5, 200, rng)
    shuffled = np.stack([relabelled(tree, rng)[0] for tree in trees])
    distinct, inverse, counts = unique_topologies(shuffled)
    keys = [inner_splits(tree) for tree in trees]
    assert [inner_splits(tree) for tree in distinct] == list(dict.fromkeys(keys))
    np.testing.assert_array_equal(distinct[inverse], trees)
    assert counts.tolist() == [keys.count(key) for key in dict.fromkeys(keys)]


def test_unique_topologies_of_no_tree():
    distinct, inverse, counts = unique_topologies(np.empty((0, 4, 2), np.int32))
    assert distinct.shape == (0, 4, 2)
    assert len(inverse) == len(counts) == 0


def test_random_topologies_are_uniform():
    # 105 topologies, 200 expected each: chi-square with 104 degrees of freedom, 0.999 quantile 154.3.
    _, _, counts = unique_topologies(random_topologies(6, 21_000, np.random.default_rng(3)))
    assert len(counts) == 105
    assert np.sum((counts - 200.0) ** 2 / 200.0) < 154.3


@pytest.mark.parametrize("num_taxa", [4, 5, 7, 10])
def test_nni_neighbours_differ_in_one_split(num_taxa):
    tree = random_topologies(num_taxa, 1, np.random.default_rng(num_taxa))[0]
    neighbours = nni_neighbours(tree)
    assert neighbours.shape == (2 * (num_taxa - 3), num_taxa - 2, 2)
    validate(neighbours)
    np.testing.assert_array_equal(canonicalise(neighbours), neighbours)
    assert len(unique_topologies(neighbours)[0]) == 2 * (num_taxa - 3)
    for neighbour in neighbours:
        assert len(inner_splits(tree) - inner_splits(neighbour)) == 1
    assert nni_neighbours(np.array([[0, 1]], np.int32)).shape == (0, 1, 2)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[0, 5], [1, 2]], "tree 1, node 4 of 4 taxa: expected children below 4"),
        ([[0, 1], [2, 3]], "node 5 of 4 taxa: expected children below 5, not negative and not 3"),
        ([[0, -1], [4, 2]], r"got \[0, -1\]"),
        ([[0, 0], [4, 2]], r"two different ones\), got \[0, 0\]"),
        ([[0, 1], [1, 4]], r"no earlier node has .* got \[1, 4\]"),
    ],
)
def test_validate_names_the_fault(rows, message):
    good = [[0, 1], [2, 4]]
    validate(np.array([good], np.int32))
    with pytest.raises(ValueError, match=message):
        validate(np.array([good, rows], np.int32))


def test_choices_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"below \[3, 5\]"):
        topologies_from_choices(np.array([[3, 0]]))
    with pytest.raises(ValueError, match="at least 3 taxa, got 2"):
        random_topologies(2, 1, np.random.default_rng(0))


def test_tree_checks_its_parts():
    children = np.array([[0, 1], [4, 2]], np.int32)
    Tree(("a", "b", "c", "d"), children, np.ones(5))
    with pytest.raises(ValueError, match="expected 4 taxa for 2 internal nodes, got 3"):
        Tree(("a", "b", "c"), children)
    with pytest.raises(ValueError, match="expected 5 branch lengths for 4 taxa, got 4"):
        Tree(("a", "b", "c", "d"), children, np.ones(4))


def test_deep_caterpillar():
    rows = [[0, 1]] + [[999 + k, k + 1] for k in range(1, 998)]
    caterpillar = np.array(rows, np.int32)
    validate(caterpillar[None])
    np.testing.assert_array_equal(canonicalise(caterpillar[None])[0], caterpillar)
