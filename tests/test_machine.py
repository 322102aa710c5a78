"""Cores, devices, versions."""

import os
import platform

import numpy as np
import pytest
import torch

from vbpi_mix.errors import ConfigurationError
from vbpi_mix.machine import available_cores, check_torch_device, versions


def test_available_cores_are_those_of_the_process(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert available_cores() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert available_cores() == len(before)


@pytest.mark.parametrize(
    ("value", "most"),
    [("1", 1), ("1,4", 1), (" 1 ", 1), ("1000", None), ("0", None), ("many", None), ("", None)],
)
def test_available_cores_are_no_more_than_omp_num_threads(monkeypatch, value, most):
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    cores = len(os.sched_getaffinity(0))
    assert available_cores() == (cores if most is None else min(cores, most))


def test_devices_that_torch_cannot_use_are_refused():
    check_torch_device("cpu")
    with pytest.raises(ConfigurationError, match="--device abacus: torch cannot use it"):
        check_torch_device("abacus")


def test_versions_are_those_that_are_imported():
    import vbpi_mix

    found = versions()
    assert found["python"] == platform.python_version()
    assert found["numpy"] == np.__version__
    assert found["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert found["vbpi-mix"] == vbpi_mix.__version__
