import numpy as np
import pytest

from vbpi_mix.errors import TreeFormatError
from vbpi_mix.trees.exchange import from_dendropy, from_ete3, to_dendropy, to_ete3
from vbpi_mix.trees.newick import write_newick
from vbpi_mix.trees.topology import Tree, random_topologies

TAXA = ("Homo_sapiens", "it's", "a b", "x(1):2", "é", "f", "g")


def example(seed, has_lengths=True):
    rng = np.random.default_rng(seed)
    lengths = rng.exponential(0.1, 2 * len(TAXA) - 3) if has_lengths else None
    return Tree(TAXA, random_topologies(len(TAXA), 1, rng)[0], lengths)


@pytest.mark.parametrize("seed", range(5))
def test_round_trips(seed):
    tree = example(seed)
    for again in (from_ete3(to_ete3(tree), TAXA), from_dendropy(to_dendropy(tree), TAXA)):
        assert again.taxa == tree.taxa
        np.testing.assert_array_equal(again.children, tree.children)
        np.testing.assert_array_equal(again.branch_lengths, tree.branch_lengths)


def test_trees_without_lengths():
    tree = example(0, has_lengths=False)
    assert from_dendropy(to_dendropy(tree), TAXA).branch_lengths is None
    assert from_ete3(to_ete3(tree), TAXA).branch_lengths.tolist() == [1.0] * 11
    assert from_dendropy(to_dendropy(tree)).taxa == tuple(sorted(TAXA))


def test_distances_in_the_other_packages():
    import dendropy

    first, second = example(1), example(2)
    namespace = dendropy.TaxonNamespace()
    pair = [to_dendropy(tree, namespace) for tree in (first, second)]
    assert not pair[0].is_rooted
    distance = dendropy.calculate.treecompare.symmetric_difference(*pair)
    assert distance == to_ete3(first).robinson_foulds(to_ete3(second), unrooted_trees=True)[0]
    assert distance > 0


def test_rooted_objects_lose_their_root():
    import dendropy

    rooted = dendropy.Tree.get(data="((a:1,b:2):3,(c:4,d:5):6);", schema="newick", rooting="force-rooted")
    assert write_newick(from_dendropy(rooted)) == "((a:1.0,b:2.0):9.0,c:4.0,d:5.0);"
    polytomy = dendropy.Tree.get(data="((a:1,b:2,e:3):3,(c:4,d:5):6);", schema="newick")
    with pytest.raises(TreeFormatError, match=r"DendroPy tree, line 1, column 2 .*too many children"):
        from_dendropy(polytomy)


def test_deep_trees():
    rows = [[0, 1]] + [[999 + k, k + 1] for k in range(1, 998)]
    tree = Tree(tuple(f"t{i:04d}" for i in range(1000)), np.array(rows, np.int32), np.ones(1997))
    np.testing.assert_array_equal(from_ete3(to_ete3(tree)).children, tree.children)
    np.testing.assert_array_equal(from_dendropy(to_dendropy(tree)).children, tree.children)
