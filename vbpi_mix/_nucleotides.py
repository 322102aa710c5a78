"""The alphabet: symbols of alignment files and the sets of nucleotides they stand for.

A set is a bit mask, A=1, C=2, G=4, T=8. Missing data is the full set, 15: it constrains nothing.
"""

import numpy as np

MISSING = 15
"""The set of all four nucleotides."""

_IUPAC = {
    "A": 1, "C": 2, "G": 4, "T": 8, "U": 8,
    "M": 1 | 2, "R": 1 | 4, "W": 1 | 8, "S": 2 | 4, "Y": 2 | 8, "K": 4 | 8,
    "V": 1 | 2 | 4, "H": 1 | 2 | 8, "D": 1 | 4 | 8, "B": 2 | 4 | 8,
}  # fmt: skip
_MISSING_SYMBOLS = "NXO?-."

MASKS = {symbol: mask for upper, mask in _IUPAC.items() for symbol in (upper, upper.lower())} | {
    symbol: MISSING for upper in _MISSING_SYMBOLS for symbol in (upper, upper.lower())
}
"""Bit mask of every known symbol, in either case."""

SYMBOLS = "?ACMGRSVTWYHKDBN"
"""IUPAC symbol of every bit mask; the empty set, mask 0, has none."""

AMINO_ACID_ONLY = frozenset("EFILPQZJefilpqzj*")
"""Symbols of proteins that no nucleotide alignment holds."""


def mask_table() -> np.ndarray:
    """Bit masks by ASCII code, uint8 [128]; 0 where the code is no known symbol."""
    table = np.zeros(128, dtype=np.uint8)
    for symbol, mask in MASKS.items():
        table[ord(symbol)] = mask
    return table
