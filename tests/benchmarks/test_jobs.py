"""Jobs: each is done once, by whichever process; those of processes that died are taken over."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from _jobs import claim, work_through

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
HOLD = """
import subprocess, sys, time
from pathlib import Path
from _jobs import claim
with claim(Path(sys.argv[1])) as descriptor:
    if len(sys.argv) > 2:
        sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
        child = subprocess.Popen(sleep, pass_fds=(descriptor,))
        print(child.pid, flush=True)
    else:
        print(0, flush=True)
    time.sleep(60)
"""
WORK = """
import sys, time
from pathlib import Path
from _jobs import work_through
folder = Path(sys.argv[1])

def do(name, lock):
    time.sleep(0.02)
    with (folder / f"{name}.done").open("x") as file:
        file.write("done")

names = [f"job{number}" for number in range(20)]
sys.exit(len(work_through(names, folder, lambda name: (folder / f"{name}.done").exists(), do)))
"""


def start(code, *arguments):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(BENCHMARKS)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def holder(*arguments):
    """A process that holds a claim, and the number of its child."""
    process = start(HOLD, *arguments)
    return process, int(process.stdout.readline())


@pytest.fixture
def end():
    """Function that kills a process and waits for it; what a test leaves is killed after it."""
    processes = []

    def kill(process):
        processes.append(process)
        process.kill()
        process.wait()
        process.stdout.close()

    return kill


def test_a_claim_names_its_holder_and_goes_when_the_block_ends(tmp_path):
    path = tmp_path / "folder" / "job.lock"
    with claim(path) as descriptor:
        assert descriptor is not None
        assert path.read_text().split()[1] == str(os.getpid())
        with claim(path) as second:
            assert second is None
        assert path.exists()
    assert not path.exists()


def test_a_claim_is_freed_by_the_death_of_its_holder(tmp_path, end):
    path = tmp_path / "job.lock"
    process, _ = holder(path)
    with claim(path) as descriptor:
        assert descriptor is None
    end(process)
    assert path.exists()
    with claim(path) as descriptor:
        assert descriptor is not None


def test_a_program_that_shares_a_claim_keeps_it_when_its_starter_dies(tmp_path, end):
    path = tmp_path / "job.lock"
    process, child = holder(path, "with a child")
    end(process)
    with claim(path) as descriptor:
        assert descriptor is None
    os.kill(child, 9)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with claim(path) as descriptor:
            if descriptor is not None:
                return
        time.sleep(0.02)
    pytest.fail("the claim of a dead program is held")


def test_processes_share_jobs_and_do_each_once(tmp_path):
    workers = [start(WORK, tmp_path) for _ in range(3)]
    # A job done twice fails, as its result is there already.
    assert [worker.wait(60) for worker in workers] == [0, 0, 0]
    for worker in workers:
        worker.stdout.close()
    assert len(list(tmp_path.glob("*.done"))) == 20
    assert list(tmp_path.glob("*.lock")) == []


def test_finished_jobs_are_skipped_and_failing_ones_reported(tmp_path, capsys):
    done = []

    def do(name, lock):
        if name == "bad":
            raise RuntimeError("no luck")
        done.append(name)

    names = ["first", "old", "bad", "last"]
    assert work_through(names, tmp_path, lambda name: name == "old" or name in done, do) == ["bad"]
    assert done == ["first", "last"]
    assert "no luck" in capsys.readouterr().err


def test_jobs_that_others_hold_are_left_to_them(tmp_path, end):
    process, _ = holder(tmp_path / "held.lock")
    done = []
    work_through(["held", "free"], tmp_path, done.__contains__, lambda name, lock: done.append(name))
    assert done == ["free"]
    end(process)
    work_through(["held", "free"], tmp_path, done.__contains__, lambda name, lock: done.append(name))
    assert done == ["free", "held"]
