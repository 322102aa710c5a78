"""Progress of a run: a live bar with the bound and the time left on a terminal, sparse lines elsewhere.

Everything goes to standard error, so that standard output holds results only.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TextIO

from vbpi_mix._cli_output import unheard

LINES = 10
"""Progress lines of a training where there is no terminal, apart from those that ``MAX_SILENCE`` asks for."""

MAX_SILENCE = 60.0
"""Seconds after which a line is due even if little has happened."""


class Progress(Protocol):
    """What a run tells its user while it goes on."""

    def stage(self, text: str) -> None:
        """Say what is being done or has been found."""

    def expect(self, num_iterations: int) -> None:
        """Take note of how many iterations there will be, where that was not known or has changed."""

    def training(
        self, iteration: int, bound: float, inverse_temperature: float, others: Sequence[float] = ()
    ) -> None:
        """Say how far training is.

        Args:
            iteration: Iterations done; of several runs, by the slowest.
            bound: Mean bound of the latest ones, in nats.
            inverse_temperature: Of the last one; below 1 the bound is that of a tempered posterior.
            others: Mean bounds of other runs that are trained at the same time, in nats.
        """


def duration(seconds: float) -> str:
    """A duration in words: ``4.2 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def bound_text(bound: float, inverse_temperature: float, others: Sequence[float] = ()) -> str:
    """The bound in words. Annealing lowers it, so that a tempered one says nothing on how good the fit is."""
    text = ("bounds " if others else "bound ") + ", ".join(f"{value:.2f}" for value in (bound, *others))
    return (
        text
        if inverse_temperature == 1.0
        else f"annealing {100 * inverse_temperature:.0f}% (tempered {text})"
    )


class SilentProgress:
    """Says nothing."""

    def stage(self, text: str) -> None:
        """Say nothing."""

    def expect(self, num_iterations: int) -> None:
        """Say nothing."""

    def training(
        self, iteration: int, bound: float, inverse_temperature: float, others: Sequence[float] = ()
    ) -> None:
        """Say nothing."""


class PlainProgress:
    """Writes a line now and then: for log files and pipes."""

    def __init__(
        self, num_iterations: int, stream: TextIO, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Tell of a training of `num_iterations` on `stream`."""
        self._num_iterations = num_iterations
        self._stream = stream
        self._clock = clock
        self._start: tuple[int, float] | None = None
        self._last: tuple[int, float] = (0, 0.0)

    def stage(self, text: str) -> None:
        """Write the text on a line."""
        with unheard():
            print(text, file=self._stream, flush=True)

    def expect(self, num_iterations: int) -> None:
        """Count from now on in parts of so many iterations."""
        self._num_iterations = num_iterations

    def training(
        self, iteration: int, bound: float, inverse_temperature: float, others: Sequence[float] = ()
    ) -> None:
        """Write a line if a tenth of the training has passed since the last, or a minute."""
        now = self._clock()
        is_end = iteration == self._num_iterations
        state = (
            f"iteration {iteration:,} of {self._num_iterations:,} "
            f"({100 * iteration // self._num_iterations}%), {bound_text(bound, inverse_temperature, others)}"
        )
        if self._start is None:
            self._start = self._last = (iteration, now)
            if is_end:
                self.stage(state)
            return
        is_tenth = iteration - self._last[0] >= self._num_iterations / LINES
        if not is_tenth and now - self._last[1] < MAX_SILENCE and not is_end:
            return
        self._last = (iteration, now)
        pace = (now - self._start[1]) / max(1, iteration - self._start[0])
        left = duration(pace * (self._num_iterations - iteration))
        self.stage(f"{state}, {1000 * pace:.2f} ms/iteration" + ("" if is_end else f", {left} left"))


class TerminalProgress:
    """Keeps a live bar at the bottom of the terminal, with lines of text above it."""

    def __init__(self, num_iterations: int, stream: TextIO) -> None:
        """Tell of a training of `num_iterations`; `start` shows the bar and `stop` takes it off."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self._bar = RichProgress(
            TextColumn("training"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[bound]}"),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            TextColumn("{task.fields[time]}"),
            console=Console(file=stream),
            refresh_per_second=4,
        )
        self._task = self._bar.add_task(
            "training", total=num_iterations, visible=False, start=False, bound="", time="left"
        )
        self._num_iterations = num_iterations
        self._has_begun = False

    def start(self) -> None:
        """Show the bar."""
        with unheard():
            self._bar.start()

    def stop(self) -> None:
        """Take the bar off."""
        with unheard():
            self._bar.stop()

    def stage(self, text: str) -> None:
        """Write the text above the bar."""
        with unheard():
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def expect(self, num_iterations: int) -> None:
        """Let the bar end at so many iterations."""
        self._num_iterations = num_iterations
        self._bar.update(self._task, total=num_iterations)

    def training(
        self, iteration: int, bound: float, inverse_temperature: float, others: Sequence[float] = ()
    ) -> None:
        """Move the bar."""
        if not self._has_begun:
            # A resumed run starts in the middle: the pace counts from here.
            with unheard():
                self._bar.reset(self._task, completed=iteration, visible=True)
            self._has_begun = True
        time_means = "in all" if iteration == self._num_iterations else "left"
        self._bar.update(
            self._task,
            completed=iteration,
            bound=bound_text(bound, inverse_temperature, others),
            time=time_means,
        )


@contextmanager
def show_progress(num_iterations: int, quiet: bool, stream: TextIO | None = None) -> Iterator[Progress]:
    """Progress in the way that suits the stream, by default standard error."""
    stream = sys.stderr if stream is None else stream
    if quiet:
        yield SilentProgress()
    elif stream.isatty():
        terminal = TerminalProgress(num_iterations, stream)
        terminal.start()
        try:
            yield terminal
        finally:
            terminal.stop()
    else:
        yield PlainProgress(num_iterations, stream)
