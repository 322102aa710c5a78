"""What the system may lack or take away: room on the disk, the right to write, standard streams, threads."""

import os
import resource
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
from robustness.readers import part_of_ds1

from vbpi_mix.alignment import Alignment, write_fasta
from vbpi_mix.results.run_directory import RunDirectory

VBPI_MIX = [sys.executable, "-m", "vbpi_mix.cli"]
QUICK = ["--runs", 1, "--model", "JC", "--iterations", 20, "--repeats", 2, "--samples", 60, "--quiet"]
QUICK += ["--posterior-samples", 2000, "--no-report"]


@pytest.fixture(scope="module")
def alignment(tmp_path_factory):
    path = tmp_path_factory.mktemp("inputs") / "six.fasta"
    write_fasta(part_of_ds1(), path)
    return path


def mount(*arguments):
    """Whether something could be mounted."""
    return subprocess.run(["mount", *map(str, arguments)], capture_output=True, check=False).returncode == 0


@contextmanager
def mounted(folder):
    """Whatever is mounted at a folder goes at the end."""
    try:
        yield
    finally:
        # Lazily: whatever is still open in it must not keep it.
        subprocess.run(["umount", "-l", folder], capture_output=True, check=False)


@contextmanager
def little_room(folder, kilobytes):
    """A folder with so little room; where nothing may be mounted, only its files cannot be larger."""
    if mount("-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", folder):
        with mounted(folder):
            yield lambda: mount("-o", "remount,size=50m", folder)
        return
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512 * kilobytes, before[1]))
    try:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    ("kilobytes", "file"),
    [(4, "support.trees.tsv.gz"), (40, "checkpoint.pt"), (180, "posterior.run1.t")],
)
def test_a_run_goes_on_when_there_is_room_again(kilobytes, file, alignment, tmp_path, command):
    folder = tmp_path / "disk"
    folder.mkdir()
    with little_room(folder, kilobytes) as make_room:
        out = folder / "run"
        code, _, err = command("run", alignment, "--out", out, *QUICK)
        if code == 0 and kilobytes == 4:
            pytest.skip("nothing can be mounted here, and the file is small enough")
        assert code == 2
        message = err.splitlines()[-1]
        assert message.startswith(f"Error: {out}/")
        assert file in message
        assert "cannot be written" in message
        assert "make room on the disk" in message
        assert not list(out.glob(".*.tmp"))
        make_room()
        again = ["run", "--resume", "--out", out, "--quiet", "--no-report"]
        if not RunDirectory(out).holds_run():
            again = ["run", alignment, "--out", out, *QUICK]
        code, _, err = command(*again)
        assert code == 0, err
        assert RunDirectory(out).result.exists()


def test_a_folder_that_becomes_read_only_is_told(alignment, tmp_path, command):
    folder = tmp_path / "disk"
    out = folder / "run"
    assert command("run", alignment, "--out", out, *QUICK)[0] == 0
    (folder / "other").mkdir()
    if not (mount("--bind", folder, folder) and mount("-o", "remount,ro,bind", folder)):
        pytest.skip("nothing can be mounted here, and root may write in every folder")
    with mounted(folder):
        before = (out / "result.json").read_bytes()
        for arguments in (
            ["run", alignment, "--out", folder / "new", *QUICK],
            ["run", alignment, "--out", folder / "other", *QUICK],
            ["run", "--resume", "--out", out],
            ["evaluate", out, "--update"],
            ["report", out],
            ["sample", out, "-n", 3, "--out", out / "new.t"],
        ):
            code, printed, err = command(*arguments)
            assert (code, printed) == (2, ""), arguments
            assert "Read-only file system" in err
            assert err.splitlines()[-1].startswith(f"Error: {folder}/")
        assert command("sample", out, "-n", 3)[0] == 0  # what writes nothing works
        assert (out / "result.json").read_bytes() == before


def shell(line, *arguments, **options):
    """A line of shell in which ``"$@"`` is the program with arguments."""
    return subprocess.run(
        ["bash", "-c", line, "bash", *VBPI_MIX, *map(str, arguments)],
        capture_output=True,
        check=False,
        **options,
    )


def test_where_results_cannot_be_printed_this_is_one_message():
    done = shell('"$@" > /dev/full', "datasets")
    assert done.returncode == 2
    assert (
        done.stderr
        == b"Error: standard output: cannot be written (No space left on device); direct it elsewhere\n"
    )


def test_names_that_the_terminal_cannot_show_are_one_message(tmp_path):
    data, tree = tmp_path / "data.fasta", "(a:1,b:1,(c:1,猫:1):1);"
    data.write_text(">a\nA\n>b\nC\n>c\nG\n>猫\nT\n", encoding="utf-8")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = shell('"$@"', "loglik", data, tree, "--gradient", "--json", env=environment)
    assert done.returncode == 2
    assert b"standard output: cannot take '\\u732b' in its encoding ascii; set the env" in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_run_goes_on_where_its_progress_cannot_be_written(alignment, tmp_path):
    loud = [argument for argument in QUICK if argument != "--quiet"]
    done = shell('"$@" 2>/dev/full', "run", alignment, "--out", tmp_path / "run", *loud)
    assert done.returncode == 0
    assert "log marginal likelihood" in done.stdout.decode()
    assert (tmp_path / "run" / "result.json").exists()


def test_closed_standard_streams_change_no_exit_code():
    done = shell('"$@" >&-', "datasets")
    assert (done.returncode, done.stderr) == (0, b"")
    done = shell('"$@" 2>&-', "loglik", "missing", "missing")
    assert (done.returncode, done.stdout) == (2, b"")


@pytest.mark.parametrize("where", ["argument", "folder"])
def test_names_that_are_no_text_are_refused(where, alignment, tmp_path, command, monkeypatch):
    folder = tmp_path / os.fsdecode(b"odd\xff")
    folder.mkdir()
    path = folder / "data.fasta"
    path.write_bytes(alignment.read_bytes())
    if where == "folder":
        monkeypatch.chdir(folder)
        path = path.name
    code, _, err = command("run", path, "--out", tmp_path / "out", *QUICK)
    assert code == 2
    assert err.startswith("Error: expected names in UTF-8, got b'")
    assert "odd\\xff" in err
    assert not (tmp_path / "out").exists()


WATCHED = """
import sys, time
from vbpi_mix import cli

try:
    cli.main()
finally:
    # Of this thread, and of all others of the process, those that have ended included.
    print(f"busy: {time.thread_time()} {time.process_time() - time.thread_time()}", file=sys.stderr)
"""


def test_threads_are_those_asked_for(tmp_path):
    rng = np.random.default_rng(0)
    taxa = tuple(f"t{i}" for i in range(20))
    states = (1 << rng.integers(0, 4, (20, 20_000))).astype(np.uint8)
    write_fasta(Alignment(taxa, states, "random"), tmp_path / "data")
    (tmp_path / "trees").write_text("(" * 19 + "t0" + "".join(f",t{i})" for i in range(1, 20)) + ";")
    settings = ["--support", tmp_path / "trees", "--iterations", 120, "--no-grow-support", "--no-refit"]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    of_main, of_others = {}, {}
    for threads in (1, 2):
        out = tmp_path / str(threads)
        arguments = ["run", tmp_path / "data", "--out", out, *QUICK, *settings, "--threads", threads]
        done = subprocess.run(
            [sys.executable, "-c", WATCHED, *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
        assert done.returncode == 0, done.stderr
        of_main[threads], of_others[threads] = map(float, done.stderr.split("busy: ")[1].split())
    assert of_others[1] < 0.05 * of_main[1]
    # On a busy machine the second thread may get little to do.
    assert of_others[2] > 2 * of_others[1] + 0.05, (of_main, of_others)
