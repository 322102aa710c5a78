"""Split frequencies as plain values: from topologies, from tables of MrBayes, and their differences.

A split is named by the taxa, as indices in the alignment, of its side without the last taxon, such as
``"3,7,12"``. Only splits that part two taxa or more from two or more are looked at.
"""

import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from vbpi_mix.trees.summaries import SplitTable

LISTED_FROM = 0.1
"""Least frequency of the splits in the tables of MrBayes, and of those that are compared."""


def split_frequencies(
    children: np.ndarray, weights: np.ndarray | None = None, minimum: float = 0.0
) -> dict[str, float]:
    """Frequencies, of at least `minimum`, of the splits of weighted topologies, the most frequent first.

    Args:
        children: Canonical topologies, int32 [tree, internal, 2].
        weights: Weights of the trees, not normalised, [tree]; equal ones by default.
        minimum: Splits below it are left out.
    """
    from vbpi_mix.trees.summaries import split_table

    table = split_table(children, weights)
    return {
        name: float(frequency)
        for name, frequency in zip(split_names(table), table.frequencies, strict=True)
        if "," in name and frequency >= minimum
    }


def split_names(table: "SplitTable") -> list[str]:
    """Names of all splits of a table, in its order; that of a pendant branch is its taxon."""
    inside = np.unpackbits(table.masks.view(np.uint8), axis=1, bitorder="little")
    return [",".join(map(str, np.flatnonzero(row).tolist())) for row in inside]


def read_split_table(path: Path, taxa: Sequence[str]) -> dict[str, float]:
    """Split frequencies of a table with the columns probability, standard deviation and taxa of a side."""
    number = {taxon: index for index, taxon in enumerate(taxa)}
    frequencies = {}
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in list(file)[1:]:
            frequency, _, names = line.rstrip("\n").split("\t")
            side = {number[name] for name in names.split(",")}
            if len(taxa) - 1 in side:
                side = set(range(len(taxa))) - side
            if 1 < len(side) < len(taxa) - 1:
                frequencies[",".join(str(t) for t in sorted(side))] = float(frequency)
    return frequencies


def differences(ours: Mapping[str, float], table: Mapping[str, float]) -> dict[str, float]:
    """Absolute differences of split frequencies from a table that lists those from `LISTED_FROM` on.

    Of splits that the table does not list, only what exceeds `LISTED_FROM` counts.

    Returns:
        ``maximum``, ``mean`` and ``num_splits``.
    """
    found = [
        abs(ours.get(split, 0.0) - table.get(split, LISTED_FROM))
        for split in ours.keys() | table.keys()
        if split in table or ours[split] > LISTED_FROM
    ]
    if not found:
        return {"maximum": 0.0, "mean": 0.0, "num_splits": 0}
    return {"maximum": max(found), "mean": float(np.mean(found)), "num_splits": len(found)}


def listed(frequencies: Mapping[str, float]) -> dict[str, float]:
    """Splits of at least `LISTED_FROM`, as a table would list them."""
    return {split: frequency for split, frequency in frequencies.items() if frequency >= LISTED_FROM}
