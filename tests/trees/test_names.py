import re
import subprocess

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vbpi_mix.errors import TreeFormatError
from vbpi_mix.trees.names import coded_name, match_taxa, mrbayes_names, plain_name
from vbpi_mix.trees.samples import read_tree_sample

ANY_NAME = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
TRICKY_NAME = st.text("_u0123456789ABCDEF +-aéÉ", min_size=1) | st.sampled_from(
    ["end", "Begin", "END", "x" * 150]
)


@given(ANY_NAME | TRICKY_NAME)
@settings(max_examples=200, deadline=None)
def test_coded_names_come_back(name):
    written = coded_name(name)
    assert re.fullmatch(r"(?![+-])[A-Za-z0-9_.+-]+", written)
    assert written.lower() not in ("begin", "end")
    assert plain_name(written) == name


@pytest.mark.parametrize("code", ["_uD800_", "_uDFFF_"])
def test_codes_that_are_no_characters_stay(code):
    assert plain_name(f"a{code}b_u20_") == f"a{code}b "


@given(st.lists(ANY_NAME | TRICKY_NAME, min_size=1, unique=True), st.randoms())
@settings(max_examples=200, deadline=None)
def test_mrbayes_names_are_accepted_and_distinct(taxa, random):
    written = mrbayes_names(taxa)
    assert all(re.fullmatch(r"(?![+-])[A-Za-z0-9_.+-]{1,99}", name) for name in written)
    assert len({name.lower() for name in written}) == len(taxa)
    shuffled = random.sample(taxa, len(taxa))
    assert dict(zip(shuffled, mrbayes_names(shuffled), strict=True)) == dict(zip(taxa, written, strict=True))
    assert match_taxa(written, taxa, "x") == {name: number for number, name in enumerate(written)}


def test_mrbayes_names_are_readable_where_they_can_be():
    taxa = ("Homo sapiens", "it's", "x_u20_y", "a b", "a_b", "end", "-1", "Pan", "pan", "L" * 100)
    *plain, upper, lower, long = mrbayes_names(taxa)
    assert plain == ["Homo_sapiens", "it_u27_s", "x_u5F_u20_y", "a_u20_b", "a_b", "_u65_nd", "_u2D_1"]
    # The digits are those of `printf Pan | sha256sum`, and so on.
    assert upper == "Pan_fd92d952db92eff5"
    assert lower == "pan_00e37ffae0562ab6"
    assert long == "L" * 82 + "_f73e275ca463c6c2"


def test_names_that_differ_in_blanks_match():
    assert match_taxa(["a_b", "c d", "e"], ["e", "c_d", "a_b"], "x") == {"a_b": 2, "c d": 1, "e": 0}
    with pytest.raises(TreeFormatError, match="missing: a_b_c, a b_c; unexpected: a b c"):
        match_taxa(["a b c"], ["a_b_c", "a b_c"], "x")


def test_rewritten_names_match_only_if_all_do():
    wanted = ["Homo sapiens x", "it's", "a_b"]
    iqtree = {"Homo": 0, "it_s": 1, "a_b": 2}
    assert match_taxa(list(iqtree), wanted, "x") == iqtree
    with pytest.raises(
        TreeFormatError, match=r"missing: it's; unexpected: it_t\. Make .* MrBayes or IQ-TREE rewrote"
    ):
        match_taxa(["Homo_sapiens_x", "it_t", "a_b"], wanted, "x")
    with pytest.raises(TreeFormatError, match="missing: x:1, x;1; unexpected: x_1"):
        match_taxa(["x_1", "y"], ["x:1", "x;1", "y"], "x")


FASTA_NAMES = (
    *("Homo sapiens", "Pan troglodytes (chimp)", "O'Brien x", 'say"hi"', "a|b", "a(b)c", "x:1", "é_ü", "猫"),
    *("dot.s", "m-n", "p+q", "e=q", "semi;c", "com,ma", "br[ack]et", "sl/ash", "12", "{}<>#%&", "L" * 150),
)


@pytest.mark.iqtree
def test_trees_of_iqtree_have_the_taxa_of_its_fasta_file(tmp_path, require_program):
    """Ultrafast bootstrap of IQ-TREE 2.0.7, which changes most of these names, reads with the names given."""
    program = require_program("iqtree2", "iqtree")
    rng = np.random.default_rng(0)
    ancestor = rng.integers(4, size=400)
    with (tmp_path / "my.fasta").open("w") as file:
        for name in FASTA_NAMES:
            sites = np.where(rng.random(400) < 0.2, rng.integers(4, size=400), ancestor)
            file.write(f">{name}\n{''.join('ACGT'[site] for site in sites)}\n")
    command = [*(program, "-s", "my.fasta", "-m", "JC", "-B", "1000", "--wbt"), *("-nt", "1", "-seed", "1")]
    command += ["-nm", "100", "-pre", "my"]
    subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=120, check=True)
    path = tmp_path / "my.ufboot"
    assert "Homo_sapiens" not in path.read_text()
    sample = read_tree_sample(path, FASTA_NAMES)
    assert sample.taxa == FASTA_NAMES
    assert sample.weights.sum() == 1000
    # Trees are those that a table made by hand from IQ-TREE's documented replacements gives.
    cut = [name if len(name) > 99 else name.split()[0] for name in FASTA_NAMES]
    by_hand = [re.sub(r"[^\w.|/-]", "_", name) for name in cut]
    by_hand[7:9] = ["_____", "___"]
    again = read_tree_sample(path, by_hand)
    np.testing.assert_array_equal(again.children, sample.children)
