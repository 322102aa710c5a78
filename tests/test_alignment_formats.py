"""Every format and dialect gives the same alignment; text that breaks its format gives a message."""

import gzip
import io
from pathlib import Path

import numpy as np
import pytest

from vbpi_mix.alignment import read_alignment
from vbpi_mix.errors import AlignmentError

ROWS = {"ant": "ACGTRYacgu", "bee.2": "A-GTNYACGT", "cat|x": "ACG?KYACGA", "dog-1": "TCGTRYWCGT"}
STATES = np.array(
    [
        [1, 2, 4, 8, 5, 10, 1, 2, 4, 8],
        [1, 15, 4, 8, 15, 10, 1, 2, 4, 8],
        [1, 2, 4, 15, 12, 10, 1, 2, 4, 1],
        [8, 2, 4, 8, 5, 10, 9, 2, 4, 8],
    ],
    dtype=np.uint8,
)


def _lines(separator: str = " ", start: int = 0, stop: int = 10) -> str:
    return "".join(f"{name}{separator}{sequence[start:stop]}\n" for name, sequence in ROWS.items())


def _blocks(separator: str = " ") -> str:
    return _lines(separator, 0, 4) + "\n" + _lines(separator, 4, 10)


def _nexus(
    matrix: str, layout: str = "datatype=dna missing=? gap=-", dimensions: str = "ntax=4 nchar=10"
) -> str:
    return f"#NEXUS\nbegin data;\ndimensions {dimensions};\nformat {layout};\nmatrix\n{matrix};\nend;\n"


FASTA = "".join(f">{name}\n{sequence}\n" for name, sequence in ROWS.items())
PHYLIP_CONTINUED = "4 10\n" + "".join(f"{name}  {s[:3]} {s[3:6]}\n  {s[6:]}\n" for name, s in ROWS.items())
UNNAMED_LATER_BLOCK = _lines("  ", 0, 4) + "\n" + "".join(f"{s[4:]}\n" for s in ROWS.values())
CLUSTAL = (
    "CLUSTAL W (1.83) multiple sequence alignment\n\n\n"
    + "".join(f"{name:<12}{s[:4]}\n" for name, s in ROWS.items())
    + " " * 12
    + " *. \n\n"
    + "".join(f"{name:<12}{s[4:]} 10\n" for name, s in ROWS.items())
    + " " * 12
    + "   ***\n"
)
SETS = _lines().replace("R", "{AG}").replace("K", "( G , T )").replace("YW", "{C T}(AT)")
MATCHED = "ant ACGTRYacgu\nbee.2 .-..N.....\ncat|x ...?K....A\ndog-1 T.....W...\n"

DIALECTS = {
    "FASTA": FASTA,
    "FASTA, wrapped, blank lines, spaces": "\n\n"
    + "".join(f"> {name} \n{s[:3]} {s[3:5]}\n\n{s[5:]}\n" for name, s in ROWS.items()),
    "FASTA, no final line end": FASTA.rstrip("\n"),
    "FASTA, DOS": FASTA.replace("\n", "\r\n"),
    "FASTA, old Mac": FASTA.replace("\n", "\r"),
    "FASTA, byte order mark": "\ufeff" + FASTA,
    "FASTA, lower case": "".join(f">{name}\n{s.lower()}\n" for name, s in ROWS.items()),
    "PHYLIP, relaxed": "4 10\n" + _lines("   "),
    "PHYLIP, relaxed, header options": " 4   10 I\n" + _lines("\t"),
    "PHYLIP, relaxed, sequential over lines": PHYLIP_CONTINUED,
    "PHYLIP, relaxed, name on its own line": "4 10\n" + _lines("\n"),
    "PHYLIP, relaxed, interleaved": "4 10\n" + UNNAMED_LATER_BLOCK,
    "PHYLIP, strict": "4 10\n" + "".join(f"{name:<10}{s}\n" for name, s in ROWS.items()),
    "PHYLIP, strict, interleaved": "4 10\n"
    + "".join(f"{name:<10}{s[:4]}\n" for name, s in ROWS.items())
    + "".join(f"          {s[4:]}\n" for s in ROWS.values()),
    "PHYLIP, DOS": ("4 10\n" + UNNAMED_LATER_BLOCK).replace("\n", "\r\n"),
    "Clustal": CLUSTAL,
    "Clustal, DOS, no marks": "\nCLUSTAL O(1.2.4)\r\n\r\n" + _blocks("      ").replace("\n", "\r\n"),
    "MUSCLE": "MUSCLE (3.8) multiple sequence alignment\n\n" + _lines("   "),
    "NEXUS, type dna with U": _nexus(_lines()),
    "NEXUS, type nucleotide": _nexus(_lines(), "datatype=nucleotide"),
    "NEXUS, type rna": _nexus(_lines(), "DataType = RNA Gap = - Missing = ?"),
    "NEXUS, no type": _nexus(_lines(), "missing=? gap=-"),
    "NEXUS, capitals": _nexus(_lines().upper())
    .upper()
    .replace("ANT", "ant")
    .replace("BEE", "bee")
    .replace("CAT|X", "cat|x")
    .replace("DOG", "dog"),
    "NEXUS, DOS": _nexus(_lines()).replace("\n", "\r\n"),
    "NEXUS, tabs, wrapped": _nexus("".join(f"\t{n}\n\t{s[:5]}\n\t{s[5:]}\n" for n, s in ROWS.items())),
    "NEXUS, one line": _nexus(_lines()).replace("\n", " "),
    "NEXUS, interleave": _nexus(_blocks(), "datatype=dna interleave missing=? gap=-"),
    "NEXUS, interleave=yes": _nexus(_blocks(), "interleave=yes datatype=dna"),
    "NEXUS, interleave=no": _nexus(_lines(), "interleave=no datatype=dna"),
    "NEXUS, interleave but one block": _nexus(_lines(), "datatype=dna interleave"),
    "NEXUS, comments": _nexus("[1234; 'don't]\n[a [nested] one] " + _lines("[x]").replace("ACGT", "AC[!]GT")),
    "NEXUS, quoted names": _nexus("".join(f"'{n}' {s}\n" for n, s in ROWS.items())),
    "NEXUS, double quotes": _nexus("".join(f'"{n}"\t{s}\n' for n, s in ROWS.items())),
    "NEXUS, matchchar": _nexus(MATCHED, "datatype=dna matchchar=. missing=? gap=-"),
    "NEXUS, matchchar, interleave": _nexus(
        "\n".join(f"{n} {s[:4]}" for n, s in map(str.split, MATCHED.splitlines()))
        + "\n\n"
        + "\n".join(f"{n} {s[4:]}" for n, s in map(str.split, MATCHED.splitlines()))
        + "\n",
        "datatype=dna interleave matchchar=.",
    ),
    "NEXUS, other gap and missing": _nexus(
        _lines().replace("A-G", "A~G").replace("?", "!"), "datatype=dna missing='!' gap=~"
    ),
    "NEXUS, missing is a dot": _nexus(
        _lines().replace("?", ".").replace("A-G", "A.G"), "datatype=dna missing=."
    ),
    "NEXUS, missing=n": _nexus(_lines().replace("?", "n"), "datatype=dna missing=N"),
    "NEXUS, sets": _nexus(SETS),
    "NEXUS, sets, interleave": _nexus(SETS, "datatype=dna interleave"),
    "NEXUS, taxa block, other blocks": "#nexus\nBegin taxa;\nDimensions ntax=4;\n"
    + "Taxlabels ant bee.2 cat|x dog-1;\nEnd;\n"
    + "Begin Characters;\nTitle x;\nDimensions nchar=10;\nFormat datatype=DNA;\nMatrix\n"
    + _lines()
    + ";\nEnd;\nbegin mrbayes;\n lset nst=2;\nmatrix no matrix here;\nend;\n",
}


@pytest.fixture
def read(tmp_path):
    """Function that reads an alignment from text."""

    def read_text(text: str):
        path = tmp_path / "alignment.txt"
        path.write_bytes(text.encode())
        return read_alignment(path)

    return read_text


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_gives_the_same_alignment(dialect, read):
    alignment = read(DIALECTS[dialect])
    assert alignment.taxa == tuple(ROWS)
    np.testing.assert_array_equal(alignment.states, STATES)
    assert alignment.states.dtype == np.uint8
    assert (alignment.num_taxa, alignment.num_sites) == (4, 10)


@pytest.mark.parametrize("dialect", ["FASTA", "PHYLIP, relaxed", "Clustal", "NEXUS, interleave"])
@pytest.mark.parametrize("suffix", [".gz", ".txt"])
def test_gzip_is_found_from_the_content(dialect, suffix, tmp_path):
    path = tmp_path / f"alignment{suffix}"
    path.write_bytes(gzip.compress(DIALECTS[dialect].encode()))
    np.testing.assert_array_equal(read_alignment(path).states, STATES)


def _for_biopython(matrix: str) -> str:
    """A matrix without what Biopython refuses in NEXUS: | and - in names, and U in DNA."""
    return matrix.replace("cat|x", "cat_x").replace("dog-1", "dog_1").replace("u", "t")


@pytest.mark.parametrize(
    ("format_name", "text"),
    [
        ("clustal", DIALECTS["Clustal"].replace(" 10\n", "\n")),
        ("phylip-relaxed", DIALECTS["PHYLIP, relaxed, interleaved"]),
        ("phylip", DIALECTS["PHYLIP, strict, interleaved"]),
        ("phylip-sequential", DIALECTS["PHYLIP, strict"]),
        (
            "nexus",
            _nexus(_for_biopython(_blocks()), "datatype=dna interleave missing=? gap=-"),
        ),
        (
            "nexus",
            _nexus(_for_biopython(MATCHED), "datatype=dna matchchar=. missing=? gap=-"),
        ),
    ],
)
def test_biopython_reads_the_same_where_it_reads(format_name, text, read):
    from Bio import AlignIO

    records = AlignIO.read(io.StringIO(text), format_name)
    as_fasta = "".join(f">{record.id}\n{record.seq}\n" for record in records)
    ours, theirs = read(text), read(as_fasta)
    assert ours.taxa == theirs.taxa
    np.testing.assert_array_equal(ours.states, theirs.states)


NAMES = [
    "Homo sapiens",
    "gi|4557284|ref; (strain 'K-12') [x]",
    "Ünïcødé 猫 – dash",
    'a:b,c=d{e}"f"',
]


def test_fasta_keeps_the_whole_header_line(read):
    alignment = read("".join(f">  {name}\t\nACGT\nA\n" for name in NAMES).replace("Homo ", "Homo\t"))
    assert alignment.taxa == tuple(NAMES)


def test_nexus_keeps_quoted_names(read):
    rows = "".join("'{}' ACG TA\n".format(name.replace("'", "''")) for name in NAMES)
    assert read(_nexus(rows, dimensions="ntax=4 nchar=5")).taxa == tuple(NAMES)


def test_nexus_keeps_unquoted_names_with_odd_characters(read):
    names = ("D'Arcy", "x(1)", "y_z-{2}.3", "é|")
    matrix = "".join(f"{name} ACGT\n" for name in names)
    assert read(_nexus(matrix, dimensions="ntax=4 nchar=4")).taxa == names


def test_strict_phylip_names_with_spaces(read):
    text = "4 6\nHomo sapieACGTAC\nPan paniscACGTAA\nGorilla   ACGTCC\nPongo     ACG TTT\n"
    alignment = read(text)
    assert alignment.taxa == ("Homo sapie", "Pan panisc", "Gorilla", "Pongo")
    np.testing.assert_array_equal(alignment.states[1], [1, 2, 4, 8, 1, 1])


BROKEN = {
    "unknown format": ("hello world\n", r"expected an alignment in FASTA .* begins with 'hello world'"),
    "tree": ("((a,b),c);\n", "it looks like a Newick tree; convert it to FASTA"),
    "Stockholm": ("# STOCKHOLM 1.0\n", "looks like Stockholm"),
    "PHYLIP, wrong site count": (
        "4 11\n" + _lines(),
        r"expected 4 taxa of 11 sites, as its first line says, but taxon 'ant' has 10 sites",
    ),
    "PHYLIP, one short sequence": (
        "4 10\n" + _lines().replace("TCGTRYWCGT", "TCGTRYWCG"),
        r"but taxon 'dog-1' has 9 sites; correct the first line",
    ),
    "PHYLIP, too few taxa": ("5 10\n" + _lines(), "expected 5 taxa of 10 sites, .* but there are 4 taxa"),
    "PHYLIP, header only": ("4 10\n", "but there are 0 taxa"),
    "PHYLIP, two readings": (
        "2 6\nT A\nC GTAA\nA CCCC\nGG\n",
        "sequential and as interleaved, with different",
    ),
    "Clustal, name without sequence": (
        "CLUSTAL\n\nant ACGT\nbee\n",
        "line 4: expected a name and a part of its",
    ),
    "Clustal, duplicate": ("CLUSTAL\n\nant ACGT\nant ACGT\n", r"line 4: taxon 'ant' appears twice .*rename"),
    "Clustal, header only": ("CLUSTAL W\n", "expected at least 4 taxa, found 0"),
    "NEXUS, no matrix": ("#NEXUS\nbegin trees;\nend;\n", "expected one MATRIX, closed by ';', .* found 0"),
    "NEXUS, matrix not closed": (_nexus(_lines()).replace(";\nend;\n", ""), "closed by ';', .* found 0"),
    "NEXUS, two matrices": (2 * _nexus(_lines()), "expected one MATRIX.* found 2; keep the one"),
    "NEXUS, open comment": (_nexus("[ " + _lines()), r"comment opened by '\[' is never closed"),
    "NEXUS, protein": (_nexus(_lines(), "datatype=protein"), "came 'protein'; it looks like protein"),
    "NEXUS, standard": (
        _nexus(_lines(), 'datatype=standard symbols="01"'),
        "expected NEXUS datatype dna, rna",
    ),
    "NEXUS, transpose": (_nexus(_lines(), "datatype=dna transpose"), "option TRANSPOSE is not supported"),
    "NEXUS, equate": (_nexus(_lines(), 'equate="x=A"'), "option EQUATE is not supported"),
    "NEXUS, long missing symbol": (_nexus(_lines(), "missing=??"), r"MISSING to be one symbol, came '\?\?'"),
    "NEXUS, no nchar": (_nexus(_lines(), dimensions="ntax=4"), "expected DIMENSIONS .* nchar=None"),
    "NEXUS, wrong nchar": (
        _nexus(_lines(), dimensions="ntax=4 nchar=9"),
        r"expected 9 sites \(NCHAR\), taxon 'ant'",
    ),
    "NEXUS, wrong ntax": (
        _nexus(_lines(), dimensions="ntax=5 nchar=10"),
        r"expected 5 taxa \(NTAX\), .* has 4",
    ),
    "NEXUS, interleave not declared": (_nexus(_blocks()), "say INTERLEAVE in FORMAT"),
    "NEXUS, duplicate in interleave": (
        _nexus(_blocks().replace("dog-1", "ant"), "interleave"),
        r"expected 10 sites \(NCHAR\), taxon 'ant' has 20",
    ),
    "NEXUS, match symbol in first taxon": (
        _nexus(MATCHED.replace("ACGTRY", "AC.TRY"), "matchchar=."),
        "taxon 'ant', site 3: the first taxon has the MATCHCHAR '.'",
    ),
    "NEXUS, set of unknown symbols": (
        _nexus(SETS.replace("{AG}", "{A7}", 1)),
        "taxon 'ant', site 5: .* found '7'",
    ),
    "NEXUS, empty set": (_nexus(SETS.replace("{AG}", "{}", 1)), "taxon 'ant', site 5: .* found '{'"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_text_gives_a_message(case, read, tmp_path):
    text, message = BROKEN[case]
    with pytest.raises(AlignmentError, match=message) as caught:
        read(text)
    assert str(Path(tmp_path) / "alignment.txt") in str(caught.value)
