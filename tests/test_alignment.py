"""Symbols, names, messages, warnings and writing of alignments; mutated files."""

import gzip
import logging
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_alignment_formats import DIALECTS

from vbpi_mix.alignment import Alignment, read_alignment, write_fasta
from vbpi_mix.errors import AlignmentError

IUPAC_SETS = {
    "A": "A", "C": "C", "G": "G", "T": "T", "U": "T", "R": "AG", "Y": "CT", "S": "CG", "W": "AT",
    "K": "GT", "M": "AC", "B": "CGT", "D": "AGT", "H": "ACT", "V": "ACG",
    "N": "ACGT", "X": "ACGT", "O": "ACGT", "?": "ACGT", "-": "ACGT", ".": "ACGT",
}  # fmt: skip
BITS = {"A": 1, "C": 2, "G": 4, "T": 8}


@pytest.fixture
def read(tmp_path):
    """Function that reads an alignment from bytes or text."""

    def read_content(content: str | bytes) -> Alignment:
        path = tmp_path / "alignment.fasta"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_alignment(path)

    return read_content


def _fasta(*sequences: str) -> str:
    return "".join(f">t{i}\n{sequence}\n" for i, sequence in enumerate(sequences))


def test_symbols_are_iupac_sets_in_either_case(read):
    symbols = "".join(IUPAC_SETS)
    states = read(_fasta(symbols, symbols.lower(), symbols[::-1], "A" * len(symbols))).states
    expected = [sum(BITS[s] for s in members) for members in IUPAC_SETS.values()]
    np.testing.assert_array_equal(states[0], expected)
    np.testing.assert_array_equal(states[1], expected)
    np.testing.assert_array_equal(states[2], expected[::-1])


FOUR = ("ACGT", "ACGA", "ACGC", "ACGG")
PROTEIN = ("MKVLAAGIVFEDRHQ", "MKVLSAGIVFEDKHQ", "MRVLAAGIAFEDRHQ", "MKVLTAGLVFEDRHE")
MESSAGES = {
    "empty": ("", "the file is empty"),
    "white space only": (" \r\n\t\n", "the file is empty"),
    "two taxa": (_fasta(*FOUR[:2]), "expected at least 4 taxa, found 2"),
    "three taxa": (_fasta(*FOUR[:3]), "expected at least 4 taxa, found 3"),
    "unequal lengths": (
        _fasta(*FOUR[:3], "ACG"),
        "taxon 't3' has 3 sites where others have 4; align the sequences first",
    ),
    "odd first length": (_fasta("ACGTA", *FOUR[1:]), "taxon 't0' has 5 sites where others have 4"),
    "duplicate names": (
        _fasta(*FOUR).replace("t3", "t1"),
        r"'t1' appear more than once \(duplicate names\); rename or remove",
    ),
    "empty name": (_fasta(*FOUR).replace("t2", " "), "taxon 3 is named ''; give it a name"),
    "empty sequence": (_fasta(*FOUR[:3], ""), "taxon 't3': the sequence is empty; add it or remove"),
    "all empty": (_fasta("", "", "", ""), "taxon 't0', 't1', 't2', 't3': the sequence is empty"),
    "unknown symbol": (
        _fasta("ACGTACGTACGTACGTACGTACGT", "ACGTACGTACGTACGTACGTACJT", *["ACGTACGTACGTACGTACGTACGT"] * 2),
        "taxon 't1', site 23: expected a nucleotide .*, found 'J'; correct it, or write N",
    ),
    "symbol outside ASCII": (_fasta(*FOUR[:3], "ACGÄ"), "taxon 't3', site 4: .* found 'Ä'"),
    "digit": (_fasta(*FOUR[:3], "AC1T"), "taxon 't3', site 3: .* found '1'"),
    "protein": (_fasta(*PROTEIN), "taxon 't0', site 4: .* found 'L'; this looks like protein"),
    "binary": (b"\x00\x01\x02\x03", "this is a binary file; save the alignment as plain text"),
    "not UTF-8": (b">caf\xe9\nACGT\n", r"line 1: expected text in UTF-8, found the byte 0xe9"),
    "image": (b"\x89PNG\r\n\x1a\n\x00", "expected text in UTF-8"),
    "damaged gzip": (gzip.compress(_fasta(*FOUR).encode())[:-9], "damaged gzip file .* download it again"),
    "not gzip": (b"\x1f\x8b\x00garbage", "damaged gzip file"),
}  # fmt: skip


@pytest.mark.parametrize("case", MESSAGES)
def test_messages_say_what_where_and_cure(case, read, tmp_path):
    content, message = MESSAGES[case]
    with pytest.raises(AlignmentError, match=message) as caught:
        read(content)
    assert str(caught.value).startswith(str(tmp_path / "alignment.fasta"))


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(AlignmentError, match=r"nowhere\.fasta: no such file; check the path"):
        read_alignment(tmp_path / "nowhere.fasta")
    with pytest.raises(AlignmentError, match="cannot be read"):
        read_alignment(tmp_path)
    with pytest.raises(AlignmentError, match="cannot be read"):
        read_alignment("a\0b")


def test_one_site_is_enough(read):
    assert read(_fasta("A", "C", "A", "-")).num_sites == 1


def test_taxa_without_data_are_kept_and_logged(read, caplog):
    with caplog.at_level(logging.WARNING):
        alignment = read(_fasta(*FOUR, "--N?", "????"))
    assert alignment.num_taxa == 6
    assert "no data in taxon 't4', 't5'" in caplog.text
    assert "identical" not in caplog.text


def test_identical_sequences_are_kept_and_logged(read, caplog):
    with caplog.at_level(logging.WARNING):
        alignment = read(_fasta(*FOUR, "ACGT", "acgu", "AC-T", "ACNT"))
    assert alignment.num_taxa == 8
    assert "identical sequences: 't0', 't4', 't5'" in caplog.text
    assert "identical sequences: 't6', 't7'" in caplog.text


def test_long_lists_of_taxa_are_cut(read, caplog):
    with caplog.at_level(logging.WARNING):
        read(_fasta(*["ACGT"] * 13))
    assert "'t9' and 3 more" in caplog.text


def test_dots_are_logged(read, caplog):
    with caplog.at_level(logging.WARNING):
        read(_fasta("ACGT", "..A.", "..C.", "G..."))
    assert "9 dots are read as missing data" in caplog.text


def test_a_plain_alignment_logs_nothing(read, caplog):
    with caplog.at_level(logging.DEBUG):
        read(_fasta(*FOUR))
    assert caplog.records == []


def test_write_fasta_round_trips(tmp_path):
    generator = np.random.default_rng(8)
    names = ("plain", "with space; (odd) 'quoted' [x] | > \"y\"", "猫", ">a", ";b", "#NEXUS")
    alignment = Alignment(names, generator.integers(1, 16, (6, 333), dtype=np.uint8), "made up")
    write_fasta(alignment, tmp_path / "out.fasta")
    again = read_alignment(tmp_path / "out.fasta")
    assert again.taxa == names
    np.testing.assert_array_equal(again.states, alignment.states)
    assert again.source == str(tmp_path / "out.fasta")


@pytest.mark.parametrize(
    ("taxa", "states", "message"),
    [
        (("a", "a"), np.ones((2, 3), np.uint8), "'a' appear more than once"),
        (("a", ""), np.ones((2, 3), np.uint8), "taxon 2 is named ''"),
        (("a\nb", "c"), np.ones((2, 3), np.uint8), "taxon 1 is named 'a\\\\nb'"),
        (("a", "b"), np.ones((3, 3), np.uint8), "came 3 rows for 2 taxa"),
        (("a", "b"), np.ones((2, 0), np.uint8), "the alignment has no sites"),
        (("a", "b"), np.zeros((2, 3), np.uint8), "expected states from 1 to 15"),
        (("a", "b"), np.full((2, 3), 16, np.uint8), "expected states from 1 to 15"),
    ],
)
def test_alignments_are_checked_when_made(taxa, states, message):
    with pytest.raises(AlignmentError, match=message):
        Alignment(taxa, states, "here")


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    """A file to overwrite again and again."""
    return tmp_path_factory.mktemp("fuzz") / "alignment"


FRAGMENTS = [
    *(symbol.encode() for symbol in "\n \t'\"[];{(=.>éß\0\u2028"),
    b"\xff", b"\r\n", b"#NEXUS", b"CLUSTAL\n", b"matrix", b"begin data;", b"interleave", b"missing=",
    b"gap=\xc3\x9f ", b"matchchar=A ", b"nchar=0", b"ntax=", b"4 10\n", b"0 0\n", b"999999999 999999999999\n",
]  # fmt: skip
"""What readers may stumble over."""


@settings(max_examples=400, deadline=None, derandomize=True)
@given(
    dialect=st.sampled_from(sorted(DIALECTS)),
    seed=st.integers(0, 2**32),
    num_mutations=st.integers(1, 6),
    compressed=st.booleans(),
)
def test_mutated_files_give_an_alignment_or_an_alignment_error(
    dialect, seed, num_mutations, compressed, scratch
):
    generator = random.Random(seed)
    content = DIALECTS[dialect].encode()
    if compressed and generator.random() < 0.2:
        content = gzip.compress(content, mtime=0)
    for _ in range(num_mutations):
        start, stop = sorted(generator.choices(range(len(content) + 1), k=2))
        match generator.randrange(5):
            case 0:
                content = content[:start] + content[stop:]
            case 1:
                content = content[:start] + generator.choice(FRAGMENTS) + content[start:]
            case 2:
                content = content[:start] + generator.randbytes(1) + content[start + 1 :]
            case 3:
                content = content[:stop] + content[start:stop] + content[stop:]
            case 4:
                content = content[: max(stop, 1)]
    scratch.write_bytes(content)
    try:
        alignment = read_alignment(scratch)
    except AlignmentError:
        return
    assert alignment.num_taxa >= 4
    assert alignment.states.shape == (alignment.num_taxa, alignment.num_sites)
    assert alignment.states.min() >= 1


@settings(max_examples=200, deadline=None, derandomize=True)
@given(content=st.binary(max_size=200))
def test_random_bytes_give_an_alignment_error(content, scratch):
    scratch.write_bytes(content)
    with pytest.raises(AlignmentError):
        read_alignment(scratch)
