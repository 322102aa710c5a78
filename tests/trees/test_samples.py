import gzip

import numpy as np
import pytest

from vbpi_mix.errors import TreeFormatError
from vbpi_mix.trees.newick import LabelTable, TreeText, parse_batch
from vbpi_mix.trees.samples import read_tree_draws, read_tree_sample
from vbpi_mix.trees.topology import canonicalise

NEWICK = "((a:1,b:1):1,c:2,d:3);\n((a:1,c:1):1,b:2,d:4);\n((d:1,c:1):1,b:2,a:5);\n((a:1,d:1):1,b:2,c:6);\n"
REPLICATES = (
    "#taxa\ta\tb\tc\td\nreplicate\tcount\ttopology\n"
    "1\t3\t(0,1,(2,3));\n1\t2\t((0,2),1,3);\n2\t5\t(2,(1,3),0);\n"
)
PROBABILITIES = "probability\ttopology\n0.75\t(d,(b,a),c);\n0.25\t(d,(b,c),a);\n"


@pytest.fixture
def written(tmp_path):
    def write(text, name="trees"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_newick_sample(written):
    sample = read_tree_sample(written(NEWICK))
    assert sample.taxa == ("a", "b", "c", "d")
    assert sample.children.tolist() == [[[0, 1], [4, 2]], [[0, 2], [4, 1]], [[1, 2], [0, 4]]]
    assert sample.weights.tolist() == [2, 1, 1]
    np.testing.assert_array_equal(canonicalise(sample.children), sample.children)


@pytest.mark.parametrize("text", [NEWICK, REPLICATES, PROBABILITIES])
def test_content_decides_the_format_also_gzipped(written, text):
    plain = read_tree_sample(written(text, "x.t"))
    packed = read_tree_sample(written(gzip.compress(text.encode()), "x.txt"))
    marked = read_tree_sample(written(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode(), "x"))
    for other in (packed, marked):
        assert other.taxa == plain.taxa
        np.testing.assert_array_equal(other.children, plain.children)
        np.testing.assert_array_equal(other.weights, plain.weights)


def test_draws_keep_order_and_lengths(written):
    path = written(NEWICK)
    draws = read_tree_draws(path)
    assert draws.branch_lengths.tolist()[0] == [1, 1, 2, 3, 1]
    assert draws.branch_lengths[:, 3].tolist() == [3, 4, 1, 1]
    assert draws.source == str(path)
    late = read_tree_draws(path, burn_in=0.5)
    np.testing.assert_array_equal(late.children, draws.children[2:])
    np.testing.assert_array_equal(late.branch_lengths, draws.branch_lengths[2:])
    assert read_tree_sample(path, burn_in=0.3).weights.sum() == 3


def test_taxa_order_is_the_given_one(written):
    wanted = ("d", "c", "b", "a")
    draws = read_tree_draws(written(NEWICK), wanted)
    assert draws.taxa == wanted
    assert draws.branch_lengths[0].tolist() == [3, 2, 1, 1, 1]
    assert draws.children[0].tolist() == [[0, 1], [4, 2]]
    table = read_tree_sample(written(REPLICATES), wanted)
    text = TreeText.from_newick(b"(a,b,(c,d));", "x")
    expected, _ = parse_batch(text, LabelTable.from_labels(wanted))
    assert table.weights.tolist() == [7, 3]
    np.testing.assert_array_equal(table.children[1], expected[0])


def test_replicates_are_chosen(written):
    path = written(REPLICATES)
    assert read_tree_sample(path).weights.tolist() == [7, 3]
    assert read_tree_sample(path, replicates=(1,)).weights.tolist() == [3, 2]
    assert read_tree_sample(path, replicates=(2,)).weights.tolist() == [5]
    with pytest.raises(ValueError, match=r"expected replicates among \[1, 2\], got \[1, 7\]"):
        read_tree_sample(path, replicates=(1, 7))
    with pytest.raises(ValueError, match="only for a table that has them"):
        read_tree_sample(written(NEWICK), replicates=(1,))


def test_probabilities(written):
    sample = read_tree_sample(written(PROBABILITIES))
    assert sample.weights.tolist() == [0.75, 0.25]
    assert sample.children.tolist()[0] == [[0, 1], [4, 2]]


def test_mismatch_of_taxa_lists_names(written):
    with pytest.raises(TreeFormatError, match=r"missing: x, y; unexpected: b, d\. Make the names"):
        read_tree_sample(written(NEWICK), ("a", "x", "c", "y"))
    with pytest.raises(TreeFormatError, match="missing: e; unexpected: none"):
        read_tree_sample(written(REPLICATES), ("a", "b", "c", "d", "e"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hello", "expected Newick .* got 'hello'"),
        ("", "got ''"),
        (b"\x1f\x8b\x08broken", "expected a whole gzip file"),
        (b"(a,b,\xff);", r"line 1, column 6: expected UTF-8 text, got byte 0xff"),
        ("(a,b,c);\n(a,b,d);", r"line 2, column 6 \(tree 2, at 'd\)'\): unknown taxon 'd'"),
        (
            "#taxa\ta\tb\tc\nreplicate\ttopology\n",
            "line 2, column 1: expected columns replicate, count, topology",
        ),
        ("#taxa\ta\tb\tc\nreplicate\tcount\ttopology\n", "expected a table with topologies"),
        (
            "#taxa\ta\tb\tc\nreplicate\tcount\ttopology\n1\t(0,1,2);\n",
            "line 3, column 1: expected 3 columns .*got 2",
        ),
        ("#taxa\ta\tb\tc\nreplicate\tcount\ttopology\n1\tx\t(0,1,2);\n", "number >= 0 as count, got 'x'"),
        (
            "#taxa\ta\tb\tc\nreplicate\tcount\ttopology\n1\t2\t(0,1,3);\n",
            "line 3, column 10 .*unknown taxon '3'",
        ),
        ("probability\ttopology\n-0.5\t(a,b,c);\n", "number >= 0 as probability, got '-0.5'"),
    ],
)
def test_errors_name_place_and_cause(written, text, message):
    with pytest.raises(TreeFormatError, match=message):
        read_tree_sample(written(text))


def test_errors_of_arguments(written, tmp_path):
    with pytest.raises(ValueError, match=r"burn-in fraction from 0 to below 1, got 1\.0"):
        read_tree_sample(written(NEWICK), burn_in=1.0)
    with pytest.raises(ValueError, match="expected no burn-in for the weighted trees"):
        read_tree_sample(written(REPLICATES), burn_in=0.25)
    with pytest.raises(TreeFormatError, match="found no file"):
        read_tree_sample(tmp_path / "absent")
    with pytest.raises(TreeFormatError, match=r"\(tree 2\): .* 1 of 5 branches have none"):
        read_tree_draws(written("((a:1,b:1):1,c:2,d:3);((a:1,b):1,c:2,d:3);"))
    assert read_tree_sample(written("((a:1,b:1):1,c:2,d:3);((a:1,b):1,c:2,d:3);")).weights.tolist() == [2]


def test_what_cannot_be_read_is_named(written, tmp_path):
    with pytest.raises(TreeFormatError, match=f"{tmp_path}: .* Is a directory: .*; name a file that you may"):
        read_tree_sample(tmp_path)
    below = written(NEWICK) / "below"
    with pytest.raises(TreeFormatError, match=f"{below}: .* Not a directory: .*; name a file that you may"):
        read_tree_draws(below)
    with pytest.raises(TreeFormatError, match="cannot be read: embedded null byte"):
        read_tree_sample(tmp_path / "a\0b")


def test_damaged_gzip_files_are_named(written):
    whole = gzip.compress(b"\n".join([NEWICK.encode()] * 50))
    swapped = whole[:10] + whole[10:][::-1]
    for damaged in (whole[:-12], swapped, whole[:-5] + b"12345"):
        with pytest.raises(TreeFormatError, match=r"a damaged one \(.*\); copy or download it again"):
            read_tree_sample(written(damaged))


@pytest.mark.reference
@pytest.mark.parametrize(("name", "num_taxa"), [("DS1", 27), ("DS4", 41)])
def test_reference_tables(require_reference, name, num_taxa):
    golden = read_tree_sample(require_reference(f"golden/{name}.tsv.gz"))
    assert golden.weights.sum() == pytest.approx(1, abs=1e-6)
    bootstrap = read_tree_sample(require_reference(f"ufboot/{name}.tsv.gz"), golden.taxa)
    assert bootstrap.taxa == golden.taxa
    assert len(golden.taxa) == num_taxa
    assert bootstrap.weights.sum() == 100_000
    one = read_tree_sample(require_reference(f"ufboot/{name}.tsv.gz"), golden.taxa, replicates=(3,))
    assert one.weights.sum() == 10_000
    for sample in (golden, bootstrap, one):
        np.testing.assert_array_equal(canonicalise(sample.children), sample.children)
