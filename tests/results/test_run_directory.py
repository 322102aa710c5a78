import json
import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from vbpi_mix.errors import RunDirectoryError
from vbpi_mix.results import run_directory
from vbpi_mix.results.run_directory import RunDirectory, atomic_write, read_json_lines, to_json, write_text


@contextmanager
def no_room():
    """Let no file grow beyond 1000 bytes, as on a full disk; pytest must not print meanwhile."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


HOLDER = """
import sys, time
from pathlib import Path
from vbpi_mix.results.run_directory import RunDirectory
with RunDirectory(Path(sys.argv[1])).lock():
    print("held", flush=True)
    time.sleep(60)
"""

WRITER = """
import sys
from pathlib import Path
from vbpi_mix.results.run_directory import atomic_write
print("ready", flush=True)
version = 0
while True:
    version += 1
    with atomic_write(Path(sys.argv[1])) as path:
        with path.open("w") as file:
            for _ in range(200):
                file.write(f"{version}\\n" * 50)
                file.flush()
"""


def test_a_failed_write_leaves_the_old_content_and_no_remnant(tmp_path):
    path = tmp_path / "result.json"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError), atomic_write(path) as temporary:
        temporary.write_text("half of the \ud800", encoding="utf-8")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["result.json"]


def test_without_room_the_error_names_file_and_cure(tmp_path):
    path = tmp_path / "result.json"
    write_text(path, "old")
    message = r"result\.json: cannot be written \(File too large\); make room"
    with pytest.raises(RunDirectoryError, match=message), no_room():
        write_text(path, 2000 * "x")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["result.json"]
    with pytest.raises(RunDirectoryError, match=r"metrics\.jsonl: cannot be written .*--resume"), no_room():
        run_directory.append_json_line(tmp_path / "metrics.jsonl", {"text": 2000 * "x"})


def test_where_nothing_can_be_written_another_place_is_asked_for(tmp_path):
    with pytest.raises(
        RunDirectoryError, match=r"trees\.nex: cannot be written \(No such file.*another place"
    ):
        write_text(tmp_path / "missing" / "trees.nex", "x")


def test_files_get_ordinary_permissions(tmp_path):
    write_text(tmp_path / "a", "x")
    (tmp_path / "b").write_text("x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_process_killed_at_any_moment_leaves_a_whole_file(tmp_path):
    path = tmp_path / "topologies.trprobs"
    for delay in (0.02, 0.05, 0.11):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE) as process:
            assert process.stdout.readline() == b"ready\n"
            deadline = time.monotonic() + 60
            while not path.exists() and time.monotonic() < deadline:
                time.sleep(0.005)
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
        lines = path.read_text().splitlines()
        assert len(lines) == 10_000
        assert len(set(lines)) == 1


def test_remnants_of_a_killed_process_go_when_the_directory_is_next_held(tmp_path):
    directory = RunDirectory(tmp_path)
    (tmp_path / ".result.json.deadbeef.tmp").write_text("half")
    with directory.lock():
        assert not list(tmp_path.glob(".*.tmp"))


def test_two_processes_cannot_hold_one_directory(tmp_path):
    directory = RunDirectory(tmp_path / "new" / "run")
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(directory.path)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"held\n"
        with (
            pytest.raises(RunDirectoryError, match=f"in use by process {process.pid}; wait"),
            directory.lock(),
        ):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        with directory.lock():  # the system freed it
            pass


def test_the_lock_is_free_after_the_block(tmp_path):
    directory = RunDirectory(tmp_path)
    for _ in range(2):
        with directory.lock():
            pass


def test_a_directory_that_holds_a_run_is_refused(tmp_path):
    directory = RunDirectory(tmp_path)
    directory.require_new()
    (tmp_path / "notes.txt").write_text("other files do not matter")
    directory.require_new()
    directory.config.write_text("")
    with pytest.raises(RunDirectoryError, match="already holds a run; continue it with --resume"):
        directory.require_new()


def test_a_file_is_no_run_directory(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirectoryError, match="expected a directory for the run, found a file"):
        RunDirectory(tmp_path / "file").require_new()
    with pytest.raises(RunDirectoryError, match="expected the directory of a run, but there is none"):
        RunDirectory(tmp_path / "file").require_run()
    with (
        pytest.raises(RunDirectoryError, match="cannot write there"),
        RunDirectory(tmp_path / "file" / "x").lock(),
    ):
        pass


def test_a_directory_without_a_run_is_named_so(tmp_path):
    with pytest.raises(RunDirectoryError, match=r"config\.toml is missing"):
        RunDirectory(tmp_path).require_run()
    (tmp_path / "config.toml").write_text("")
    with pytest.raises(RunDirectoryError, match="has not saved its state yet"):
        RunDirectory(tmp_path).require_checkpoint()


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_json_refuses_what_is_not_finite(number):
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json({"bound": number})


def test_a_line_cut_short_by_a_crash_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    run_directory.append_json_line(path, {"iteration": 1, "taxon": "Ünï"})
    run_directory.append_json_line(path, {"iteration": 2})
    with path.open("a") as file:
        file.write(json.dumps({"iteration": 3})[:7])
    assert [record["iteration"] for record in read_json_lines(path)] == [1, 2]


@pytest.mark.parametrize("damaged", ["", "{", "\x00\x00\x00", "3", "[1]"])
def test_lines_from_a_damaged_one_on_are_left_out(tmp_path, damaged):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"iteration": 1}}\n{damaged}\n{{"iteration": 3}}\n')
    assert read_json_lines(path) == [{"iteration": 1}]


@pytest.mark.parametrize("value", ["null", '"2"', "[2]", "NaN", "1e999", "1" * 400, "[" * 100_000])
def test_lines_without_the_numbers_wanted_are_damaged(tmp_path, value):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"iteration": 1}}\n{{"iteration": {value}}}\n{{"iteration": 3}}\n')
    assert read_json_lines(path, ["iteration"]) == [{"iteration": 1}]
