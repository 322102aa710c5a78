"""The benchmark of large alignments: which sizes are measured, and where."""

import json
import subprocess

import large
import pytest


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A folder of results in which every size takes no time."""
    monkeypatch.setattr(large, "RESULTS", tmp_path)
    monkeypatch.setattr(large, "measure", lambda num_taxa, threads, folder: {"num_taxa": num_taxa})
    monkeypatch.setattr(
        large, "save", lambda name, measured: (tmp_path / f"{name}.json").write_text(json.dumps(measured))
    )
    (tmp_path / "large").mkdir()
    return tmp_path


def test_all_sizes_not_yet_measured_get_a_process_each(results, monkeypatch):
    (results / "large" / "taxa0250.json").write_text("{}")
    commands = []
    monkeypatch.setattr(subprocess, "run", lambda command, check: commands.append(command))
    monkeypatch.setattr("sys.argv", ["large.py", "--threads", "1"])
    large.main()
    assert [command[2:5] for command in commands] == [
        [size, "--threads", "1"] for size in ("100", "500", "1000")
    ]


def test_one_size_is_measured_here_with_its_peak_memory(results, monkeypatch):
    monkeypatch.setattr("sys.argv", ["large.py", "250"])
    large.main()
    measured = json.loads((results / "large" / "taxa0250.json").read_text())
    assert measured["num_taxa"] == 250
    assert measured["peak_memory_gib"] > 0.01
