"""The command ``vbpi-mix report``, and the page at the end of ``vbpi-mix run``."""

from collections.abc import Sequence
from pathlib import Path

from vbpi_mix._cli_output import say
from vbpi_mix.errors import VbpiMixError
from vbpi_mix.report.page import write_report
from vbpi_mix.results.run_directory import RunDirectory


def report(run: Path, references: Sequence[Path], burn_in: float | None, out: Path | None) -> Path:
    """Write the page of a finished run; the arguments are those of `vbpi_mix.report.page.write_report`.

    Returns:
        The file written.
    """
    return write_report(RunDirectory(run), references, burn_in, out)


def report_after_run(run: Path, resumed: bool = False) -> None:
    """Write the page of a run that has just finished; if that fails, the run has finished all the same.

    A resumed run that has a page had finished before: the page stays, as it may be one with a reference.
    """
    if resumed and RunDirectory(run).report.exists():
        return
    try:
        write_report(RunDirectory(run))
    except VbpiMixError as error:
        say(f"Note: no report: {error}; write it with 'vbpi-mix report'\n")


def update_report(run: Path) -> None:
    """Write the page anew where there is one, as what it shows has changed."""
    if RunDirectory(run).report.exists():
        report_after_run(run)
