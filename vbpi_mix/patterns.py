"""Site patterns: the distinct columns of an alignment, with the number of sites that show each.

Sites are independent given the tree, so the log-likelihood is the sum over patterns of weight times the
pattern's log-likelihood, and equal columns need computing once.

Under JC69 a column's likelihood does not change when the four nucleotides are permuted in all taxa alike,
because all rates and all base frequencies are equal. So patterns equal up to a relabelling can be merged too,
exactly, for that model only.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, UInt8

from vbpi_mix.alignment import Alignment


@dataclass(frozen=True, eq=False)
class SitePatterns:
    """Distinct site patterns of an alignment.

    Attributes:
        taxa: Names of the taxa, as in the alignment.
        states: Sets of nucleotides, uint8 [taxon, pattern]: bit masks A=1, C=2, G=4, T=8; 15 is missing.
            The columns are distinct, in the order in which they first occur.
        weights: Number of sites that show each pattern, float64 [pattern].
    """

    taxa: tuple[str, ...]
    states: UInt8[np.ndarray, "taxon pattern"]
    weights: Float64[np.ndarray, " pattern"]

    @property
    def num_taxa(self) -> int:
        """Number of taxa, n."""
        return len(self.taxa)

    @property
    def num_patterns(self) -> int:
        """Number of distinct patterns."""
        return self.states.shape[1]

    @property
    def num_sites(self) -> float:
        """Number of sites: the sum of the weights."""
        return float(self.weights.sum())

    def merge_relabelled(self) -> "SitePatterns":
        """Patterns merged where a permutation of the four nucleotides turns one into the other.

        The likelihood stays the same for JC69, and only for JC69: other models tell nucleotides apart. Sets
        of nucleotides are permuted element by element. Of each class the pattern that comes first stays, with
        the sum of the weights.
        """
        # Row s of `has_state` says which taxa may have nucleotide s. Permuting nucleotides permutes these
        # four rows, so two patterns are equal up to a relabelling exactly if their sorted rows are equal.
        has_state = (self.states[np.newaxis] >> np.arange(4, dtype=np.uint8)[:, np.newaxis, np.newaxis]) & 1
        packed = np.packbits(has_state, axis=1)
        keys_by_state = [_rows_as_bytes(np.ascontiguousarray(rows.T)) for rows in packed]
        return self._merged([b"".join(sorted(four)) for four in zip(*keys_by_state, strict=True)])

    def _merged(self, keys: list[bytes]) -> "SitePatterns":
        """Patterns with equal keys merged into the first of them; ``keys`` has one entry a pattern."""
        index_of_key: dict[bytes, int] = {}
        merged_index = np.array(
            [index_of_key.setdefault(key, len(index_of_key)) for key in keys], dtype=np.intp
        )
        _, first_index = np.unique(merged_index, return_index=True)
        return SitePatterns(
            taxa=self.taxa,
            states=np.ascontiguousarray(self.states[:, first_index]),
            weights=np.bincount(merged_index, weights=self.weights),
        )


def compress(alignment: Alignment) -> SitePatterns:
    """Distinct columns of an alignment, in the order in which they first occur, and how often each occurs.

    Columns that differ only in their missing symbols are equal. Columns without any data stay: their
    likelihood is 1, so they change nothing but keep the sum of weights at the number of sites.
    """
    every_site = SitePatterns(alignment.taxa, alignment.states, np.ones(alignment.num_sites))
    return every_site._merged(_rows_as_bytes(np.ascontiguousarray(alignment.states.T)))


def _rows_as_bytes(array: np.ndarray) -> list[bytes]:
    """Rows of a C-contiguous uint8 array [row, column] as byte strings."""
    content, width = array.tobytes(), array.shape[1]
    return [content[start : start + width] for start in range(0, len(content), width)]
