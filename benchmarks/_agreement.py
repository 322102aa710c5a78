"""Agreement of a finished run with the reference posterior of its data set, where there is one."""

import gzip
import os
from pathlib import Path
from typing import Any

import numpy as np


def agreement_with_reference(run: Path, dataset: str) -> dict[str, Any] | None:
    """What ``vbpi-mix compare`` finds against golden topologies, or differences from a table of splits.

    The references are in the folder that ``VBPI_MIX_REFERENCE`` names.

    Args:
        run: Directory of the run.
        dataset: Name of a bundled data set.
    """
    folder = Path(os.environ.get("VBPI_MIX_REFERENCE", "absent"))
    golden = folder / "golden" / f"{dataset}.tsv.gz"
    splits = folder / "mrbayes" / f"{dataset}.splits.tsv.gz"
    if golden.exists():
        from vbpi_mix._cli_commands import compare

        return {**compare(run, golden, burn_in=0.0), "reference": f"golden/{golden.name}"}
    if splits.exists():
        return {"splits": compare_with_split_table(run, splits), "reference": f"mrbayes/{splits.name}"}
    return None


def compare_with_split_table(out: Path, table: Path) -> dict[str, float]:
    """Differences between corrected split probabilities of a run and a table of split frequencies.

    The table lists splits of frequency 0.1 and above; of others, only what exceeds 0.1 counts.
    """
    from vbpi_mix.results.posterior_files import load_final
    from vbpi_mix.results.run_directory import RunDirectory
    from vbpi_mix.training.checkpoint import Checkpoint
    from vbpi_mix.trees.summaries import split_table

    directory = RunDirectory(out)
    taxa = Checkpoint.load(directory.checkpoint).patterns.taxa
    final = load_final(directory.final_posterior)
    ours = split_table(final.topologies, np.exp(final.log_topology_probabilities))
    mine = {
        frozenset(t for t in range(len(taxa)) if int(mask[t // 64]) >> (t % 64) & 1): float(frequency)
        for mask, frequency in zip(ours.masks, ours.frequencies, strict=True)
    }
    theirs = {}
    with gzip.open(table, "rt", encoding="utf-8") as file:
        for line in list(file)[1:]:
            frequency, _, names = line.rstrip("\n").split("\t")
            side = frozenset(taxa.index(name) for name in names.split(","))
            if len(taxa) - 1 in side:  # splits are named by the side without the last taxon
                side = frozenset(range(len(taxa))) - side
            theirs[side] = float(frequency)
    differences = [
        abs(mine.get(side, 0.0) - theirs.get(side, 0.1))
        for side in mine.keys() | theirs.keys()
        if 1 < len(side) < len(taxa) - 1 and (side in theirs or mine[side] > 0.1)
    ]
    return {
        "maximum": max(differences),
        "mean": sum(differences) / len(differences),
        "num_splits": len(differences),
    }
