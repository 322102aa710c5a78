"""The user's own trees, of MrBayes, BEAST or any program, against the posterior of a run.

Split frequencies are compared by MrBayes' rule: the average standard deviation of split frequencies (ASDSF)
is the mean, over the splits that either sample gives at least `MIN_FREQUENCY`, of the standard deviation of
the two frequencies. A sample of Markov chains differs from the truth too: where the user gives several files,
the first two are compared with each other as well, for a yardstick.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from vbpi_mix.report.clades import smaller_side
from vbpi_mix.results.comparison import SplitAgreement, compare_drawn, compare_splits
from vbpi_mix.shapes import Topologies
from vbpi_mix.trees.samples import TreeSample, read_tree_sample
from vbpi_mix.trees.splits import find_masks
from vbpi_mix.trees.summaries import SplitTable, split_table
from vbpi_mix.trees.topology import unique_topologies

BURN_IN = 0.25
"""Share of a Markov chain's trees to leave out, as MrBayes does."""

MIN_FREQUENCY = 0.1
"""Splits are compared where either frequency is at least this."""


@dataclass(frozen=True)
class ReferenceFile:
    """A file of trees.

    Attributes:
        name: Its name.
        burn_in: Share of its trees that was left out; None where they are weighted, and it does not apply.
        num_trees: Weight of the trees kept: their number, where they are not weighted.
        num_topologies: Distinct topologies among them.
    """

    name: str
    burn_in: float | None
    num_trees: float
    num_topologies: int


@dataclass(frozen=True)
class Distance:
    """How far apart two posteriors are.

    Attributes:
        asdsf: Average standard deviation of split frequencies.
        splits: Differences of split frequencies.
        total_variation: Between the distributions of topologies, between 0 and 1.
    """

    asdsf: float
    splits: SplitAgreement
    total_variation: float


@dataclass(frozen=True)
class ReferenceComparison:
    """A posterior against a reference.

    Attributes:
        files: The reference's files, which count alike.
        to_run: From the reference to the run.
        coverage: Share of the reference's trees whose topologies the run's posterior has.
        within: From the first file to the second; None where there is one only.
        taxa: Taxa on the smaller side of each split that either gives `MIN_FREQUENCY`, by their numbers.
        reference: Frequencies of these splits in the reference.
        run: Their probabilities in the run.
    """

    files: tuple[ReferenceFile, ...]
    to_run: Distance
    coverage: float
    within: Distance | None
    taxa: tuple[tuple[int, ...], ...]
    reference: Float64[np.ndarray, "split"]
    run: Float64[np.ndarray, "split"]


def compare_with(
    paths: Sequence[Path],
    burn_in: float | None,
    taxa: tuple[str, ...],
    table: SplitTable,
    topologies: Topologies,
    log_probabilities: Float64[np.ndarray, "tree"],
) -> ReferenceComparison:
    """Compare a run's posterior with files of trees.

    Args:
        paths: The files, one at least.
        burn_in: Share of the trees of each to leave out; None: `BURN_IN`, where trees are not weighted.
        taxa: Names of the run's taxa.
        table: Splits of the run's posterior.
        topologies: Its distinct canonical topologies.
        log_probabilities: Log of their probabilities.

    Raises:
        TreeFormatError: A file cannot be read, or its taxa are not the run's.
        ValueError: A burn-in was given for weighted trees.
    """
    samples, files = [], []
    for path in paths:
        sample, used = _read(path, taxa, burn_in)
        samples.append(sample)
        files.append(ReferenceFile(path.name, used, float(sample.weights.sum()), len(sample.children)))
    children = np.concatenate([sample.children for sample in samples])
    weights = np.concatenate([sample.weights / sample.weights.sum() for sample in samples])
    children, inverse, _ = unique_topologies(children)
    weights = np.bincount(inverse, weights, minlength=len(children))
    pooled = split_table(children, weights)
    of_run = compare_drawn(children, weights, topologies, log_probabilities)
    within = None
    if len(samples) > 1:
        first, second = samples[:2]
        with np.errstate(divide="ignore"):
            chains = compare_drawn(
                first.children, first.weights, second.children, np.log(second.weights / second.weights.sum())
            )
        within = _distance(
            split_table(first.children, first.weights),
            split_table(second.children, second.weights),
            chains.total_variation,
        )
    sides, x, y = _frequencies(pooled, table, len(taxa))
    return ReferenceComparison(
        tuple(files), _distance(pooled, table, of_run.total_variation), of_run.coverage, within, sides, x, y
    )


def _read(path: Path, taxa: tuple[str, ...], burn_in: float | None) -> tuple[TreeSample, float | None]:
    """Topologies of a file, and the burn-in that was left out."""
    if burn_in is not None:
        return read_tree_sample(path, taxa, burn_in=burn_in), burn_in
    try:
        return read_tree_sample(path, taxa, burn_in=BURN_IN), BURN_IN
    except ValueError:  # weighted trees have none
        return read_tree_sample(path, taxa), None


def _distance(one: SplitTable, other: SplitTable, total_variation: float) -> Distance:
    splits = compare_splits(one, other, MIN_FREQUENCY)
    # The standard deviation of two values, with n - 1, is their difference over the root of two.
    return Distance(splits.mean / math.sqrt(2), splits, total_variation)


def _frequencies(
    reference: SplitTable, run: SplitTable, num_taxa: int
) -> tuple[tuple[tuple[int, ...], ...], np.ndarray, np.ndarray]:
    """Frequencies of the inner splits of either, with the largest difference first."""
    rows = find_masks(reference.masks, run.masks)
    elsewhere = np.setdiff1d(np.arange(len(reference.masks)), rows)
    masks = np.concatenate([run.masks, reference.masks[elsewhere]])
    sizes = np.concatenate([run.sizes, reference.sizes[elsewhere]])
    y = np.concatenate([run.frequencies, np.zeros(len(elsewhere))])
    x = np.concatenate(
        [np.where(rows < 0, 0.0, reference.frequencies[rows]), reference.frequencies[elsewhere]]
    )
    kept = np.flatnonzero((sizes > 1) & (np.maximum(x, y) >= MIN_FREQUENCY))
    kept = kept[np.argsort(-np.abs(x - y)[kept], kind="stable")]
    bits = np.unpackbits(np.ascontiguousarray(masks[kept]).view(np.uint8), axis=1, bitorder="little")[
        :, :num_taxa
    ]
    return tuple(smaller_side(row) for row in bits), x[kept], y[kept]
