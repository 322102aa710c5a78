"""What building a support from many trees costs: from ``support.py``."""

from pathlib import Path
from statistics import median

from _common import load
from _sections import Section, Table


def section(results: Path) -> Section | None:
    """The section, from ``support/*.json``."""
    found = load(results, "support/*.json")
    if not found:
        return None
    rows, findings = [], []
    for measured in found.values():
        read, build = median(measured["read_seconds"]), median(measured["build_seconds"])
        rows.append(
            [
                measured["dataset"],
                f"{measured['num_trees']:,}",
                f"{measured['file_megabytes']:.0f}",
                f"{measured['num_topologies']:,}",
                f"{measured['num_parameters']:,}",
                f"{read:.2f}",
                f"{build:.2f}",
                str(len(measured["read_seconds"])),
            ]
        )
        findings.append(
            f"{measured['num_trees']:,} trees of {measured['dataset']} take {read + build:.1f} s from file "
            "to tables."
        )
    table = Table(
        "A file of Newick trees with names and branch lengths, read and made into a support: medians of the "
        "repeats.",
        ["", "trees", "MB", "topologies", "parameters", "s: reading", "s: building", "repeats"],
        rows,
    )
    return Section("Support", findings, [table], [*found])
