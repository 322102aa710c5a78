"""What a run computes with: cores of this process, devices that torch can use, versions of packages."""

import os
import platform
from importlib import metadata

from vbpi_mix.errors import ConfigurationError

PACKAGES = ("vbpi-mix", "numpy", "scipy", "numba", "torch", "arviz-stats", "dendropy", "biopython")
"""Distributions whose versions every result records."""


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
