"""What a run computes with: cores of this process, devices that torch can use, versions of packages."""

import os
import platform
from importlib import metadata

from vbpi_mix.errors import ConfigurationError

PACKAGES = ("vbpi-mix", "numpy", "scipy", "numba", "torch", "arviz-stats", "dendropy", "biopython")
"""Distributions whose versions every result records."""


def available_cores() -> int:
    """Cores that this process may use: those it may run on, and no more than ``OMP_NUM_THREADS`` says."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    wanted = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # a list is by level of nesting
    return min(cores, int(wanted)) if wanted.isdecimal() and int(wanted) > 0 else cores


def check_torch_device(device: str) -> None:
    """Refuse a device that torch does not know or cannot reach.

    Raises:
        ConfigurationError: It is such a device.
    """
    import torch

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigurationError(
            f"--device {device}: torch cannot use it ({reason}); choose another, such as cpu"
        ) from None


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result depends on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    if "vbpi-mix" not in found:
        from vbpi_mix import __version__

        found["vbpi-mix"] = __version__
    return found
