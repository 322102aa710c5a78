"""Files of torch, read without trust: what is damaged is refused, whatever torch would make of it."""

from pathlib import Path
from typing import Any

from vbpi_mix.errors import RunDirectoryError


def read_torch_file(path: Path, what: str, version: int) -> dict[str, Any]:
    """Content of a file that ``torch.save`` wrote: a dictionary with a version.

    Torch does not check the sums of the archive that it reads, so numbers with a flipped bit would pass.

    Args:
        path: The file.
        what: What it should be, for messages.
        version: Version that it should be of.

    Raises:
        RunDirectoryError: It is absent, damaged, of something else, or of another version.
    """
    import pickle
    import zipfile

    import torch

    if not path.exists():
        raise RunDirectoryError(f"{path}: expected {what}, but there is no such file")
    try:
        if not zipfile.is_zipfile(path):
            raise pickle.UnpicklingError("not a torch file")
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise pickle.UnpicklingError(f"its part {damaged} is damaged")
        content = torch.load(path, map_location="cpu", weights_only=True)
        found = content["version"]
    except Exception as error:  # of any kind: a damaged archive leads zipfile, pickle and torch anywhere
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RunDirectoryError(
            f"{path}: expected {what}, but it cannot be read as one ({reason}); start the run again with "
            "another --out, or put back a copy of the file"
        ) from None
    if found != version:
        raise RunDirectoryError(
            f"{path}: expected a checkpoint of version {version}, got version {found}: use the version of "
            "vbpi-mix that wrote it, or start the run again"
        )
    return dict(content)
