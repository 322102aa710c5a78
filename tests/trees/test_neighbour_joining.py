import numpy as np
import pytest

from vbpi_mix.datasets import load_dataset
from vbpi_mix.patterns import SitePatterns, compress
from vbpi_mix.trees.neighbour_joining import (
    MAX_DISTANCE,
    bootstrap_topologies,
    jc69_distances,
    neighbour_joining,
)
from vbpi_mix.trees.newick import parse_newick
from vbpi_mix.trees.topology import (
    canonicalise_with_lengths,
    clade_masks,
    parents,
    random_topologies,
    unique_topologies,
    validate,
)


def path_lengths(children, lengths):
    """Sums of branch lengths between all leaves, by walking up from both to the top node."""
    num_taxa = len(children) + 2
    parent = parents(children[None])[0]
    routes = []
    for leaf in range(num_taxa):
        edge, route = leaf, set()
        while edge != 2 * num_taxa - 3:
            route.add(edge)
            edge = 2 * num_taxa - 3 if edge == num_taxa - 1 else parent[edge]
        routes.append(route)
    return np.array([[sum(lengths[e] for e in a ^ b) for b in routes] for a in routes], float)


def make_patterns(states, weights=None):
    states = np.array(states, np.uint8)
    weights = np.ones(states.shape[1]) if weights is None else np.array(weights, float)
    return SitePatterns(tuple(f"t{i}" for i in range(len(states))), states, weights)


@pytest.mark.parametrize("num_taxa", [3, 4, 5, 9, 23, 70])
def test_additive_distances_give_back_their_tree(num_taxa):
    rng = np.random.default_rng(num_taxa)
    for children in random_topologies(num_taxa, 20, rng):
        lengths = rng.exponential(0.1, 2 * num_taxa - 3) + 1e-3
        found, found_lengths = neighbour_joining(path_lengths(children, lengths))
        np.testing.assert_array_equal(found, children)
        np.testing.assert_allclose(found_lengths, lengths, atol=1e-12)


def test_four_taxa_by_hand():
    # Terminal branches 1, 2, 3, 4 and an inner branch of 5 between {0, 2} and {1, 3}.
    distances = np.array([[0, 8, 4, 10], [8, 0, 10, 6], [4, 10, 0, 12], [10, 6, 12, 0]], float)
    children, lengths = neighbour_joining(distances)
    assert children.tolist() == [[0, 2], [4, 1]]
    np.testing.assert_allclose(lengths, [1, 2, 3, 4, 5])


def test_the_order_of_taxa_makes_no_difference():
    patterns = compress(load_dataset("DS4"))
    distances = jc69_distances(patterns)
    distances += np.random.default_rng(1).random(distances.shape) * 1e-6  # no ties
    distances = distances + distances.T
    np.fill_diagonal(distances, 0.0)
    children, lengths = neighbour_joining(distances)
    order = np.random.default_rng(2).permutation(len(distances))
    shuffled, shuffled_lengths = neighbour_joining(distances[np.ix_(order, order)])
    # Splits by taxa of the first order, on the side without its last taxon, each with its length.
    np.testing.assert_allclose(
        path_lengths(shuffled, shuffled_lengths),
        path_lengths(children, lengths)[np.ix_(order, order)],
        atol=1e-9,
    )


@pytest.mark.parametrize("name", ["DS1", "DS3", "DS4"])
def test_trees_of_real_data_agree_with_dendropy(name):
    import dendropy

    patterns = compress(load_dataset(name))
    distances = jc69_distances(patterns)
    noise = np.random.default_rng(0).random(distances.shape) * 1e-6  # no ties
    distances += noise + noise.T
    np.fill_diagonal(distances, 0.0)
    names = [f"t{i}" for i in range(patterns.num_taxa)]
    text = "\n".join(
        [",".join(["", *names])]
        + [",".join([a, *(repr(float(v)) for v in row)]) for a, row in zip(names, distances, strict=True)]
    )
    import io

    matrix = dendropy.PhylogeneticDistanceMatrix.from_csv(io.StringIO(text))
    oracle = parse_newick(matrix.nj_tree().as_string("newick", suppress_rooting=True), names)
    children, lengths = neighbour_joining(distances)
    np.testing.assert_array_equal(children, oracle.children)
    assert oracle.branch_lengths is not None
    np.testing.assert_allclose(lengths, oracle.branch_lengths, atol=1e-7)


def test_distances_by_their_definition():
    # Fourteen sites; taxa 0 and 1 differ in four of the twelve at which neither is missing.
    a = [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 5, 15, 2]
    b = [1, 1, 1, 1, 1, 1, 1, 1, 2, 4, 8, 10, 4, 15]
    distances = jc69_distances(make_patterns([a, b, a]))
    assert distances[0, 1] == pytest.approx(-0.75 * np.log(1 - 4 / 3 * 4 / 12))
    assert distances[0, 2] == 0
    np.testing.assert_array_equal(distances, distances.T)


def test_ambiguous_nucleotides_differ_only_where_disjoint():
    distances = jc69_distances(make_patterns([[5, 5, 1, 1], [1, 5, 1, 1], [10, 1, 1, 1]]))
    assert distances[0, 1] == 0
    assert distances[0, 2] == pytest.approx(-0.75 * np.log(1 - 1 / 3))


def test_weights_count_patterns():
    patterns = make_patterns([[1, 1, 2], [1, 2, 2], [1, 4, 2]], [5, 2, 3])
    repeated = make_patterns(np.repeat(patterns.states, [5, 2, 3], axis=1))
    np.testing.assert_array_equal(jc69_distances(patterns), jc69_distances(repeated))
    np.testing.assert_array_equal(jc69_distances(patterns, np.array([5, 2, 3])), jc69_distances(patterns))


def test_saturated_distances_are_bounded():
    distances = jc69_distances(make_patterns([[1, 1, 1, 1], [2, 2, 2, 2], [1, 1, 1, 1]]))
    assert distances[0, 1] == pytest.approx(MAX_DISTANCE)


def test_taxa_that_cannot_be_compared_get_the_mean_of_what_both_are_apart():
    # Taxa 0 and 1 share no site; taxon 2 is 0 from taxon 0 and d from taxon 1; taxon 3 has no data.
    states = [[1, 1, 15, 15], [15, 15, 2, 1], [1, 1, 1, 1], [15, 15, 15, 15]]
    distances = jc69_distances(make_patterns(states))
    d = -0.75 * np.log(1 - 4 / 3 * 0.5)
    assert distances[1, 2] == pytest.approx(d)
    assert distances[0, 1] == pytest.approx(d / 2)
    assert distances[3, 1] == pytest.approx((d / 2 + d) / 2)  # d / 2 is the mean of all known ones
    assert np.isfinite(distances).all()
    assert (np.diag(distances) == 0).all()


def test_without_any_data_all_are_equally_far():
    assert (jc69_distances(make_patterns(np.full((4, 2), 15))) == 0).all()


def test_the_seed_settles_the_replicates():
    patterns = compress(load_dataset("DS1"))
    first, again, other = (
        bootstrap_topologies(patterns, 10, np.random.default_rng(seed)) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    validate(first)
    np.testing.assert_array_equal(first, canonicalise_with_lengths(first, np.zeros((10, 51)))[0])


@pytest.mark.parametrize("num_sites", [1, 20])
def test_identical_sequences_are_joined_in_random_order(num_sites):
    trees = bootstrap_topologies(make_patterns(np.ones((5, num_sites))), 200, np.random.default_rng(0))
    assert len(unique_topologies(trees)[0]) == 15  # all of them


def test_replicates_of_clear_data_find_the_clear_split():
    states = np.ones((4, 40))
    states[:2, :10] = 8
    trees = bootstrap_topologies(make_patterns(states), 50, np.random.default_rng(0))
    masks = clade_masks(trees)[:, 4, 0]
    assert np.isin(masks, [0b0011]).mean() > 0.95


def test_a_matrix_that_is_no_distances_is_refused():
    with pytest.raises(ValueError, match="finite distances of at least 3 taxa"):
        neighbour_joining(np.zeros((2, 2)))
    with pytest.raises(ValueError, match="finite"):
        neighbour_joining(np.full((4, 4), np.nan))
