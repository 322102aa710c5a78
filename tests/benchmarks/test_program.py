"""Runs that benchmarks make: what is recorded of them."""

import json

import datasets
import pytest
from _program import run_program

SMALL = ["--iterations", "20", "--repeats", "2", "--samples", "60", "--posterior-samples", "20", "--quiet"]


def test_a_run_is_recorded_without_local_paths(tmp_path, monkeypatch):
    monkeypatch.delenv("VBPI_MIX_REFERENCE", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    measured = datasets.measure("DS1", 4, [*SMALL, "--no-refit"])
    assert (measured["dataset"], measured["seed"], measured["result"]["seed"]) == ("DS1", 4, 4)
    assert measured["result"]["iterations"] == 20
    assert 0 < measured["result"]["seconds"]["training"] < measured["wall_seconds"]
    assert measured["cpu_seconds"] > 0
    assert 0.1 < measured["peak_memory_gib"] < 8
    assert "agreement" not in measured
    assert str(tmp_path) not in json.dumps(measured)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_fails_ends_the_benchmark(tmp_path):
    with pytest.raises(SystemExit, match="failed with exit status 2"):
        run_program("DS1", ["--dataset", "DS1", "--components", "0"], tmp_path / "run")
