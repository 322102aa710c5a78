import os
import stat

import numpy as np
import pytest

from vbpi_mix.alignment import Alignment
from vbpi_mix.errors import MissingProgramError, VbpiMixError
from vbpi_mix.likelihood.base import make_likelihood
from vbpi_mix.likelihood.models import jc69
from vbpi_mix.patterns import compress
from vbpi_mix.training import support_trees
from vbpi_mix.trees.enumeration import all_topologies
from vbpi_mix.trees.samples import TreeDraws, TreeSample, read_tree_sample
from vbpi_mix.trees.summaries import split_table


def make_alignment(num_taxa, num_sites=300, seed=0):
    """Sequences on a caterpillar: each taxon differs from the last one at a tenth of the sites."""
    rng = np.random.default_rng(seed)
    rows = [rng.integers(0, 4, num_sites)]
    for _ in range(num_taxa - 1):
        changed = rng.random(num_sites) < 0.1
        rows.append(np.where(changed, rng.integers(0, 4, num_sites), rows[-1]))
    states = (1 << np.array(rows)).astype(np.uint8)
    # Names that IQ-TREE would change.
    return Alignment(tuple(f"taxon {i} (x'{i})" for i in range(num_taxa)), states, "made up")


def fake_program(folder, script):
    """Put a shell script named iqtree2 on a folder of its own."""
    path = folder / "iqtree2"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.mark.iqtree
def test_bootstrap_trees_find_the_splits_of_clear_data(require_program):
    require_program("iqtree3", "iqtree2")
    alignment = make_alignment(8)
    sample = support_trees.bootstrap_trees(alignment, seed=1)
    assert sample.taxa == alignment.taxa
    added = round((sample.weights.sum() - support_trees.NUM_TREES) / support_trees.FOUND_WEIGHT)
    assert 0 < added <= len(sample.children)  # each topology at most once
    assert sample.source.startswith("iqtree")
    table = split_table(sample.children, sample.weights)
    frequency = {int(mask[0]): f for mask, f in zip(table.masks, table.frequencies, strict=True)}
    # Taxa 0..k against the rest, in the order in which the caterpillar was made.
    for k in range(1, 6):
        assert frequency.get((1 << (k + 1)) - 1, 0.0) > 0.9, k


def test_only_good_trees_of_the_search_are_added():
    alignment = make_alignment(6)
    topologies = all_topologies(6)
    lengths = np.full((len(topologies), 9), 0.05)
    lengths[:, 2] = 0.0  # IQ-TREE writes such branches
    found = TreeDraws(alignment.taxa, topologies, lengths, np.ones(len(topologies)), "all")
    good = support_trees._good_topologies(found, alignment)
    log_likelihood = make_likelihood(compress(alignment), jc69()).value(topologies, np.maximum(lengths, 1e-6))
    losses = log_likelihood.max() - log_likelihood
    assert 0 < len(good) < len(topologies)
    is_kept = np.isin([t.tobytes() for t in topologies], [t.tobytes() for t in good])
    assert losses[is_kept].max() <= support_trees.MAX_LOG_LIKELIHOOD_LOSS < losses[~is_kept].min()


def test_found_trees_weigh_as_one_of_many_bootstrap_trees():
    topologies = all_topologies(6)
    sample = TreeSample(tuple("ABCDEF"), topologies[[5, 9]], np.array([700.0, 300.0]), "bootstrap")
    joined = support_trees._with_found(sample, topologies[[9, 2]])
    weight = {t.tobytes(): w for t, w in zip(joined.children, joined.weights, strict=True)}
    assert weight == {
        topologies[5].tobytes(): 700.0,
        topologies[9].tobytes(): pytest.approx(300.1),
        topologies[2].tobytes(): pytest.approx(0.1),
    }
    assert list(joined.weights) == sorted(joined.weights, reverse=True)


def test_every_topology_of_a_few_taxa_weighs_the_same():
    sample = support_trees.every_topology(tuple("ABCDEF"))
    assert len({row.tobytes() for row in sample.children}) == len(sample.children) == 105
    assert set(sample.weights) == {1.0}


def test_a_table_of_support_trees_reads_back(tmp_path):
    taxa = ("taxon 1", "b'c", "(d)", "e_f", "g", "h")
    sample = TreeSample(taxa, all_topologies(6)[[7, 30, 2]], np.array([6001.0, 40.5, 1.0]), "three trees")
    path = tmp_path / "support.trees.tsv.gz"
    path.write_bytes(support_trees.support_table(sample))
    again = read_tree_sample(path, taxa)
    np.testing.assert_array_equal(again.children, sample.children)
    np.testing.assert_array_equal(again.weights, sample.weights)
    assert read_tree_sample(path).taxa == taxa
    assert support_trees.support_table(sample) == path.read_bytes()  # no time of writing in it


def test_iqtree_3_is_preferred(tmp_path, monkeypatch):
    fake_program(tmp_path, "true")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert support_trees.find_iqtree() == str(tmp_path / "iqtree2")
    (tmp_path / "iqtree2").rename(tmp_path / "iqtree3")
    fake_program(tmp_path, "true")
    assert support_trees.find_iqtree() == str(tmp_path / "iqtree3")


def test_a_plain_iqtree_must_be_recent(tmp_path, monkeypatch):
    fake_program(tmp_path, "echo 'IQ-TREE multicore version 1.6.12 for Linux'")
    (tmp_path / "iqtree2").rename(tmp_path / "iqtree")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not support_trees.has_iqtree()
    (tmp_path / "iqtree").unlink()
    fake_program(tmp_path, "echo 'IQ-TREE multicore version 2.4.0 for Linux'")
    (tmp_path / "iqtree2").rename(tmp_path / "iqtree")
    assert support_trees.find_iqtree() == str(tmp_path / "iqtree")


def test_without_iqtree_the_error_says_where_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingProgramError, match=r"apt-get install iqtree.*--support"):
        support_trees.bootstrap_trees(make_alignment(5), seed=1)


def test_what_iqtree_says_when_it_fails_is_passed_on(tmp_path, monkeypatch):
    fake_program(tmp_path, "echo 'reading'; echo 'ERROR: the sky is falling' >&2; exit 3")
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path), os.environ["PATH"]]))
    monkeypatch.setattr(support_trees, "PROGRAMS", ("iqtree2",))  # not a real iqtree3 that may be there
    with pytest.raises(VbpiMixError, match=r"exit status 3 .* ERROR: the sky is falling; mend the alignment"):
        support_trees.bootstrap_trees(make_alignment(5), seed=1)
