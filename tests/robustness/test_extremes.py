"""Data at the edges of what is legal: each gives a result, without a warning of any library."""

import gzip
import json
import sys

import numpy as np
import pytest

from vbpi_mix import cli
from vbpi_mix.alignment import read_alignment
from vbpi_mix.errors import TreeFormatError
from vbpi_mix.trees.newick import newick_texts, parse_newick
from vbpi_mix.trees.samples import read_tree_draws, read_tree_sample
from vbpi_mix.trees.topology import canonicalise

QUICK = ["--runs", 1, "--iterations", 20, "--log-every", 10, "--repeats", 2, "--samples", 60]
QUICK += ["--posterior-samples", 20, "--quiet", "--json"]
NAMES = ("a b", "it's", '"q"', "猫", "x|y;z,(u)[v]{w}=:*", "n" * 2000)


def sequences(num_taxa, num_sites, share=0.1, seed=0):
    """Sequences grown by copying with errors."""
    rng = np.random.default_rng(seed)
    states = np.empty((num_taxa, num_sites), np.int64)
    states[0] = rng.integers(0, 4, num_sites)
    for taxon in range(1, num_taxa):
        states[taxon] = states[rng.integers(max(0, taxon - 8), taxon)]
        changed = rng.random(num_sites) < share
        states[taxon, changed] = rng.integers(0, 4, changed.sum())
    return [bytes(b"ACGT"[s] for s in row).decode() for row in states]


def fasta(sequences, names=None):
    names = names or [f"t{i}" for i in range(len(sequences))]
    return "".join(f">{name}\n{sequence}\n" for name, sequence in zip(names, sequences, strict=True))


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Function that runs the command line on the content of an alignment: exit code, result, messages."""

    def call(content, *arguments):
        path = tmp_path / "data"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        parts = ["run", path, "--out", tmp_path / "out", *QUICK, *arguments]
        monkeypatch.setattr(sys, "argv", ["vbpi-mix", *map(str, parts)])
        with pytest.raises(SystemExit) as exit_info:
            cli.main()
        captured = capsys.readouterr()
        code = exit_info.value.code or 0
        return code, json.loads(captured.out) if code != 2 else None, captured.err

    return call


SIX = sequences(6, 60)
ODD = {
    "four taxa, one site, all nucleotides": fasta(["A", "C", "G", "T"]),
    "one pattern": fasta(["A" * 30] * 5),
    "columns of gaps": fasta([sequence + "-" * 20 for sequence in SIX]),
    "nothing known": fasta(["N" * 30] * 5),
    "one taxon with data": fasta(["-" * 60] * 4 + SIX[:1]),
    "one ambiguity code": fasta(["R" * 30] * 5),
    "lower case RNA with a mark, gzipped, lines ended as on Windows": gzip.compress(
        b"\xef\xbb\xbf" + fasta(SIX).lower().replace("t", "u").replace("\n", "\r\n").encode()
    ),
    "old Macintosh lines": fasta(SIX).replace("\n", "\r"),
    "saturated": fasta(sequences(6, 100, share=1.0)),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_alignments_have_a_result(name, run, recwarn):
    # Half of them without parameters of the model, half with all there are.
    model = ("JC", "GTR+F+I+G4")[list(ODD).index(name) % 2]
    code, result, err = run(ODD[name], "--model", model, "--no-report")
    assert code == 0, err
    assert np.isfinite(result["marginal_log_likelihood"]["pooled"])
    assert not recwarn.list


def test_odd_names_are_in_every_output(run, tmp_path):
    content = fasta([*SIX[:4], SIX[3], "?" * 60], NAMES)  # one of them twice, and one without data
    code, result, err = run(content, "--model", "JC")
    assert code == 0, err
    assert result["provenance"]["num_taxa"] == 6
    out = tmp_path / "out"
    for name in ("posterior.run1.t", "posterior.run2.t", "topologies.trprobs", "support.trees.tsv.gz"):
        assert set(read_tree_sample(out / name).taxa) == set(NAMES), name
    for name in ("ccd_map.tre", "mcc.tre", "sbn_map.tre"):
        assert set(read_tree_draws(out / name).taxa) == set(NAMES), name
    assert "n" * 2000 in (out / "consensus.nwk").read_text(encoding="utf-8")
    page = (out / "report.html").read_text(encoding="utf-8")
    for name in ("猫", "it&#39;s", "n" * 2000):
        assert name in page


def test_a_hundred_thousand_sites(run):
    code, result, err = run(fasta(sequences(5, 100_000)), "--model", "JC", "--no-report")
    assert code == 0, err
    assert result["provenance"]["num_sites"] == 100_000
    assert np.isfinite(result["marginal_log_likelihood"]["pooled"])


def caterpillar(num_taxa):
    """Topology of nested pairs, one taxon after the other."""
    rows = [(0, 1)] + [(num_taxa + i - 1, i + 1) for i in range(1, num_taxa - 2)]
    return canonicalise(np.array([rows], np.int32))


def test_five_hundred_taxa(run, tmp_path):
    names = [f"Genus_{i} species" for i in range(500)]
    trees = tmp_path / "trees"
    trees.write_text("\n".join(newick_texts(caterpillar(500), None, [f"'{name}'" for name in names])))
    content = fasta(sequences(500, 40, share=0.02), names)
    code, result, err = run(content, "--support", trees, "--model", "JC", "--no-grow-support", "--no-report")
    assert code == 0, err
    assert result["provenance"]["num_taxa"] == 500
    assert len(read_tree_draws(tmp_path / "out" / "posterior.run1.t").taxa) == 500


ROOTED = "(((t0,t1),t2),((t3,t4),t5))"
T = "((t0:0.1,t1:0.1):0.1,(t2:0.1,t3:0.1):0.1,(t4:0.1,t5:0.1):0.1);"


@pytest.mark.parametrize(
    "trees",
    [
        T.replace("0.1", "0"),
        T.replace("t0:0.1", "t0:-0.1"),
        T.replace("0.1", "1e308"),
        T.replace("0.1", "1e-999"),
        "(((t0:1e308,t1:1):1e308,t2:1):1e308,((t3:1,t4:1):1,t5:1):1e308);",
        ROOTED,
    ],
    ids=["zero", "negative", "huge", "tiny", "huge, rooted", "rooted, without lengths"],
)
def test_branch_lengths_of_a_support_do_not_matter(trees, tmp_path, recwarn):
    path = tmp_path / "trees"
    path.write_text(trees)
    found = read_tree_sample(path)
    assert found.weights.tolist() == [1]
    expected = ROOTED if "(((" in trees else T
    np.testing.assert_array_equal(found.children[0], parse_newick(expected).children)
    assert not recwarn.list


def test_a_sum_of_branch_lengths_that_is_no_number_is_refused(tmp_path):
    path = tmp_path / "trees"
    path.write_text("(((t0:1,t1:1):1,t2:1):1e308,((t3:1,t4:1):1,t5:1):1e308);")
    with pytest.raises(TreeFormatError, match=r"\(tree 1\): the two branches at the root"):
        read_tree_draws(path)


@pytest.mark.parametrize(
    ("trees", "message"),
    [
        (T.replace("t0:0.1", "t0:nan"), "line 1, column 6 .*expected a branch length"),
        (T.replace("t0:0.1", "t0:1e999"), "line 1, column 6 .*expected a branch length"),
        (T.replace("t0", "x0"), "missing: t0; unexpected: x0"),
        ("(t0,t1,(t2,t3));", "missing: t4, t5; unexpected: none"),
        ("((t0,t1),(t2,t3),((t4,t6),t5));", "unexpected: t6"),
        ("((t0,t1),(t2,t3),(t4,t0));", "missing: t5"),
        ("((t0,t1),(t2,t3,t4),t5);", "line 1, column 10 .*resolve the polytomy"),
        ("((t0,t1),((t2,t3)),(t4,t5));", "line 1, column 10 .*expected two children"),
        ("(" * 100_000 + "t0" + ")" * 100_000 + ";", "missing: t1, t2, t3, t4, t5"),
        ("(" * 100_000 + ",".join(f"t{i}" for i in range(6)) + ")" * 100_000 + ";", "more nested brackets"),
        ("#NEXUS\nbegin trees;\ntree a = [&W 0] " + T + "\nend;", "add up to 0"),
        ("#NEXUS\nbegin trees;\ntree a = [&W 1e999] " + T + "\nend;", r"line 3, .*expected a finite weight"),
        (f"probability\ttopology\n1e308\t{T}\n1e308\t{T}\n", "add up to inf"),
        ("(" + ",".join(f"x{i}" for i in range(20_000)) + ");", "x100, .* and 19990 more"),
    ],
)
def test_trees_that_cannot_be_a_support_are_refused(trees, message, tmp_path):
    path = tmp_path / "trees"
    path.write_text(trees)
    with pytest.raises(TreeFormatError, match=message) as error:
        read_tree_sample(path, [f"t{i}" for i in range(6)])
    assert str(path) in str(error.value)
    assert len(str(error.value)) < 1000


def test_depth_is_no_matter_of_recursion(tmp_path):
    path = tmp_path / "trees"
    num_taxa = 30_000
    names = [f"t{i}" for i in range(num_taxa)]
    path.write_text("(" * (num_taxa - 1) + names[0] + "".join(f",{name})" for name in names[1:]) + ";")
    sample = read_tree_sample(path, names)
    assert sample.children.shape == (1, num_taxa - 2, 2)


def test_reading_a_hundred_thousand_sites_keeps_them(tmp_path):
    path = tmp_path / "a.fasta"
    content = sequences(5, 100_000)
    path.write_text(fasta(content))
    assert read_alignment(path).num_sites == 100_000
