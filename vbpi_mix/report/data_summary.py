"""What is worth knowing of an alignment before one believes anything made of it."""

from dataclasses import dataclass

import numpy as np

from vbpi_mix._nucleotides import MISSING
from vbpi_mix.patterns import SitePatterns


@dataclass(frozen=True)
class DataSummary:
    """Figures of an alignment.

    Attributes:
        num_taxa: Taxa.
        num_sites: Sites.
        num_patterns: Distinct site patterns.
        num_variable: Sites that no single nucleotide explains.
        num_informative: Sites where two different nucleotides are in two taxa or more each.
        missing: Share of missing symbols.
        ambiguous: Share of symbols that are sets of two or three nucleotides.
        frequencies: Shares of A, C, G and T among the unambiguous symbols; zeros without any.
        identical: Groups of taxa of equal sequences.
        gappy: Taxa of which at least half is missing, with the share, most missing first.
    """

    num_taxa: int
    num_sites: int
    num_patterns: int
    num_variable: int
    num_informative: int
    missing: float
    ambiguous: float
    frequencies: tuple[float, ...]
    identical: tuple[tuple[str, ...], ...]
    gappy: tuple[tuple[str, float], ...]


def summarise_data(patterns: SitePatterns) -> DataSummary:
    """Figures of an alignment, from its site patterns."""
    states, weights, taxa = patterns.states, patterns.weights, patterns.taxa
    total = len(taxa) * weights.sum()
    is_missing = states == MISSING
    counts = np.stack([(states == nucleotide).sum(axis=0) for nucleotide in (1, 2, 4, 8)])
    of_nucleotide = counts @ weights
    num_certain = float(of_nucleotide.sum())
    is_variable = np.bitwise_and.reduce(states, axis=0) == 0
    missing_of_taxon = is_missing @ weights / weights.sum()
    groups: dict[bytes, list[str]] = {}
    for taxon, row in zip(taxa, np.ascontiguousarray(states), strict=True):
        groups.setdefault(row.tobytes(), []).append(taxon)
    gappy = [
        (taxon, float(share)) for taxon, share in zip(taxa, missing_of_taxon, strict=True) if share >= 0.5
    ]
    return DataSummary(
        num_taxa=len(taxa),
        num_sites=round(patterns.num_sites),
        num_patterns=patterns.num_patterns,
        num_variable=round(float(weights[is_variable].sum())),
        num_informative=round(float(weights[(counts >= 2).sum(axis=0) >= 2].sum())),
        missing=float((is_missing.sum(axis=0) @ weights) / total),
        ambiguous=float(1 - (num_certain + is_missing.sum(axis=0) @ weights) / total),
        frequencies=tuple((of_nucleotide / max(num_certain, 1.0)).tolist()),
        identical=tuple(tuple(group) for group in groups.values() if len(group) > 1),
        gappy=tuple(sorted(gappy, key=lambda item: -item[1])),
    )
