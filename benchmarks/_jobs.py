"""Independent jobs that any number of processes work through together, each job once, whatever is killed.

A process claims a job by locking a file. The system frees the lock when the process dies, so the claims of
dead processes need no clearing away. The lock may be handed to a program that the job starts, which then
keeps the claim for as long as it lives, even where the process that started it is gone.
"""

import fcntl
import os
import platform
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def claim(path: Path) -> Iterator[int | None]:
    """Hold a lock file until the block ends, or the process and all that inherited the lock have died.

    Args:
        path: The lock file; made if need be, removed at the end. It names the process that holds it.

    Yields:
        Descriptor of the locked file, or None where another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _lock(path)
    if descriptor is None:
        yield None
        return
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{platform.node()} {os.getpid()}\n".encode())
        yield descriptor
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _lock(path: Path) -> int | None:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        # Its last holder may have removed the file between our opening and locking it.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        os.close(descriptor)


def work_through(
    names: Sequence[str],
    folder: Path,
    is_done: Callable[[str], bool],
    do: Callable[[str, int], None],
) -> list[str]:
    """Do every job that is neither done nor claimed by another process, in the order given.

    At the end the list is gone through again, for jobs that a process claimed and died over. A job that fails
    is reported on standard error and left to a later call.

    Args:
        names: Names of the jobs, which name their lock files.
        folder: Folder of the lock files, the same for all processes.
        is_done: Whether a job's result is there.
        do: Does a job and leaves its result, whole or not at all; is given the name, and the descriptor that
            a program may inherit to share the claim.

    Returns:
        Names of the jobs that failed.
    """
    failed: list[str] = []
    while True:
        has_worked = False
        for name in names:
            if name in failed or is_done(name):
                continue
            with claim(folder / f"{name}.lock") as descriptor:
                if descriptor is None or is_done(name):
                    continue
                has_worked = True
                try:
                    do(name, descriptor)
                except Exception:  # another job may well succeed
                    traceback.print_exc()
                    failed.append(name)
        if not has_worked:
            return failed
