"""Parsers of alignment files: text to (taxon, sequence) pairs.

They know where names and sequences stand, and leave it to the caller to check the sequences, which come back
without white space. Biopython reads FASTA. The other formats are read here: Biopython 1.87 refuses NEXUS
files that MrBayes and PAUP* read (U in a matrix of type DNA, no DATATYPE, sets such as {AG}, names with
``|``) and PHYLIP files with dots, wants to be told the dialect of PHYLIP, and does not return from a Clustal
file that ends after its header.
"""

import io
import re
from collections.abc import Callable
from operator import itemgetter

from vbpi_mix._nexus_matrix import parse_nexus
from vbpi_mix._nucleotides import MASKS
from vbpi_mix.errors import AlignmentError

Rows = list[tuple[str, str]]
"""Taxon names and sequences in the order of the file."""

_PHYLIP_HEADER = re.compile(r"\s*(\d{1,9})\s+(\d{1,12})(\s+[A-Za-z]+)*\s*")
_CLUSTAL_PROGRAMS = ("CLUSTAL", "MUSCLE", "PROBCONS", "MSAPROBS", "KALIGN", "BIOPYTHON")
_PHYLIP_NAME_WIDTH = 10
_OTHER_FORMATS = (("# STOCKHOLM", "Stockholm"), ("<", "XML"), ("(", "a Newick tree"), ("LOCUS", "GenBank"))


def parse_alignment(text: str, source: str) -> Rows:
    r"""Taxa and sequences of the text of an alignment file, whose format its first line tells.

    Args:
        text: The file's content, with line ends ``\n``.
        source: The file's name, for messages.

    Raises:
        AlignmentError: If the format is not known or the text breaks it.
    """
    first_line = text.lstrip().partition("\n")[0].strip()
    if not first_line:
        raise AlignmentError(f"{source}: expected an alignment, the file is empty; check how it was made")
    if first_line.startswith(">"):
        return _parse_fasta(text)
    if first_line[:6].upper() == "#NEXUS":
        return parse_nexus(text, source)
    if first_line.upper().startswith(_CLUSTAL_PROGRAMS):
        return _parse_clustal(text, source)
    if _PHYLIP_HEADER.fullmatch(first_line):
        return _parse_phylip(text, source)
    looks = next(
        (f"; it looks like {name}" for start, name in _OTHER_FORMATS if first_line.startswith(start)), ""
    )
    raise AlignmentError(
        f"{source}: expected an alignment in FASTA ('>name' first), PHYLIP (two counts first), NEXUS "
        "('#NEXUS' first) or Clustal ('CLUSTAL' first), but the file begins with "
        f"{first_line[:40]!r}{looks}; convert it to FASTA"
    )


def _parse_fasta(text: str) -> Rows:
    """Rows of a FASTA file; a name is the whole header line."""
    from Bio.SeqIO.FastaIO import SimpleFastaParser

    return [
        (title, "".join(sequence.split()))
        for title, sequence in SimpleFastaParser(io.StringIO(text.lstrip()))
    ]


def _parse_clustal(text: str, source: str) -> Rows:
    """Rows of a Clustal file: blocks of ``name symbols [count]``, below each a line of conservation marks."""
    lines = text.split("\n")
    header_index = next(index for index, line in enumerate(lines) if line.strip())
    fragments: dict[str, list[str]] = {}
    in_block: set[str] = set()
    for number, line in enumerate(lines[header_index + 1 :], start=header_index + 2):
        if not line.strip() or line[0].isspace():
            in_block.clear()
            continue
        name, *fields = line.split()
        if len(fields) > 1 and fields[-1].isdigit():
            fields.pop()
        if not fields:
            raise AlignmentError(
                f"{source}, line {number}: expected a name and a part of its sequence, came "
                f"{line.strip()[:40]!r}; Clustal names hold no space and start their line"
            )
        if name in in_block:
            raise AlignmentError(
                f"{source}, line {number}: taxon {name!r} appears twice in a block (duplicate name); rename "
                "one of them"
            )
        in_block.add(name)
        fragments.setdefault(name, []).extend(fields)
    return [(name, "".join(parts)) for name, parts in fragments.items()]


def _parse_phylip(text: str, source: str) -> Rows:
    """Rows of a PHYLIP file, sequential or interleaved, with relaxed names or strict ones of ten characters.

    The format does not say which of these it is. All readings are tried; one counts if it gives the number of
    taxa and sites that the first line promises. Relaxed readings go before strict ones, and of two that still
    differ, one with nucleotides only goes before one with other symbols. Where none counts, the message is
    about the one that fits most taxa.
    """
    header, *lines = [line for line in text.split("\n") if line.strip()]
    match = _PHYLIP_HEADER.fullmatch(header)
    assert match is not None
    num_taxa, num_sites = int(match[1]), int(match[2])
    complaints: list[tuple[int, str]] = []
    for split_name in (_relaxed_name, _strict_name):
        readings: list[Rows] = []
        for arrange in (_interleaved, _sequential):
            rows = arrange(lines, num_taxa, num_sites, split_name)
            problem = _phylip_problem(rows, num_taxa, num_sites)
            if not problem and rows not in readings:
                readings.append(rows)
            complaints.append((sum(len(sequence) == num_sites for _, sequence in rows), problem))
        if len(readings) > 1:
            readings = [
                rows for rows in readings if all(MASKS.keys() >= set(s) for _, s in rows)
            ] or readings[:1]
        if len(readings) > 1:
            raise AlignmentError(
                f"{source}: this PHYLIP file can be read as sequential and as interleaved, with different "
                "results; convert it to FASTA"
            )
        if readings:
            return readings[0]
    raise AlignmentError(
        f"{source}: expected {num_taxa} taxa of {num_sites} sites, as its first line says, but "
        f"{max(complaints, key=itemgetter(0))[1]}; correct the first line, or the sequences"
    )


def _relaxed_name(line: str) -> tuple[str, str]:
    """Name and the rest of a line, parted by white space."""
    name, *rest = line.split(maxsplit=1)
    return name, "".join(rest)


def _strict_name(line: str) -> tuple[str, str]:
    """Name and the rest of a line whose first ten characters are the name."""
    return line[:_PHYLIP_NAME_WIDTH].strip(), line[_PHYLIP_NAME_WIDTH:]


def _interleaved(
    lines: list[str], num_taxa: int, num_sites: int, split_name: Callable[[str], tuple[str, str]]
) -> Rows:
    """Rows of blocks with one line a taxon; the first block has the names."""
    rows = []
    for index, line in enumerate(lines[:num_taxa]):
        name, start = split_name(line)
        rows.append((name, "".join("".join([start, *lines[index + num_taxa :: num_taxa]]).split())))
    return rows


def _sequential(
    lines: list[str], num_taxa: int, num_sites: int, split_name: Callable[[str], tuple[str, str]]
) -> Rows:
    """Rows of which each goes on over lines until its sites are complete."""
    rows: Rows = []
    parts: list[str] = []
    missing_sites = 0
    for line in lines:
        if missing_sites <= 0:
            name, start = split_name(line)
            parts = ["".join(start.split())]
            missing_sites = num_sites
            rows.append((name, parts[0]))
        else:
            parts.append("".join(line.split()))
        missing_sites -= len(parts[-1])
        if missing_sites <= 0:
            rows[-1] = (rows[-1][0], "".join(parts))
    if rows and missing_sites > 0:
        rows[-1] = (rows[-1][0], "".join(parts))
    return rows


def _phylip_problem(rows: Rows, num_taxa: int, num_sites: int) -> str:
    """What keeps a reading from being what the first line promises; empty if nothing does."""
    if len(rows) != num_taxa:
        return f"there are {len(rows)} taxa"
    for name, sequence in rows:
        if len(sequence) != num_sites:
            return f"taxon {name!r} has {len(sequence)} sites"
    return ""
