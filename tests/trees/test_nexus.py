import re
import subprocess

import numpy as np
import pytest

from vbpi_mix.errors import TreeFormatError
from vbpi_mix.trees.names import coded_name, mrbayes_names
from vbpi_mix.trees.nexus import write_consensus, write_tree_samples, write_trprobs
from vbpi_mix.trees.nexus_reader import read_nexus
from vbpi_mix.trees.samples import read_tree_draws, read_tree_sample
from vbpi_mix.trees.summaries import majority_rule_consensus, split_table
from vbpi_mix.trees.topology import random_topologies

ODD = (
    *("Homo_sapiens", "it's", "a (b)", "[x]:1,2;3", "é", "_u20_", "_u2 0", "a-b.c+d", '"q"', "2", "12"),
    *("Pan t", "a b", "a_b", "x=y|z", "end", "-1", "y]z", "L" * 150, "{k}\\/*`+<>", "_u5B_x"),
)


def draws(num_taxa, num_trees, seed):
    rng = np.random.default_rng(seed)
    pool = random_topologies(num_taxa, 3, rng)
    children = pool[rng.choice(3, num_trees, p=[0.6, 0.3, 0.1])]
    return children, rng.exponential(0.1, (num_trees, 2 * num_taxa - 3))


def test_samples_round_trip(tmp_path):
    children, lengths = draws(len(ODD), 50, 0)
    path = tmp_path / "rep.t"
    path.write_text(write_tree_samples(ODD, children, lengths))
    again = read_tree_draws(path)
    assert again.taxa == ODD
    np.testing.assert_array_equal(again.children, children)
    # Half a unit of the ninth digit of a number that begins with 1.
    np.testing.assert_allclose(again.branch_lengths, lengths, rtol=5e-9, atol=0)
    path.write_text(write_tree_samples(ODD, children))
    assert read_tree_draws(path).branch_lengths is None


def test_trprobs_round_trip(tmp_path):
    children, _ = draws(len(ODD), 50, 0)
    weights = np.random.default_rng(0).exponential(size=50)
    path = tmp_path / "rep.trprobs"
    path.write_text(write_trprobs(ODD, children, weights))
    sample = read_tree_sample(path)
    assert sample.taxa == ODD
    assert len(sample.children) == 3
    assert sample.weights.sum() == pytest.approx(1, abs=1e-12)
    assert np.all(np.diff(sample.weights) <= 0)
    for topology, weight in zip(sample.children, sample.weights, strict=True):
        same = np.all(children == topology, axis=(1, 2))
        assert weight == pytest.approx(weights[same].sum() / weights.sum(), rel=1e-12)
    shown = re.findall(r"\[p = ([\d.]+), P = ([\d.]+)\] = \[&W ([\d.]+)\]", path.read_text())
    np.testing.assert_allclose(np.array(shown, float)[:, 1], np.cumsum(sample.weights), atol=5e-4)
    with pytest.raises(ValueError, match="positive sum"):
        write_trprobs(ODD, children, np.zeros(50))


def test_trprobs_are_in_order_of_probability_then_topology(tmp_path):
    rng = np.random.default_rng(3)
    children = np.unique(random_topologies(300, 400, rng), axis=0)
    weights = rng.integers(0, 4, len(children)).astype(float)
    taxa = tuple(f"t{i:03d}" for i in range(300))
    pairs = sorted((-w, tree.tolist()) for w, tree in zip(weights, children, strict=True) if w > 0)
    shuffled = rng.permutation(len(children))
    path = tmp_path / "rep.trprobs"
    path.write_text(write_trprobs(taxa, children[shuffled], weights[shuffled]))
    again = read_tree_draws(path)
    assert again.children.tolist() == [tree for _, tree in pairs]
    np.testing.assert_allclose(again.weights * weights.sum(), [-w for w, _ in pairs], rtol=1e-12)


def test_dendropy_reads_samples_and_names():
    import dendropy

    children, lengths = draws(len(ODD), 20, 0)
    text = write_tree_samples(ODD, children, lengths)
    trees = dendropy.TreeList.get(data=text, schema="nexus", preserve_underscores=True)
    assert len(trees) == 20
    assert [taxon.label for taxon in trees.taxon_namespace] == list(mrbayes_names(ODD))
    total = sum(edge.length or 0 for edge in trees[7].preorder_edge_iter())
    assert total == pytest.approx(lengths[7].sum(), rel=5e-9)  # nine digits are written
    table = split_table(children)
    found = trees.split_distribution(is_bipartitions_updated=False)
    everything = (1 << len(ODD)) - 1
    for mask, frequency in zip(table.masks, table.frequencies, strict=True):
        key = dendropy.Bipartition.normalize_bitmask(int(mask[0]), everything, 1)
        assert found.split_frequencies[key] == pytest.approx(frequency)


def test_dendropy_reads_the_consensus_and_its_annotations():
    import dendropy

    children, lengths = draws(len(ODD), 50, 1)
    consensus = majority_rule_consensus(ODD, children, None, lengths)
    tree = dendropy.Tree.get(data=write_consensus(consensus), schema="nexus")
    named = [coded_name(name) if name in ("[x]:1,2;3", "y]z", "_u20_", "_u5B_x") else name for name in ODD]
    for leaf in tree.leaf_node_iter():
        node = named.index(leaf.taxon.label)
        values = leaf.annotations.values_as_dict() | leaf.edge.annotations.values_as_dict()
        assert float(values["prob"]) == pytest.approx(1)
        assert float(values["length_mean"]) == pytest.approx(consensus.lengths.mean[node], rel=1e-8)
        interval = [float(x) for x in values["length_95%HPD"]]
        assert interval == pytest.approx(consensus.lengths.interval[node].tolist(), rel=1e-8)
    inner = sorted(
        float(node.annotations.get_value("prob"))
        for node in tree.internal_nodes()
        if node is not tree.seed_node
    )
    assert inner == pytest.approx(sorted(consensus.probabilities[len(ODD) : -1]))


def test_consensus_round_trip(tmp_path):
    children, lengths = draws(len(ODD), 50, 1)
    text = write_consensus(majority_rule_consensus(ODD, children[:1], None, lengths[:1]))
    path = tmp_path / "rep.con.tre"
    path.write_text(text)
    again = read_tree_draws(path)
    assert again.taxa == ODD
    np.testing.assert_array_equal(again.children, children[:1])
    assert "[x]" not in text
    assert "'it''s'" in text


def test_plain_names_need_no_comments():
    children, _ = draws(4, 5, 0)
    taxa = ("Homo.sapiens", "Pan-1", "2", "x")
    for text in (
        write_tree_samples(taxa, children),
        write_consensus(majority_rule_consensus(taxa, children)),
    ):
        assert "Name" not in text
        assert "'" not in text
        assert "3 2," in text


def test_consensus_of_topologies_alone():
    children, _ = draws(5, 20, 0)
    text = write_consensus(majority_rule_consensus("abcde", children))
    assert "length" not in text
    assert text.count("&prob=") >= 5


MRBAYES_STYLE = """#NEXUS
[ID: 0719926840]
[The trees found; "p" indicates, it's said; posterior probability.]
begin trees;
   Translate
       1 'a b',
       2 it''s, [a comment]
       3 c_c,
       4 d;
   tree tree_1 [p = 0.774, P = 0.774] = [&W 0.774194] (2,(4,3),1);
   tree tree_2 [p = 0.129, P = 0.903] = [&W 0.129032] ((4,2),3,1);
   utree * tree_3 [p = 0.097, P = 1.000] = [&U] (((1)4),2,3,1);
end;
"""


def test_mrbayes_trprobs():
    text = (
        MRBAYES_STYLE.replace("it''s", "'it''s'")
        .replace("it's said; ", "")
        .replace("(((1)4),2,3,1)", "(2,4,(3,1))")
    )
    nexus = read_nexus(text.encode(), "x.trprobs")
    assert nexus.taxa == ("a b", "it's", "c_c", "d")
    assert nexus.weights.tolist() == [0.774194, 0.129032, 0.097]
    assert nexus.labels["2"] == "it's"


BEAST_STYLE = """#NEXUS

Begin taxa;
	Dimensions ntax=4;
	Taxlabels
		human
		'chimp x'
		gorilla
		orang
		;
End;
Begin trees;
	Translate
		1 human,
		2 'chimp x',
		3 gorilla,
		4 orang
		;
tree STATE_0 [&lnP=-34291.6,posterior=-1.5] = [&R] (((1[&rate=1.0]:0.5,2[&rate=0.9,x={1,2}]:0.5)
  [&rate=1]:[&z=2]1.0E-1,3:0.6):1,4:1.6)[&rate=2];
tree STATE_1000 [&lnP=-34291.7] = [&R] ((1:1,3:1):1,(2:1,4:1):1);
End;
"""


def test_beast_trees(tmp_path):
    path = tmp_path / "x.trees"
    path.write_text(BEAST_STYLE)
    trees = read_tree_draws(path)
    assert trees.taxa == ("human", "chimp x", "gorilla", "orang")
    assert trees.children.tolist() == [[[0, 1], [4, 2]], [[0, 2], [4, 1]]]
    np.testing.assert_allclose(trees.branch_lengths[0], [0.5, 0.5, 0.6, 2.6, 0.1])
    assert trees.weights.tolist() == [1, 1]
    without = re.sub(r"Translate[^;]*;", "", BEAST_STYLE)
    path.write_text(without)
    assert read_tree_draws(path).children.tolist() == trees.children.tolist()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("#NEXUS\nbegin trees;\nend;\n", "x.t: expected a NEXUS file with TREE commands, found none"),
        ("#NEXUS\nbegin trees;\ntree a (1,2,3);\nend;", r"x.t, line 3, column 1: expected a name and '='"),
        ("#NEXUS\nbegin trees;\ntranslate 1 a b, 2 c;\ntree a = (1,2,3);\nend;", "got 5 words"),
        ("#NEXUS\nbegin trees;\ntranslate 1 a, 2 a;\ntree a = (1,2,3);\nend;", "1 distinct names"),
        (
            "#NEXUS\nbegin trees;\ntree a = (a,b,c);\ntree b = (a,b",
            "line 4, column 1: expected ';' at the end",
        ),
        ("#NEXUS\nbegin trees;\ntree a = (a,b,c);\n[half", r"line 4, column 1: expected a '\]'"),
    ],
)
def test_errors(text, message):
    with pytest.raises(TreeFormatError, match=message):
        read_nexus(text.encode(), "x.t")


@pytest.mark.mrbayes
def test_mrbayes_summarises_our_samples(tmp_path, require_program):
    """``sumt`` of MrBayes 3.2.7 reads the file as it is and finds the same topologies and mean lengths."""
    mb = require_program("mb")
    children, lengths = draws(len(ODD), 40, 5)
    (tmp_path / "ours.t").write_text(write_tree_samples(ODD, children, lengths))
    matrix = "\n".join(f"{name} ACGT" for name in mrbayes_names(ODD))
    (tmp_path / "data.nex").write_text(
        f"#NEXUS\nbegin data;\ndimensions ntax={len(ODD)} nchar=4;\nformat datatype=dna;\n"
        f"matrix\n{matrix}\n;\nend;\n"
    )
    commands = (
        "set autoclose=yes nowarn=yes;\nexecute data.nex;\n"
        "sumt filename=ours nruns=1 relburnin=no burnin=0 contype=halfcompat;\nquit;\n"
    )
    subprocess.run(
        [mb], input=commands, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert "Name" not in (tmp_path / "ours.trprobs").read_text()
    theirs = read_tree_sample(tmp_path / "ours.trprobs", ODD)
    ours = read_tree_sample(tmp_path / "ours.t")
    assert ours.taxa == theirs.taxa == ODD
    np.testing.assert_array_equal(theirs.children, ours.children)
    np.testing.assert_allclose(theirs.weights, ours.weights / 40, atol=1e-6)
    table = split_table(children, None, lengths)
    expected = {
        "".join("*" if int(mask[0]) >> taxon & 1 else "." for taxon in range(len(ODD))): mean
        for mask, mean in zip(table.masks, table.lengths.mean, strict=True)
    }
    rows = [line.split("\t") for line in (tmp_path / "ours.vstat").read_text().splitlines()]
    parts = [line.split() for line in (tmp_path / "ours.parts").read_text().splitlines()]
    pattern = {row[0]: row[1] for row in parts if len(row) == 2 and set(row[1]) <= set(".*")}
    means = {row[0]: float(row[1]) for row in rows if row[0].startswith("length")}
    checked = 0
    for label, mean in means.items():
        side = pattern[re.search(r"\[(\d+)\]", label).group(1)]
        flipped = side.translate(str.maketrans(".*", "*."))
        assert mean == pytest.approx(expected.get(side, expected.get(flipped)), rel=1e-4)
        checked += 1
    assert checked >= len(ODD)
