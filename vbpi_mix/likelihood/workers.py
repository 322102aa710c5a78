"""Threads that help the caller's thread, kept between calls.

While jobs follow each other closely a helper stays in compiled code and sees them at once (see `_board`).
Then it sleeps, until the next job wakes it.
"""

import threading
import time
import weakref
from collections.abc import Callable

import numpy as np

from vbpi_mix.likelihood import _board
from vbpi_mix.likelihood.layout import aligned

DOZE_SECONDS = 5e-5
"""How long the poster of a job sleeps between looks whether it is done, if that takes long."""


def new_board() -> np.ndarray:
    """A board without a job."""
    board = aligned((_board.SIZE,), "int64")
    board[:] = 0
    board[_board.NEXT] = _board.JOB - 1
    return board


class Workers:
    """The caller's thread and its helpers.

    Attributes:
        count: Number of threads, the caller's included.
        board: Where jobs are posted and taken from.
    """

    def __init__(self, threads: int) -> None:
        """Start the helpers.

        Raises:
            ValueError: Less than one thread is wanted.
        """
        if threads < 1:
            raise ValueError(f"threads must be at least one, got {threads}.")
        self.count = threads
        self.board = new_board()
        self._shared = _Shared(self.board)
        for worker in range(1, self.count):
            threading.Thread(target=_serve, args=(worker, self._shared), daemon=True).start()
        weakref.finalize(self, _Shared.close, self._shared)

    def serve(self, task: Callable[[int], None]) -> None:
        """Give the helpers what to call with their number: code that takes pieces until jobs cease."""
        self._shared.task = weakref.WeakMethod(task)

    def wake(self) -> None:
        """Wake the helpers that sleep; a job is about to be posted."""
        self._shared.wake()

    def await_finish(self) -> None:
        """Wait until the last pieces that helpers took are done."""
        while not _board.await_finish(self.board):
            time.sleep(DOZE_SECONDS)  # a helper was stopped: leave it the processor


class _Shared:
    """What helpers hold: not the workers themselves, which would then live for ever."""

    def __init__(self, board: np.ndarray) -> None:
        self.board = board
        self.task: weakref.WeakMethod | None = None
        self.sleepers: list[threading.Lock] = []

    def wake(self) -> None:
        while self.sleepers:
            self.sleepers.pop().release()

    def close(self) -> None:
        _board.close(self.board)
        self.wake()


def _serve(worker: int, shared: _Shared) -> None:
    """Life of a helper."""
    pillow = threading.Lock()
    pillow.acquire()
    while True:
        shared.sleepers.append(pillow)
        if shared.board[_board.CLOSED]:
            return
        pillow.acquire()
        task = shared.task() if shared.task is not None else None
        if task is not None:
            task(worker)
        del task
