import itertools

import numpy as np
import pytest

from vbpi_mix.trees.exchange import to_dendropy
from vbpi_mix.trees.newick import parse_newick
from vbpi_mix.trees.nexus import write_consensus_newick
from vbpi_mix.trees.summaries import highest_density_interval, majority_rule_consensus, split_table
from vbpi_mix.trees.topology import Tree, clade_masks, nni_neighbours, random_topologies


def weighted_trees(num_taxa, num_trees, seed):
    """Draws around one topology, so that many splits are shared, with unequal weights, two of them zero."""
    rng = np.random.default_rng(seed)
    centre = random_topologies(num_taxa, 1, rng)
    pool = np.concatenate([centre, centre, centre, nni_neighbours(centre[0])])
    children = pool[rng.integers(0, len(pool), num_trees)]
    weights = rng.exponential(size=num_trees)
    weights[:2] = 0
    return children, weights, rng.exponential(0.1, (num_trees, 2 * num_taxa - 3))


def brute_force_interval(values, weights, mass):
    pairs = [
        (high - low, low, high)
        for low, high in itertools.product(values, values)
        if low <= high
        and weights[(values >= low) & (values <= high)].sum() >= mass * weights.sum() * (1 - 1e-9)
    ]
    return min(pairs)[1:]


@pytest.mark.parametrize("mass", [0.01, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("seed", range(10))
def test_interval_by_definition(seed, mass):
    rng = np.random.default_rng(seed)
    values = np.round(rng.exponential(size=25), 1 if seed % 2 else 9)  # with and without ties
    weights = rng.exponential(size=25) * (rng.random(25) < 0.8)
    low, high = highest_density_interval(values, weights, mass)
    expected = brute_force_interval(values[weights > 0], weights[weights > 0], mass)
    assert (low, high) == pytest.approx(expected, abs=1e-12)


def test_interval_closed_forms():
    values = np.arange(100.0)[::-1].copy()
    assert highest_density_interval(values) == (0.0, 94.0)
    assert highest_density_interval(np.array([3.0])) == (3.0, 3.0)
    # Of an exponential density the interval starts at 0 and ends at -log 0.05.
    grid = -np.log1p(-(np.arange(20_000) + 0.5) / 20_000)
    low, high = highest_density_interval(grid)
    assert low == pytest.approx(0, abs=1e-3)
    assert high == pytest.approx(-np.log(0.05), abs=1e-2)
    with pytest.raises(ValueError, match="mass above 0"):
        highest_density_interval(values, None, 0.0)
    with pytest.raises(ValueError, match="positive sum"):
        highest_density_interval(values, np.zeros(100))


@pytest.mark.parametrize("num_taxa", [5, 20, 70])
def test_split_table_by_definition(num_taxa):
    children, weights, lengths = weighted_trees(num_taxa, 40, num_taxa)
    expected = {}
    for masks, weight, values in zip(clade_masks(children), weights, lengths, strict=True):
        for mask, value in zip(masks, values, strict=True):
            if weight > 0:
                expected.setdefault(mask.tobytes(), []).append((weight, value))
    table = split_table(children, weights, lengths)
    assert {mask.tobytes() for mask in table.masks} == expected.keys()
    assert np.all(np.diff(table.frequencies) <= 0)
    for row, mask in enumerate(table.masks):
        w, x = np.array(expected[mask.tobytes()]).T
        mean = np.average(x, weights=w)
        assert table.sizes[row] == sum(int(word).bit_count() for word in mask)
        assert table.frequencies[row] == pytest.approx(w.sum() / weights.sum())
        assert table.lengths.mean[row] == pytest.approx(mean)
        assert table.lengths.sd[row] == pytest.approx(
            np.sqrt(np.average((x - mean) ** 2, weights=w)), abs=1e-12
        )
        assert tuple(table.lengths.interval[row]) == pytest.approx(brute_force_interval(x, w, 0.95))


def test_lengths_of_many_trees_with_ties():
    children, weights, lengths = weighted_trees(12, 3000, 1)
    lengths = np.round(lengths, 2)
    table = split_table(children, weights, lengths, 0.8)
    masks = clade_masks(children)[:, :, 0]
    for row, mask in enumerate(table.masks[:, 0]):
        tree, edge = np.nonzero(masks == mask)
        x, w = lengths[tree, edge], weights[tree]
        mean = np.average(x, weights=w)
        assert tuple(table.lengths.interval[row]) == highest_density_interval(x, w, 0.8)
        assert table.lengths.mean[row] == pytest.approx(mean, rel=1e-12)
        assert table.lengths.sd[row] == pytest.approx(np.sqrt(np.average((x - mean) ** 2, weights=w)))
    assert len(table.masks) > 21


def test_split_table_does_not_depend_on_the_order_of_trees():
    children, weights, _ = weighted_trees(9, 40, 0)
    order = np.random.default_rng(0).permutation(40)
    first, second = split_table(children, weights), split_table(children[order], weights[order])
    np.testing.assert_array_equal(first.masks, second.masks)
    np.testing.assert_allclose(first.frequencies, second.frequencies, rtol=1e-12)
    assert first.lengths is None


def consensus_clades(consensus):
    """Leaves below every inner node, with the node's probability."""
    num_taxa = len(consensus.taxa)
    below = {node: {node} if node < num_taxa else set() for node in range(len(consensus.parents))}
    for node, parent in enumerate(consensus.parents[:-1]):
        assert parent > node or parent >= num_taxa
        below[int(parent)] |= below[node]
    return {frozenset(below[node]): consensus.probabilities[node] for node in range(num_taxa, len(below) - 1)}


@pytest.mark.parametrize(("num_taxa", "seed"), [(6, 0), (12, 1), (70, 2)])
def test_consensus_as_dendropy_makes_it(num_taxa, seed):
    import dendropy

    children, weights, lengths = weighted_trees(num_taxa, 60, seed)
    weights = np.ceil(weights)
    taxa = tuple(f"t{i:02d}" for i in range(num_taxa))
    ours = majority_rule_consensus(taxa, children, weights, lengths)
    namespace = dendropy.TaxonNamespace(taxa)
    trees = dendropy.TreeList(taxon_namespace=namespace)
    for tree, weight, values in zip(children, weights, lengths, strict=True):
        trees.extend(to_dendropy(Tree(taxa, tree, values), namespace) for _ in range(int(weight)))
    theirs = trees.consensus(min_freq=0.5 + 1e-9, is_bipartitions_updated=False)
    theirs.encode_bipartitions()
    everything = frozenset(range(num_taxa))
    splits = set()
    for edge in theirs.postorder_internal_edge_iter(filter_fn=lambda edge: edge.tail_node is not None):
        side = frozenset(taxa.index(t.label) for t in edge.bipartition.leafset_taxa(namespace))
        splits.add(everything - side if num_taxa - 1 in side else side)
    splits = {side for side in splits if 1 < len(side) < num_taxa - 1}
    clades = consensus_clades(ours)
    assert clades.keys() == splits
    distribution = trees.split_distribution(is_bipartitions_updated=False)
    for clade, probability in clades.items():
        mask = sum(1 << leaf for leaf in clade)
        frequency = distribution.split_frequencies[
            dendropy.Bipartition.normalize_bitmask(mask, (1 << num_taxa) - 1, 1)
        ]
        assert probability == pytest.approx(frequency)


def test_consensus_worked_by_hand():
    # ((a,b),(c,d),e) twice, ((a,b),c,(d,e)) once, ((a,b),d,(c,e)) once: {a,b} in all, {c,d} in exactly half.
    children = np.array(
        [[[0, 1], [2, 3], [5, 6]], [[0, 1], [5, 2], [6, 3]], [[0, 1], [5, 3], [6, 2]]], np.int32
    )
    lengths = np.array([[1, 1, 1, 1, 1, 3, 9.0], [1, 1, 1, 1, 1, 6, 9.0], [1, 1, 1, 1, 1, 12, 9.0]])
    consensus = majority_rule_consensus("abcde", children, np.array([2.0, 1.0, 1.0]), lengths)
    assert consensus.parents.tolist() == [5, 5, 6, 6, 6, 6, -1]
    assert consensus.probabilities[:6].tolist() == [1, 1, 1, 1, 1, 1]
    assert np.isnan(consensus.probabilities[6])
    assert consensus.lengths.mean[5] == 6
    assert consensus.lengths.sd[5] == pytest.approx(np.sqrt((2 * 9 + 0 + 36) / 4))
    assert consensus.lengths.interval[5].tolist() == [3, 12]
    assert write_consensus_newick(consensus) == "((a:1.0,b:1.0)100:6.0,c:1.0,d:1.0,e:1.0);"
    unresolved = majority_rule_consensus("abcde", children[1:], None, None, 0.9)
    assert unresolved.lengths is None
    assert write_consensus_newick(unresolved) == "((a,b)100,c,d,e);"


def test_consensus_of_equal_trees_is_the_tree():
    tree = random_topologies(100, 1, np.random.default_rng(0))
    taxa = [f"t{i:02d}" for i in range(100)]
    consensus = majority_rule_consensus(taxa, np.repeat(tree, 3, axis=0))
    np.testing.assert_array_equal(parse_newick(write_consensus_newick(consensus), taxa).children, tree[0])


def test_arguments_are_checked():
    children, weights, _ = weighted_trees(6, 5, 0)
    with pytest.raises(ValueError, match=r"threshold from 0.5 to below 1, got 0.3"):
        majority_rule_consensus("abcdef", children, weights, None, 0.3)
    with pytest.raises(ValueError, match="expected 6 taxa, got 5"):
        majority_rule_consensus("abcde", children, weights)
    with pytest.raises(ValueError, match="finite weights"):
        split_table(children, -weights)


def test_medians_and_effective_numbers():
    children, _, lengths = weighted_trees(6, 41, 3)
    same = np.repeat(children[:1], 41, axis=0)
    for num in (40, 41):  # equal weights: as numpy has it, for even and odd numbers
        table = split_table(same[:num], None, lengths[:num])
        values = {mask.tobytes(): lengths[:num, e] for e, mask in enumerate(clade_masks(same[:1])[0])}
        for row, mask in enumerate(table.masks):
            assert table.lengths.median[row] == pytest.approx(np.median(values[mask.tobytes()]))
            assert table.lengths.ess[row] == pytest.approx(num)
    # Weights whose squares are below the smallest number.
    weights = np.array([1.0, 3e-200, 1e-200])
    trees = np.concatenate([children[:1], nni_neighbours(children[0])[:1], nni_neighbours(children[0])[:1]])
    table = split_table(trees, weights, lengths[:3])
    rare = np.flatnonzero(table.frequencies < 1e-100)
    assert len(rare) == 1
    assert table.lengths.ess[rare[0]] == pytest.approx(4**2 / 10)
    assert np.isfinite(table.lengths.median).all()
