"""Agreement of a finished run with the reference posterior of its data set, where there is one."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from _splits import differences, read_split_table, split_frequencies


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


def compare_with_split_table(run: Path, table: Path) -> dict[str, float]:
    """Differences between corrected split probabilities of a run and a table; see `_splits.differences`."""
    from vbpi_mix.results.posterior_files import load_final
    from vbpi_mix.results.run_directory import RunDirectory
    from vbpi_mix.training.checkpoint import Checkpoint

    directory = RunDirectory(run)
    taxa = Checkpoint.load(directory.checkpoint).patterns.taxa
    final = load_final(directory.final_posterior)
    ours = split_frequencies(final.topologies, np.exp(final.log_topology_probabilities))
    return differences(ours, read_split_table(table, taxa))
