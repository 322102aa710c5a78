"""Text of the tables of a run: ``splits.tsv``, ``credible_sets.tsv``, and the ``.p`` files of MrBayes.

The two ``.tsv`` have a line of column names, tabs between columns and no quoting. Lists of taxa are JSON.
"""

import json
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float64, Int64

from vbpi_mix.results.correction import CorrectedPosterior
from vbpi_mix.results.posterior_summary import CredibleSet, SplitSummary

SPLIT_COLUMNS = (
    *("taxa", "bitmask", "size", "probability", "probability_se"),
    *("length_mean", "length_mean_se", "length_median", "length_sd"),
    *("length_hpd95_low", "length_hpd95_high", "length_ess"),
)

CREDIBLE_COLUMNS = ("tree", "probability", "cumulative", "ccd_probability", "credible_set")


def split_lines(taxa: Sequence[str], splits: SplitSummary) -> str:
    """Text of ``splits.tsv``: a line a split, most probable first, pendant ones included.

    Of the two sides of a split the smaller one is named, of equal ones that with the first taxon; ``bitmask``
    has a ``*`` for its taxa and a ``.`` for the others, as MrBayes' ``.parts``, in the order of ``taxa``.

    Args:
        taxa: Names in the order of the leaves' numbers.
        splits: The splits, with lengths.
    """
    table, lengths = splits.table, splits.table.lengths
    assert lengths is not None  # draws have branch lengths
    num_taxa = len(taxa)
    inside = np.unpackbits(table.masks.view(np.uint8), axis=1, bitorder="little")[:, :num_taxa].astype(bool)
    is_larger = (2 * table.sizes > num_taxa) | ((2 * table.sizes == num_taxa) & ~inside[:, 0])
    inside ^= is_larger[:, None]
    names = [json.dumps(name, ensure_ascii=False) for name in taxa]
    numbers = np.column_stack(
        [
            *(table.frequencies, splits.standard_errors, lengths.mean, lengths.sd / np.sqrt(lengths.ess)),
            *(lengths.median, lengths.sd, lengths.interval, lengths.ess),
        ]
    )
    masks = np.where(inside, b"*", b".").view(f"S{num_taxa}")[:, 0]
    pattern = "\t".join(["%.8g"] * numbers.shape[1])
    lines = ["\t".join(SPLIT_COLUMNS)]
    for side, mask, row in zip(inside, masks, numbers.tolist(), strict=True):
        members = np.flatnonzero(side).tolist()
        listed = "[" + ", ".join([names[i] for i in members]) + "]"
        lines.append(f"{listed}\t{mask.decode()}\t{len(members)}\t{pattern % tuple(row)}")
    return "\n".join(lines) + "\n"


def credible_lines(
    corrected: CorrectedPosterior, order: Int64[np.ndarray, "found"], sets: Sequence[CredibleSet]
) -> str:
    """Text of ``credible_sets.tsv``: the topologies of the largest credible set, most probable first.

    ``tree`` is the tree's name in ``topologies.trprobs``, ``credible_set`` the level of the smallest set that
    holds it.

    Args:
        corrected: The posterior.
        order: Indices of its topologies in the order of ``topologies.trprobs``.
        sets: Its credible sets, smallest first.
    """
    num = sets[-1].num_topologies
    probabilities = corrected.topology_probabilities[order[:num]]
    ccd = np.exp(corrected.ccd.log_probabilities[order[:num]])
    cumulated = np.minimum(np.cumsum(probabilities), 1.0)
    smallest = np.searchsorted([one.num_topologies for one in sets], np.arange(1, num + 1))
    rows = zip(probabilities.tolist(), cumulated.tolist(), ccd.tolist(), smallest.tolist(), strict=True)
    lines = ["\t".join(CREDIBLE_COLUMNS)]
    lines += [
        f"tree_{rank}\t{p:.8g}\t{total:.8g}\t{q:.8g}\t{sets[level].level:g}"
        for rank, (p, total, q, level) in enumerate(rows, start=1)
    ]
    return "\n".join(lines) + "\n"


def parameter_lines(comment: str, traces: Mapping[str, Float64[np.ndarray, "resampled"]]) -> str:
    """Text of a ``.p`` file, which MrBayes' ``sump`` and Tracer read: a line a tree, after a column ``Gen``.

    ``Gen`` numbers the trees from 1, as the names in the ``.t`` file do. Values have 10 significant digits.

    Args:
        comment: What to say in the first line.
        traces: Columns by name; the names have no blanks.
    """
    columns = [np.asarray(values).tolist() for values in traces.values()]
    pattern = "\t".join(["%d", *["%.10g"] * len(columns)])
    num_lines = len(columns[0]) if columns else 0
    lines = [pattern % row for row in zip(range(1, num_lines + 1), *columns, strict=True)]
    return "\n".join([f"[{comment}]", "\t".join(["Gen", *traces]), *lines, ""])
