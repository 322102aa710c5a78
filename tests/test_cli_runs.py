"""Several runs through the command line: combined, judged, stopped, continued, refused."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pexpect
import pytest
import torch

from vbpi_mix import _cli_runs, open_run
from vbpi_mix._cli_members import continue_runs
from vbpi_mix.alignment import Alignment, write_fasta
from vbpi_mix.datasets import load_dataset
from vbpi_mix.results.result import read_result
from vbpi_mix.results.run_directory import RunDirectory
from vbpi_mix.training.config import EvaluationConfig
from vbpi_mix.trees.samples import read_tree_draws, read_tree_sample

VBPI_MIX = [sys.executable, "-m", "vbpi_mix.cli"]
PATIENCE = 300
"""Seconds that something may take on a busy machine where nothing is compiled yet."""
JC = ["--model", "JC"]
TOGETHER = ["--threads", "2"]
QUICK = ["--iterations", "600", "--repeats", "10", "--posterior-samples", "200", "--log-every", "5", *JC]
QUICK += TOGETHER
ENDLESS = ["--iterations", "1000000", "--log-every", "10", "--checkpoint-seconds", "0.1", *JC, *TOGETHER]


@pytest.fixture(scope="module")
def alignment(tmp_path_factory):
    """Six taxa and 150 sites of DS1, whose support is made of all topologies."""
    path = tmp_path_factory.mktemp("inputs") / "six.fasta"
    whole = load_dataset("DS1")
    chosen = [0, 5, 9, 14, 19, 24]
    part = Alignment(tuple(whole.taxa[i] for i in chosen), whole.states[chosen, 400:550], "part of DS1")
    write_fasta(part, path)
    return path


@pytest.fixture(scope="module")
def finished(alignment, tmp_path_factory):
    """Directory of two finished runs that have converged, and what was printed."""
    out = tmp_path_factory.mktemp("finished") / "runs"
    arguments = ["run", alignment, "--out", out, "--seed", 4, *QUICK, "--json"]
    printed = subprocess.run([*VBPI_MIX, *map(str, arguments)], capture_output=True, text=True, check=False)
    return out, printed


def start(arguments, **options):
    return subprocess.Popen([*VBPI_MIX, *map(str, arguments)], stderr=subprocess.PIPE, text=True, **options)


def step_of(directory):
    path = directory.checkpoint
    return torch.load(path, weights_only=True)["step"] if path.exists() else 0


def wait_for_progress(process, out):
    """Wait until both runs have saved a checkpoint in the midst of training."""
    members = [RunDirectory(out).member(number) for number in (1, 2)]
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        if all(step_of(member) > 0 for member in members):
            return members
        time.sleep(0.05)
    pytest.fail(f"no progress: {process.communicate()[1]}")


def test_two_runs_that_agree_have_exit_code_0(finished):
    out, printed = finished
    assert printed.returncode == 0, printed.stderr
    result = json.loads((out / "result.json").read_text())
    assert json.loads(printed.stdout) == result
    assert result["converged"] is True
    assert result["verdict"].startswith("converged: yes - ")
    assert {criterion["name"]: criterion["passed"] for criterion in result["criteria"]} == dict.fromkeys(
        ("training", "bound", "pareto_k", "ess", "asdsf", "marginal_likelihood", "support"), True
    )
    assert [(run["directory"], run["seed"], run["iterations"]) for run in result["runs"]] == [
        ("run1", 4, 600),
        ("run2", 5, 600),
    ]
    assert result["num_draws"] == 10_000
    assert "training: 600 iterations, seeds 4, 5, threads for each: 1" in printed.stderr
    assert "iteration 600 of 600 (100%), bounds -" in printed.stderr
    assert printed.stderr.count("the ESS that Tracer and sump compute from them means nothing") == 1


def test_as_many_draws_are_combined_as_the_effective_sample_size_takes(finished):
    results = [read_result(RunDirectory(finished[0]).member(number).result) for number in (1, 2)]
    share = min(result.ess / result.num_draws for result in results)

    def repeats(enough_ess, most):
        evaluation = EvaluationConfig(enough_ess=enough_ess)
        return _cli_runs._evaluation_of_all(evaluation, results, most).repeats

    assert repeats(None, 100) == 100
    assert repeats(share * 7500.0, 100) == 8  # repeats of 1,000 draws
    assert repeats(share * 7500.0, 5) == 5
    assert repeats(1.0, 100) == 2


def test_every_run_has_a_complete_directory(finished):
    out, _ = finished
    common = {
        *("config.toml", "result.json", ".lock", "topologies.trprobs", "splits.tsv", "credible_sets.tsv"),
        *("posterior.run1.t", "posterior.run2.t", "posterior.run1.p", "posterior.run2.p"),
        *("consensus.con.tre", "consensus.nwk", "ccd_map.tre", "mcc.tre", "sbn_map.tre"),
    }
    assert {path.name for path in out.iterdir()} == common | {
        *("run1", "run2", "support.trees.tsv.gz", "report.html")
    }
    own = common | {"metrics.jsonl", "checkpoint.pt", "posterior.npz"}
    for name in ("run1", "run2"):
        assert {path.name for path in (out / name).iterdir()} == own


def test_runs_are_those_of_their_seeds_alone(finished, alignment, tmp_path, command):
    out, _ = finished
    alone = tmp_path / "alone"
    code, _, err = command("run", alignment, "--out", alone, "--runs", 1, "--seed", 5, *QUICK, "--quiet")
    assert code == 0, err
    for name in ("posterior.run1.t", "topologies.trprobs", "splits.tsv"):
        assert (alone / name).read_bytes() == (out / "run2" / name).read_bytes()
    one, other = (torch.load(path / "checkpoint.pt", weights_only=True) for path in (alone, out / "run2"))
    for name, tensor in one["state"].items():
        assert torch.equal(tensor, other["state"][name]), name


def test_the_combined_posterior_lies_between_those_of_the_runs(finished):
    out, _ = finished
    folders = (out, out / "run1", out / "run2")
    combined, first, second = (read_tree_sample(path / "topologies.trprobs") for path in folders)
    probability = [
        {row.tobytes(): p for row, p in zip(one.children, one.weights, strict=True)}
        for one in (combined, first, second)
    ]
    # fresh draws, and probabilities of runs with an effective sample of thousands
    for row, p in probability[0].items():
        expected = np.mean([of_run.get(row, 0.0) for of_run in probability[1:]])
        assert p == pytest.approx(expected, abs=5 * np.sqrt(expected / 4000) + 0.002)
    results = [json.loads((path / "result.json").read_text())["marginal_log_likelihood"] for path in folders]
    assert results[0]["pooled"] == pytest.approx(results[1]["pooled"], abs=0.05)
    for number in (1, 2):
        path = out / f"posterior.run{number}.t"
        assert f"(run {number} of 2)" in path.read_text()
        assert len(read_tree_draws(path).children) == 100


def test_commands_take_the_directory_of_several_runs(finished, tmp_path, command):
    out, _ = finished
    result = json.loads((out / "result.json").read_text())
    code, printed, err = command("evaluate", out, "--json")
    assert code == 0, err
    again = json.loads(printed)
    one, other = result["marginal_log_likelihood"], again["marginal_log_likelihood"]
    assert one["pooled"] != other["pooled"]
    tolerance = 5 * np.hypot(one["standard_error"], other["standard_error"])
    assert one["pooled"] == pytest.approx(other["pooled"], abs=tolerance)
    assert again["num_draws"] == 10_000
    code, printed, err = command("compare", out, "--reference", out / "topologies.trprobs", "--json")
    assert code == 0, err
    # the runs' own draws against fresh ones
    assert json.loads(printed)["total_variation"]["corrected"] < 0.05
    assert 0 < json.loads(printed)["total_variation"]["raw"] < 0.3
    code, printed, err = command("sample", out, "-n", 50, "--json")
    assert code == 0, err
    assert len(json.loads(printed)["trees"]) == 50
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    assert command("evaluate", copy, "--repeats", 20, "--update", "--json")[0] == 0
    updated = json.loads((copy / "result.json").read_text())
    assert updated["num_draws"] == 20_000
    assert updated["runs"] == result["runs"]
    assert "of 20000 weighted draws (run 2 of 2)" in (copy / "posterior.run2.t").read_text()
    posterior = open_run(out)
    assert len(posterior.topologies().weights) > 20
    assert posterior.sample(10).branch_lengths.shape == (10, 9)
    agreement = posterior.compare(read_tree_sample(out / "topologies.trprobs", posterior.taxa))
    assert agreement["corrected"].total_variation < 0.05
    posterior.write(tmp_path / "files", num_trees=40)
    assert len(read_tree_draws(tmp_path / "files" / "posterior.run2.t").children) == 20
    # one of the runs is a run as any other
    assert command("evaluate", out / "run2", "--repeats", 2, "--json")[0] == 0


def test_a_summary_begins_with_the_verdict_and_has_a_line_a_run(finished, command):
    code, printed, err = command("run", "--resume", "--out", finished[0])
    assert code == 0
    assert "has finished already" in err
    lines = printed.splitlines()
    assert lines[0].startswith("converged: yes - ")
    assert [line.split()[:3] for line in lines if line.startswith("run")] == [
        ["run1", "seed", "4:"],
        ["run2", "seed", "5:"],
    ]


def test_runs_that_do_not_converge_get_further_rounds_and_exit_code_3(alignment, tmp_path, command):
    out = tmp_path / "runs"
    settings = ["--iterations", 20, "--max-rounds", 2, "--repeats", 2, "--samples", 60, "--log-every", 5]
    code, printed, err = command("run", alignment, "--out", out, *settings)
    assert code == 3, err
    assert err.count("a further round of training follows") == 1
    assert printed.startswith("converged: no - ")
    assert "train longer (--iterations)" in printed.splitlines()[0]
    for name in ("run1", "run2"):
        records = [json.loads(line) for line in (out / name / "metrics.jsonl").read_text().splitlines()]
        assert [record["iteration"] for record in records] == list(range(5, 61, 5))
        assert json.loads((out / name / "result.json").read_text())["iterations"] == 60
        warmth = [record["inverse_temperature"] for record in records]
        assert (warmth[3], warmth[-1]) == (1.0, 1.0)
        assert warmth[0] < 1.0
        assert warmth[4] < warmth[5] < 1.0
        rates = [record["topology_rate"] for record in records]
        assert rates[3] < rates[5] < rates[4]
    result = json.loads((out / "result.json").read_text())
    assert (result["converged"], result["iterations"]) == (False, 60)
    assert len(read_tree_draws(out / "posterior.run2.t").children) == 5000
    # looked at again, it still has not
    assert command("run", "--resume", "--out", out)[0] == 3


def test_a_budget_that_is_too_small_is_one_message(alignment, tmp_path, command):
    out = tmp_path / "runs"
    code, _, err = command("run", alignment, "--out", out, "--budget", "4s", "--threads", 5)
    assert code == 2
    assert "Error: --budget: expected about" in err.splitlines()[-1]
    assert "give more time" in err
    # threads are shared out, whole ones
    for name, threads in ((".", 5), ("run1", 2), ("run2", 2)):
        assert f"threads = {threads}\n" in (out / name / "config.toml").read_text()


def test_runs_take_turns_where_there_is_one_thread(alignment, tmp_path, command, monkeypatch):
    together = []

    def continue_and_note(directories, threads, *others):
        together.append(([directory.path.name for directory in directories], threads))
        continue_runs(directories, threads, *others)

    monkeypatch.setattr(_cli_runs, "continue_runs", continue_and_note)
    settings = ["--iterations", 20, "--repeats", 2, "--samples", 60, *JC, "--no-report", "--threads", 1]
    code, _, err = command("run", alignment, "--out", tmp_path / "runs", *settings)
    assert code in (0, 3), err
    assert together == [(["run1"], 1), (["run2"], 1)]
    assert "training: 20 iterations, seeds 1, threads for each: 1" in err


def test_sigterm_saves_and_the_runs_end_as_if_it_had_not_come(finished, alignment, tmp_path, command):
    straight, _ = finished
    out = tmp_path / "runs"
    settings = ["--seed", 4, *QUICK, "--checkpoint-seconds", 0]
    with start(["run", alignment, "--out", out, *settings]) as process:
        members = wait_for_progress(process, out)
        code, _, err = command("run", "--resume", "--out", out)
        assert code == 2
        assert f"in use by process {process.pid}" in err
        process.send_signal(signal.SIGTERM)
        messages = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 128 + signal.SIGTERM
    assert messages.splitlines()[-1] == f"continue with: vbpi-mix run --resume --out {out}"
    assert "Traceback" not in messages
    for member in members:
        last = json.loads(member.metrics.read_text().splitlines()[-1])
        assert last["iteration"] == step_of(member) > 0
        with member.lock():  # nobody is left in it
            pass
    code, _, err = command("run", "--resume", "--out", out, "--quiet")
    assert code == 0, err
    for name in ("posterior.run1.t", "posterior.run2.t", "topologies.trprobs", "run2/topologies.trprobs"):
        assert (straight / name).read_bytes() == (out / name).read_bytes(), name


def test_a_terminal_shows_all_runs_and_control_c_stops_them(alignment, tmp_path):
    out = tmp_path / "runs"
    terminal = pexpect.spawn(
        VBPI_MIX[0],
        [*VBPI_MIX[1:], "run", str(alignment), "--out", str(out), *ENDLESS],
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
        dimensions=(24, 120),
        encoding="utf-8",
        timeout=PATIENCE,
    )
    try:
        terminal.expect("training: 1,000,000 iterations, seeds 0, 1, threads for each: 1")
        terminal.expect(r"training.*/1000000.* annealing 1% \(tempered bounds -\d+\.\d\d, -\d+\.\d\d\).*left")
        terminal.sendintr()
        terminal.expect("continue with: vbpi-mix run --resume")
        terminal.expect(pexpect.EOF)
    finally:
        terminal.close(force=True)
    assert terminal.exitstatus == 128 + signal.SIGINT
    for number in (1, 2):
        assert step_of(RunDirectory(out).member(number)) > 0


def test_a_run_that_fails_ends_the_others(alignment, tmp_path):
    out = tmp_path / "runs"
    with start(["run", alignment, "--out", out, *ENDLESS]) as process:
        members = wait_for_progress(process, out)
        os.kill(int((members[0].path / ".lock").read_text()), signal.SIGKILL)
        messages = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 2
    assert "Error: run1: ended by SIGKILL, perhaps for lack of memory; continue with --resume" in messages
    last = json.loads(members[1].metrics.read_text().splitlines()[-1])
    assert last["iteration"] == step_of(members[1])
    with members[1].lock():
        pass


@pytest.fixture
def unfinished(finished, tmp_path):
    """Directory of two runs, the second of which has not been evaluated."""
    out = tmp_path / "unfinished"
    shutil.copytree(finished[0], out)
    (out / "result.json").unlink()
    (out / "run2" / "result.json").unlink()
    return out


def test_a_run_that_fails_is_told_with_its_own_message(unfinished, command):
    (unfinished / "run2" / "checkpoint.pt").write_bytes(b"rubbish")
    code, _, err = command("run", "--resume", "--out", unfinished)
    assert code == 2
    message = err.splitlines()[-1]
    assert message.startswith("Error: run2: ")
    assert "expected a checkpoint of vbpi-mix, but it cannot be read as one" in message


def test_a_run_that_is_in_use_is_told(unfinished, command):
    with RunDirectory(unfinished / "run2").lock():
        code, _, err = command("run", "--resume", "--out", unfinished)
    assert code == 2
    assert f"run2: {unfinished / 'run2'}: in use by process {os.getpid()}" in err


@pytest.mark.parametrize("folder", [".", "run2"])
def test_a_directory_that_holds_a_run_is_refused(finished, alignment, tmp_path, command, folder):
    out = tmp_path / "out"
    (out / folder).mkdir(parents=True)
    shutil.copy(finished[0] / "run1" / "config.toml", out / folder)
    code, _, err = command("run", alignment, "--out", out, *QUICK)
    assert code == 2
    assert f"{(out / folder)}: already holds a run; continue it with --resume, or choose another" in err


@pytest.mark.parametrize("runs", [1, 2])
def test_a_place_where_nothing_can_be_written_is_one_message(alignment, command, runs):
    # there not even root can
    code, _, err = command("run", alignment, "--out", "/proc/vbpi-mix", "--runs", runs, *QUICK)
    assert code == 2
    assert "Error: /proc/vbpi-mix: cannot write there" in err
    assert "choose another --out" in err
    assert "Traceback" not in err


def test_a_full_disk_is_one_message(alignment, tmp_path):
    out = tmp_path / "runs"
    limit = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (5000, -1))}
    with start(["run", alignment, "--out", out, "--iterations", 10], **limit) as process:
        err = process.communicate()[1]
    assert process.returncode == 2
    assert f"Error: {out / 'run1' / 'checkpoint.pt'}: cannot be written" in err
    assert "make room on the disk" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 1}, "expected a checkpoint of version 2, got version 1"),
        ({"config": '{"seed": 1, "novelty": 3}'}, "expected a checkpoint of this version of vbpi-mix"),
        ({"state": {}}, "expected a checkpoint of this version of vbpi-mix"),
    ],
)
def test_a_checkpoint_of_another_version_is_one_message(finished, tmp_path, command, change, message):
    out = tmp_path / "run"
    shutil.copytree(finished[0] / "run1", out)
    (out / "result.json").unlink()
    content = torch.load(out / "checkpoint.pt", weights_only=True)
    torch.save({**content, **change}, out / "checkpoint.pt")
    for arguments in (["run", "--resume", "--out", out], ["evaluate", out]):
        code, _, err = command(*arguments)
        assert code == 2
        assert message in err
        assert "use the version" in err
        assert "Traceback" not in err


def test_a_single_run_of_several_seeds_is_asked_for_by_number(alignment, tmp_path, command):
    code, _, err = command("run", alignment, "--out", tmp_path / "out", "--runs", 0)
    assert code == 2
    assert "--runs: input should be greater than or equal to 1" in err
