"""Alignments of nucleotides: reading them from files, checking them, writing them."""

import gzip
import logging
import re
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vbpi_mix._alignment_formats import Rows, parse_alignment
from vbpi_mix._nucleotides import AMINO_ACID_ONLY, MASKS, MISSING, SYMBOLS, mask_table
from vbpi_mix.errors import AlignmentError
from vbpi_mix.shapes import States

MIN_TAXA = 4
"""Fewest taxa of an alignment file: three have only one unrooted topology."""

_GZIP_MAGIC = b"\x1f\x8b"
_CONTROL_CHARACTERS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_PROTEIN_SHARE = 0.05
_MAX_LISTED = 10
_FASTA_WIDTH = 80

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Alignment:
    """Aligned sequences of nucleotides.

    Attributes:
        taxa: Names, all different and not empty. A taxon's index here is its index everywhere.
        states: Sets of nucleotides, uint8 [taxon, site]: bit masks A=1, C=2, G=4, T=8; 15 is missing.
        source: Where the alignment comes from, such as a file's path; for messages.

    Raises:
        AlignmentError: If the names or the states are not as described.
    """

    taxa: tuple[str, ...]
    states: States
    source: str

    def __post_init__(self) -> None:
        for index, taxon in enumerate(self.taxa):
            if not taxon or taxon != _clean_name(taxon):
                raise AlignmentError(
                    f"{self.source}: expected names without line breaks, tabs or spaces around them, taxon "
                    f"{index + 1} is named {taxon!r}; give it a name"
                )
        repeated = [taxon for taxon, count in Counter(self.taxa).items() if count > 1]
        if repeated:
            raise AlignmentError(
                f"{self.source}: expected different names, but {_listed(repeated)} appear more than once "
                "(duplicate names); rename or remove the duplicates"
            )
        if self.states.shape[0] != len(self.taxa):
            raise AlignmentError(
                f"{self.source}: expected one row of states a taxon, came {self.states.shape[0]} rows for "
                f"{len(self.taxa)} taxa"
            )
        if self.num_sites == 0:
            raise AlignmentError(
                f"{self.source}: expected sequences, they are empty; the alignment has no sites"
            )
        if self.states.size and (self.states.min() < 1 or self.states.max() > MISSING):
            raise AlignmentError(f"{self.source}: expected states from 1 to {MISSING}, came others")

    @property
    def num_taxa(self) -> int:
        """Number of taxa, n."""
        return len(self.taxa)

    @property
    def num_sites(self) -> int:
        """Number of sites (columns)."""
        return self.states.shape[1]


def read_alignment(path: str | Path) -> Alignment:
    """Alignment of nucleotides in a file.

    The format is found from the content: FASTA, PHYLIP (sequential or interleaved, with relaxed or
    ten-character names), NEXUS or Clustal; any of them may be compressed by gzip. Symbols are IUPAC codes in
    either case, and in NEXUS also sets such as ``{AG}`` and ``(AG)``. ``U`` is ``T``; ``-``, ``?``, ``N``,
    ``X``, ``O`` and ``.`` are missing (``.`` unless a NEXUS file makes it the MATCHCHAR). The name of a FASTA
    sequence is its whole header line, without white space around it. Tabs in names become spaces.

    Taxa without data, identical sequences, and dots read as missing are kept and logged as warnings.

    Args:
        path: The file.

    Raises:
        AlignmentError: If the file cannot be read, is in no known format, breaks its format, has fewer than
            four taxa, names that repeat, sequences that are empty or differ in length, or symbols that are no
            nucleotides.
    """
    source = str(path)
    rows = [
        (_clean_name(name), sequence) for name, sequence in parse_alignment(_read_text(Path(path)), source)
    ]
    if len(rows) < MIN_TAXA:
        raise AlignmentError(
            f"{source}: expected at least {MIN_TAXA} taxa, found {len(rows)}; add some: fewer have only one "
            "unrooted topology, so that nothing is to be inferred about it"
        )
    _check_lengths(rows, source)
    alignment = Alignment(taxa=tuple(name for name, _ in rows), states=_states(rows, source), source=source)
    _warn_of_dots(rows, source)
    _warn_of_empty_and_identical(alignment)
    return alignment


def write_fasta(alignment: Alignment, path: str | Path) -> None:
    """Write an alignment as FASTA, missing states as ``N``.

    Args:
        alignment: What to write.
        path: The file, which is overwritten.
    """
    symbols = np.frombuffer(SYMBOLS.encode("ascii"), dtype=np.uint8)
    with Path(path).open("w", encoding="utf-8", newline="\n") as file:
        for taxon, states in zip(alignment.taxa, alignment.states, strict=True):
            sequence = symbols[states].tobytes().decode("ascii")
            file.write(f">{taxon}\n")
            file.writelines(
                sequence[i : i + _FASTA_WIDTH] + "\n" for i in range(0, len(sequence), _FASTA_WIDTH)
            )


def _read_text(path: Path) -> str:
    r"""Text of a file, uncompressed, with line ends ``\n``."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise AlignmentError(f"{path}: no such file; check the path of the alignment") from None
    except (OSError, ValueError) as error:  # ValueError: a path that holds a NUL
        raise AlignmentError(f"{path}: expected an alignment file, it cannot be read: {error}") from None
    if content.startswith(_GZIP_MAGIC):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise AlignmentError(f"{path}: damaged gzip file ({error}); copy or download it again") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise AlignmentError(
            f"{path}, line {line}: expected text in UTF-8, found the byte {content[error.start]:#04x}; if "
            "this is an alignment and not a binary file, save it as plain text in UTF-8"
        ) from None
    if "\0" in text:
        raise AlignmentError(
            f"{path}: expected text, this is a binary file; save the alignment as plain text in UTF-8"
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _clean_name(name: str) -> str:
    """A name on one line: control characters become spaces, and none surround it."""
    return _CONTROL_CHARACTERS.sub(" ", name).strip()


def _listed(names: list[str]) -> str:
    """Names for a message, the first ten of them."""
    rest = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    return ", ".join(repr(name) for name in names[:_MAX_LISTED]) + rest


def _check_lengths(rows: Rows, source: str) -> None:
    """Refuse sequences that are empty or differ in length."""
    empty = [name for name, sequence in rows if not sequence]
    if empty:
        raise AlignmentError(
            f"{source}: taxon {_listed(empty)}: the sequence is empty; add it or remove the taxon"
        )
    usual_length = Counter(len(sequence) for _, sequence in rows).most_common(1)[0][0]
    for name, sequence in rows:
        if len(sequence) != usual_length:
            raise AlignmentError(
                f"{source}: expected sequences of equal length, taxon {name!r} has {len(sequence)} sites "
                f"where others have {usual_length}; align the sequences first"
            )


def _states(rows: Rows, source: str) -> np.ndarray:
    """Bit masks of sequences of equal length, uint8 [taxon, site]."""
    table = mask_table()
    states = np.empty((len(rows), len(rows[0][1])), dtype=np.uint8)
    for row, (name, sequence) in zip(states, rows, strict=True):
        if sequence.isascii():
            row[:] = table[np.frombuffer(sequence.encode("ascii"), dtype=np.uint8)]
        if not sequence.isascii() or not row.all():
            site = next(index for index, symbol in enumerate(sequence) if symbol not in MASKS)
            raise AlignmentError(_unknown_symbol_message(rows, name, sequence[site], site + 1, source))
    return states


def _unknown_symbol_message(rows: Rows, taxon: str, symbol: str, site: int, source: str) -> str:
    """Message about a symbol that is no nucleotide; says so where the whole alignment looks like protein."""
    counts = sum((Counter(sequence) for _, sequence in rows), Counter[str]())
    num_residues = sum(count for s, count in counts.items() if MASKS.get(s) != MISSING)
    num_amino_acids = sum(counts[s] for s in AMINO_ACID_ONLY)
    where = (
        f"{source}: taxon {taxon!r}, site {site}: expected a nucleotide (IUPAC code) or one of - ? N X O ."
    )
    if num_amino_acids > _PROTEIN_SHARE * num_residues:
        return f"{where}, found {symbol!r}; this looks like protein, give the nucleotide alignment instead"
    return f"{where}, found {symbol!r}; correct it, or write N where the nucleotide is not known"


def _warn_of_dots(rows: Rows, source: str) -> None:
    """Log that dots were read as missing: other programs mean the symbol of the first taxon by them."""
    num_dots = sum(sequence.count(".") for _, sequence in rows)
    if num_dots:
        logger.warning(
            "%s: %d dots are read as missing data; if they mean the symbol of the first taxon, write those "
            "out or use NEXUS with MATCHCHAR",
            source,
            num_dots,
        )


def _warn_of_empty_and_identical(alignment: Alignment) -> None:
    """Log the taxa that have no data, and those that have the same sequence."""
    same: dict[bytes, list[str]] = {}
    is_empty = (alignment.states == MISSING).all(axis=1)
    for taxon, states, empty in zip(alignment.taxa, alignment.states, is_empty, strict=True):
        if not empty:
            same.setdefault(states.tobytes(), []).append(taxon)
    if is_empty.any():
        empty_taxa = [taxon for taxon, empty in zip(alignment.taxa, is_empty, strict=True) if empty]
        logger.warning(
            "%s: no data in taxon %s; their place in the tree follows from the prior alone",
            alignment.source,
            _listed(empty_taxa),
        )
    for taxa in same.values():
        if len(taxa) > 1:
            logger.warning("%s: identical sequences: %s", alignment.source, _listed(taxa))
