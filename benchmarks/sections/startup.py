"""What starting the program costs: from ``startup.py``."""

from pathlib import Path
from statistics import median

from _common import load
from _sections import Section


def section(results: Path) -> Section | None:
    """The section, from ``startup.json``."""
    found = load(results, "startup.json")
    if not found:
        return None
    (measured,) = found.values()
    text = (
        f"`vbpi-mix --help` takes {median(measured['help_seconds']):.2f} s and `vbpi-mix run --help` "
        f"{median(measured['run_help_seconds']):.2f} s (medians of {len(measured['help_seconds'])}). A first "
        "run of DS1 with an empty cache of compiled code takes "
        f"{measured['first_run_seconds']:.0f} s to all files, the next "
        f"{measured['second_run_seconds']:.0f} s."
    )
    return Section("Start-up", [text], [], [*found])
