"""The splits of a posterior as rows of tables: who is in them, how probable, how long their branches."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8

from vbpi_mix.report.run_files import PosteriorSplits

FOLDED_BELOW = 0.5
"""Probability below which a clade is folded away: it is not in the consensus tree."""
SHOWN_FROM = 0.01
"""Probability below which a clade is in ``splits.tsv`` only."""
MAX_ROWS = 500
"""Rows of rarer clades; the rest is in ``splits.tsv`` only."""


@dataclass(frozen=True)
class CladeRow:
    """An inner split.

    Attributes:
        number: Its number on the page, from 1, most probable first.
        taxa: Taxa of its smaller side, by their numbers.
        probability: Posterior probability.
        probability_error: Monte Carlo standard error of it.
        length: Mean length of its branch; NaN where no draw has it, as the next.
        interval: Ends of the 95% highest-density interval of the length.
    """

    number: int
    taxa: tuple[int, ...]
    probability: float
    probability_error: float
    length: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class CladeTable:
    """Clades of a posterior, most probable first.

    Attributes:
        likely: Those of probability above `FOLDED_BELOW`.
        rarer: Those below.
        num_left_out: How many others there are.
        number_of: Number of a row, by the row of the split in ``splits.tsv``.
    """

    likely: tuple[CladeRow, ...]
    rarer: tuple[CladeRow, ...]
    num_left_out: int
    number_of: dict[int, int]


def clade_table(splits: PosteriorSplits) -> CladeTable:
    """The inner splits of a posterior."""
    table, lengths = splits.table, splits.table.lengths
    assert lengths is not None  # the file has them
    inner = np.flatnonzero(splits.sides.sum(axis=1) > 1)
    num_likely, num_known = (
        int(np.count_nonzero(table.frequencies[inner] > least)) for least in (FOLDED_BELOW, SHOWN_FROM)
    )
    shown = inner[: min(num_known, num_likely + MAX_ROWS)].tolist()
    found = tuple(
        CladeRow(
            number,
            tuple(np.flatnonzero(splits.sides[row]).tolist()),
            float(table.frequencies[row]),
            float(splits.standard_errors[row]),
            float(lengths.mean[row]),
            (float(lengths.interval[row, 0]), float(lengths.interval[row, 1])),
        )
        for number, row in enumerate(shown, start=1)
    )
    numbers = {row: number for number, row in enumerate(shown, start=1)}
    return CladeTable(found[:num_likely], found[num_likely:], len(inner) - len(shown), numbers)


def smaller_side(side: UInt8[np.ndarray, "taxon"] | Bool[np.ndarray, "taxon"]) -> tuple[int, ...]:
    """Taxa of the smaller side of a split; of equal ones that with the first taxon, as in ``splits.tsv``.

    Args:
        side: Whether a taxon is on one side.
    """
    size, num_taxa = int(side.sum()), len(side)
    is_larger = 2 * size > num_taxa or (2 * size == num_taxa and not side[0])
    return tuple(np.flatnonzero(side != is_larger).tolist())
