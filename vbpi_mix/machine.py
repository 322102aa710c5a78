"""What a run computes with: cores of this process, and devices that torch can use."""

import os

from vbpi_mix.errors import ConfigurationError


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
