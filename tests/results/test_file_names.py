"""Taxon names come back from every kind of file, read by its own parser."""

import json
import re
import subprocess

import dendropy
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vbpi_mix.results.posterior_summary import SplitSummary
from vbpi_mix.results.tables import split_lines
from vbpi_mix.trees.nexus import write_consensus, write_consensus_newick, write_tree_samples, write_trprobs
from vbpi_mix.trees.samples import read_tree_draws, read_tree_sample
from vbpi_mix.trees.summaries import majority_rule_consensus, split_table
from vbpi_mix.trees.topology import random_topologies

HAS_LETTER = re.compile(r"\w")  # DendroPy takes a name that is a lone colon for punctuation, quoted or not

NAMES = st.lists(
    st.text(st.sampled_from("aB2 _'\"|-./,:()é漢{}\\*=+&#"), min_size=1, max_size=8)
    .map(str.strip)
    .filter(HAS_LETTER.search),
    min_size=4,
    max_size=6,
    unique_by=lambda name: name.replace("_", " "),
)


@settings(max_examples=25, deadline=None)
@given(taxa=NAMES, seed=st.integers(0, 1000))
def test_names_come_back_from_every_file(tmp_path_factory, taxa, seed):
    rng = np.random.default_rng(seed)
    children = random_topologies(len(taxa), 1, rng)
    lengths = rng.exponential(0.1, (1, 2 * len(taxa) - 3))
    consensus = majority_rule_consensus(taxa, children, None, lengths)
    path = tmp_path_factory.mktemp("names") / "file"
    for text in (
        write_tree_samples(taxa, children, lengths),
        write_trprobs(taxa, children, np.ones(1)),
        write_consensus(consensus, "mcc"),
    ):
        path.write_text(text, encoding="utf-8")
        assert read_tree_sample(path).taxa == tuple(taxa)
        np.testing.assert_array_equal(read_tree_draws(path, taxa).children, children)
    newick = write_consensus_newick(consensus)
    tree = dendropy.Tree.get(data=newick, schema="newick", preserve_underscores=True)
    assert sorted(leaf.taxon.label for leaf in tree.leaf_node_iter()) == sorted(taxa)
    table = split_table(children, None, lengths)
    listed = split_lines(taxa, SplitSummary(table, np.zeros(len(table.masks)))).split("\n")[1:-1]
    single = [row for row in (json.loads(line.split("\t")[0]) for line in listed) if len(row) == 1]
    assert sorted(single) == sorted([name] for name in taxa)


@pytest.mark.ape
def test_ape_reads_trees_and_supports(tmp_path, require_ape):
    taxa = ("Homo_sapiens", "a b", "x-1.5", "é", "2", "p|q")
    rng = np.random.default_rng(0)
    children = np.repeat(random_topologies(6, 1, rng), 30, axis=0)
    lengths = rng.exponential(0.1, (30, 9))
    consensus = majority_rule_consensus(taxa, children, None, lengths)
    (tmp_path / "run.t").write_text(write_tree_samples(taxa, children, lengths))
    (tmp_path / "con.tre").write_text(write_consensus(consensus))
    (tmp_path / "con.nwk").write_text(write_consensus_newick(consensus))
    script = (
        'library(ape); t <- read.nexus("run.t"); cat(length(t), sum(t[[7]]$edge.length), "\\n");'
        'con <- read.nexus("con.tre"); cat(sum(con$edge.length), con$Nnode, "\\n");'
        'n <- read.tree("con.nwk"); cat(n$node.label, "\\n"); cat(gsub("\'", "", n$tip.label), sep="\\n");'
        'cat("\\n"); cat(gsub("\'", "", con$tip.label), sep="\\n")'
    )
    run = subprocess.run(
        [require_ape, "--vanilla", "-e", script], capture_output=True, text=True, cwd=tmp_path, timeout=60
    )
    lines = [line for line in run.stdout.splitlines() if line]
    assert run.returncode == 0, run.stderr
    assert float(lines[0].split()[0]) == 30
    assert float(lines[0].split()[1]) == pytest.approx(lengths[6].sum(), rel=1e-5)
    assert float(lines[1].split()[0]) == pytest.approx(np.nansum(consensus.lengths.mean), rel=1e-5)
    assert int(lines[1].split()[1]) == 4
    assert lines[2].split() == ["100"] * 3
    assert sorted(lines[3:9]) == sorted(taxa)
    assert sorted(lines[9:]) == sorted(taxa)
