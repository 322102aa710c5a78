"""A place for compiled code where there is none: a package installed by others, and no home to write in."""

import os
import stat
import tempfile
from pathlib import Path

VARIABLE = "NUMBA_CACHE_DIR"
"""Environment variable that tells numba where to keep compiled code."""


def provide_cache() -> None:
    """Name a folder of temporary files for compiled code, if neither the package nor the home can have it.

    Without any such place numba does not compile at all. To be called before numba is imported.
    """
    if os.environ.get(VARIABLE):
        return
    package = Path(__file__).resolve().parent
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "numba"
    # Compiled code lies beside every module; where some can be written, so can all.
    if not _is_writable(package / "__pycache__") and not _is_writable(home):
        os.environ[VARIABLE] = str(_own_folder(Path(tempfile.gettempdir()) / f"vbpi-mix-{os.getuid()}"))


def _is_writable(path: Path) -> bool:
    """Whether files can be made in a folder, which itself is made if need be."""
    try:  # rights do not tell: file systems may be read-only, and root may do anything elsewhere
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return True
    except OSError:
        return False


def _own_folder(path: Path) -> Path:
    """The folder, if it is this user's alone; otherwise a new one. What is cached there is executed."""
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
            return path
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="vbpi-mix-"))
