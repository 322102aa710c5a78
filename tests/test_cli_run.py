"""Whole single runs through the command line: end to end, interrupted, continued, watched."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import dendropy
import numpy as np
import pexpect
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import t as student_t

from vbpi_mix import cli
from vbpi_mix.alignment import Alignment, read_alignment, write_fasta
from vbpi_mix.datasets import load_dataset
from vbpi_mix.likelihood.base import make_likelihood
from vbpi_mix.likelihood.models import jc69
from vbpi_mix.patterns import compress
from vbpi_mix.results.posterior_files import load_final, save_final
from vbpi_mix.trees.enumeration import all_topologies
from vbpi_mix.trees.newick import newick_texts, quoted
from vbpi_mix.trees.samples import read_tree_draws, read_tree_sample

VBPI_MIX = [sys.executable, "-m", "vbpi_mix.cli"]
PATIENCE = 300
"""Seconds that something may take on a busy machine where nothing is compiled yet."""
QUICK = ["--iterations", "600", "--repeats", "10", "--posterior-samples", "200", "--log-every", "50"]
JC = ["--model", "JC"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Six taxa and 150 sites of DS1, with all 105 topologies as support: paths of the two files."""
    folder = tmp_path_factory.mktemp("inputs")
    whole = load_dataset("DS1")
    chosen = [0, 5, 9, 14, 19, 24]
    part = Alignment(tuple(whole.taxa[i] for i in chosen), whole.states[chosen, 400:550], "part of DS1")
    write_fasta(part, folder / "six.fasta")
    names = [quoted(name) for name in part.taxa]
    (folder / "all.trees").write_text("\n".join(newick_texts(all_topologies(6), None, names)) + "\n")
    return folder / "six.fasta", folder / "all.trees"


def single(arguments):
    """Arguments of the command line as text, with which ``run`` makes one run, unless it continues one."""
    first, *rest = map(str, arguments)
    one = ["--runs", "1"] if first == "run" and "--resume" not in rest else []
    return [first, *rest, *one]


def call(monkeypatch, capsys, *arguments):
    """Exit code, standard output and standard error of the command line in this process."""
    monkeypatch.setattr(sys, "argv", ["vbpi-mix", *single(arguments)])
    with pytest.raises(SystemExit) as exit_info:
        cli.main()
    captured = capsys.readouterr()
    return exit_info.value.code or 0, captured.out, captured.err


@pytest.fixture
def command(monkeypatch, capsys):
    """Function that runs the command line in this process."""
    return lambda *arguments: call(monkeypatch, capsys, *arguments)


@pytest.fixture(scope="module")
def finished(inputs, tmp_path_factory):
    """Directory of a finished run of two components, and what it printed."""
    alignment, trees = inputs
    out = tmp_path_factory.mktemp("finished") / "run"
    arguments = ["run", alignment, "--support", trees, "--out", out, "--components", 2, *QUICK, *JC, "--json"]
    printed = subprocess.run([*VBPI_MIX, *single(arguments)], capture_output=True, text=True, check=False)
    assert printed.returncode == 0, printed.stderr
    return out, printed


def posterior_by_importance_sampling(alignment_path):
    """The posterior of all 105 topologies and the log marginal likelihood, with its standard error.

    Topology by topology, log branch lengths come from t distributions (5 degrees of freedom): wide ones
    first, then three times ones with the mean and 1.2 times the standard deviation of the weighted draws
    before.
    """
    rng = np.random.default_rng(0)
    topologies = all_topologies(6)
    likelihood = make_likelihood(compress(read_alignment(alignment_path)), jc69())
    log_marginals, relative_errors = np.empty(105), np.empty(105)
    for k in range(105):
        mean, spread = np.full(9, -2.6), np.full(9, 1.2)
        for num_draws in (1000, 1000, 1000, 4000):
            standard = rng.standard_t(5, (num_draws, 9))
            log_lengths = mean + spread * standard
            log_q = (student_t.logpdf(standard, 5) - np.log(spread)).sum(axis=1)
            log_prior = (np.log(10) - 10 * np.exp(log_lengths) + log_lengths).sum(axis=1)
            children = np.repeat(topologies[k : k + 1], num_draws, axis=0)
            log_weights = likelihood.value(children, np.exp(log_lengths)) + log_prior - log_q
            weights = np.exp(log_weights - logsumexp(log_weights))
            mean = weights @ log_lengths
            spread = 1.2 * np.sqrt(weights @ (log_lengths - mean) ** 2) + 0.1
        log_marginals[k] = logsumexp(log_weights) - np.log(num_draws)
        relative_errors[k] = np.sqrt((weights**2).sum())
    posterior = np.exp(log_marginals - logsumexp(log_marginals))
    error = np.sqrt(((posterior * relative_errors) ** 2).sum())
    return topologies, posterior, logsumexp(log_marginals) - np.log(105), error


def test_a_run_leaves_all_its_files(finished):
    out, printed = finished
    result = json.loads((out / "result.json").read_text())
    assert json.loads(printed.stdout) == result
    assert "iteration 600 of 600 (100%)" in printed.stderr
    names = {path.name for path in out.iterdir()} - {".lock"}
    assert names == {
        "config.toml",
        "metrics.jsonl",
        "checkpoint.pt",
        "result.json",
        "posterior.npz",
        *("posterior.run1.t", "posterior.run2.t", "posterior.run1.p", "posterior.run2.p"),
        *(
            "topologies.trprobs",
            "consensus.con.tre",
            "consensus.nwk",
            "ccd_map.tre",
            "mcc.tre",
            "sbn_map.tre",
        ),
        *("splits.tsv", "credible_sets.tsv", "report.html"),
    }
    assert result["iterations"] == 600
    assert result["pareto_k"] < 0.7
    assert result["topologies"]["drawn_mass"] > 0.99
    assert sum(result["components"]["weight_share"]) == pytest.approx(1.0)
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [record["iteration"] for record in records] == list(range(50, 601, 50))
    assert records[-1]["inverse_temperature"] == 1.0
    for name in ("posterior.run1.t", "posterior.run2.t"):
        assert len(dendropy.TreeList.get(path=str(out / name), schema="nexus")) == 100


def test_posterior_agrees_with_an_independent_estimate(finished, inputs):
    out, _ = finished
    topologies, posterior, log_marginal, error = posterior_by_importance_sampling(inputs[0])
    assert error < 0.1
    marginal = json.loads((out / "result.json").read_text())["marginal_log_likelihood"]
    assert marginal["pooled"] == pytest.approx(
        log_marginal, abs=4 * np.hypot(error, marginal["standard_error"])
    )
    found = read_tree_sample(out / "topologies.trprobs", read_alignment(inputs[0]).taxa)
    probability = {row.tobytes(): p for row, p in zip(found.children, found.weights, strict=True)}
    differences = [
        abs(p - probability.get(t.tobytes(), 0.0)) for t, p in zip(topologies, posterior, strict=True)
    ]
    # Both have relative errors of a few percent for the topologies that matter.
    assert 0.5 * sum(differences) < 0.08


def test_a_finished_run_is_not_overwritten_but_may_be_resumed(finished, inputs, command):
    out, _ = finished
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.name != ".lock"}
    code, _, err = command("run", inputs[0], "--support", inputs[1], "--out", out)
    assert code == 2
    assert "already holds a run; continue it with --resume, or choose another --out" in err
    code, printed, err = command("run", "--resume", "--out", out, "--json")
    assert code == 0
    assert "has finished already" in err
    assert json.loads(printed) == json.loads((out / "result.json").read_text())
    assert before == {path.name: path.read_bytes() for path in out.iterdir() if path.name != ".lock"}


def test_a_continued_run_keeps_its_configuration(finished, command):
    code, _, err = command("run", "--resume", "--out", finished[0], "--components", "3")
    assert code == 2
    assert "--components: this run was started with 2, not 3" in err


def test_summary_for_people(finished, command):
    code, printed, _ = command("run", "--resume", "--out", finished[0])
    assert code == 0
    first, second = printed.splitlines()[:2]
    assert first.startswith(
        "converged: unknown - one run cannot show agreement (--runs 2 can); training complete"
    )
    assert second.startswith("log marginal likelihood    -")
    assert "Pareto k-hat" in printed
    assert "(good: below 0.7)" in printed


@pytest.mark.parametrize("seed", [[], ["--seed", "5"]])
def test_evaluate_draws_anew_and_agrees_with_the_run(finished, command, seed):
    out, _ = finished
    code, printed, _ = command("evaluate", out, *seed, "--json")
    assert code == 0
    result, again = json.loads((out / "result.json").read_text()), json.loads(printed)
    one, other = result["marginal_log_likelihood"], again["marginal_log_likelihood"]
    assert one["pooled"] != other["pooled"]
    assert result["ess"] != again["ess"]
    tolerance = 5 * np.hypot(one["standard_error"], other["standard_error"])
    assert one["pooled"] == pytest.approx(other["pooled"], abs=tolerance)
    assert (other["num_repeats"], other["evaluations_per_repeat"]) == (10, 1000)
    assert command("evaluate", out, *seed, "--json")[1] == printed


def test_evaluate_with_as_many_samples_for_every_component(finished, command):
    out, _ = finished
    literature = json.loads(command("evaluate", out, "--per-component", "--repeats", "2", "--json")[1])
    assert literature["marginal_log_likelihood"]["evaluations_per_repeat"] == 2000


def test_evaluate_can_update_the_posterior_with_more_draws(finished, command, tmp_path):
    out, _ = finished
    copy = tmp_path / "run"
    shutil.copytree(out, copy)
    code, printed, _ = command("evaluate", copy, "--repeats", "40", "--update", "--json")
    assert code == 0
    before, after = (json.loads((folder / "result.json").read_text()) for folder in (out, copy))
    estimates = json.loads(printed)
    assert {key: after[key] for key in estimates} == estimates
    assert (before["num_draws"], after["num_draws"]) == (10_000, 40_000)
    unchanged = before.keys() - estimates.keys() - {"seconds"}
    assert {key: before[key] for key in unchanged} == {key: after[key] for key in unchanged}
    assert before["seconds"]["training"] == after["seconds"]["training"]
    assert "of 40000 draws" in (copy / "topologies.trprobs").read_text()
    assert "of 40,000 draws" in (copy / "report.html").read_text(encoding="utf-8")
    old, new = load_final(out / "posterior.npz"), load_final(copy / "posterior.npz")
    np.testing.assert_array_equal(old.logits, new.logits)
    np.testing.assert_array_equal(old.correlations, new.correlations)
    np.testing.assert_array_equal(old.shifts, new.shifts)
    assert not np.array_equal(old.log_topology_probabilities, new.log_topology_probabilities)


def test_compare_with_the_runs_own_corrected_posterior(finished, command):
    out, _ = finished
    code, printed, _ = command("compare", out, "--reference", out / "topologies.trprobs", "--json")
    assert code == 0
    result = json.loads(printed)
    for measure in ("coverage", "kl", "total_variation"):
        assert result[measure].keys() == {"raw", "refitted", "corrected"}
    # probabilities in the file are rounded to their shortest form, not to a few digits
    assert result["total_variation"]["corrected"] == pytest.approx(0.0, abs=1e-6)
    assert result["kl"]["corrected"] == pytest.approx(0.0, abs=1e-6)
    assert result["coverage"]["corrected"] == pytest.approx(1.0)
    assert 0 < result["total_variation"]["refitted"] < 0.3
    assert result["splits"]["maximum"] < 1e-6
    assert (
        command("compare", out, "--reference", out / "topologies.trprobs")[1]
        .splitlines()[1]
        .startswith("raw")
    )


def test_compare_says_why_a_posterior_is_absent_or_equal(inputs, finished, tmp_path, command):
    reference = ["--reference", finished[0] / "topologies.trprobs"]
    settings = ["--support", inputs[1], "--iterations", 5, "--repeats", 2, "--no-refit", "--quiet", *JC]
    out = tmp_path / "run"
    assert command("run", inputs[0], *settings, "--out", out)[0] == 0
    printed = command("compare", out, *reference)[1]
    assert "refitted: none, as the run was not to be refitted" in printed
    (out / "posterior.npz").unlink()
    printed = command("compare", out, *reference)[1]
    assert "refitted and corrected: none, as the run has not finished" in printed
    # A finished run whose refit kept the trained networks.
    kept = tmp_path / "kept"
    shutil.copytree(finished[0], kept)
    logits = torch.load(kept / "checkpoint.pt", weights_only=True)["state"]["logits"].numpy()
    final = load_final(kept / "posterior.npz")
    save_final(kept / "posterior.npz", replace(final, logits=logits))
    result = json.loads(command("compare", kept, *reference, "--json")[1])
    assert result["notes"] == ["refitted: as raw, since no refit had a higher bound than the trained mixture"]
    assert result["kl"]["refitted"] == result["kl"]["raw"]


def test_an_unreliable_posterior_is_warned_of(inputs, tmp_path, command):
    # Ten draws of a mixture that is hardly trained.
    settings = ["--support", inputs[1], "--iterations", 5, "--repeats", 2, "--samples", 5, "--quiet", *JC]
    out = tmp_path / "run"
    code, _, err = command("run", inputs[0], *settings, "--out", out)
    assert code == 0
    assert err.startswith("WARNING: unreliable: effective sample size ")
    assert err.endswith("train longer, or with more components\n")
    result = json.loads((out / "result.json").read_text())
    assert result["converged"] is False
    assert result["verdict"].startswith("converged: no - ")
    code, printed, err = command("sample", out, "-n", 5)
    assert code == 0
    assert "WARNING: unreliable: " in err
    assert "[WARNING: unreliable: effective sample size " in printed


def test_a_burn_in_of_weighted_trees_is_refused(finished, command):
    out, _ = finished
    code, _, err = command("compare", out, "--reference", out / "topologies.trprobs", "--burn-in", "0.25")
    assert code == 2
    assert "--burn-in: expected no burn-in for the weighted trees" in err


def test_sample_writes_trees_of_the_posterior(finished, command, tmp_path):
    out, _ = finished
    target = tmp_path / "trees.nex"
    assert command("sample", out, "-n", "300", "--out", target) == (0, "", "")
    again = command("sample", out, "-n", "300", "--out", target)
    assert again[0] == 2
    assert "exists already and is not overwritten" in again[2]
    drawn = read_tree_draws(target)
    assert drawn.branch_lengths.shape == (300, 9)
    newick = command("sample", out, "-n", "300", "--format", "newick")[1]
    assert len(newick.splitlines()) == 300
    (tmp_path / "trees.nwk").write_text(newick)
    reference = read_tree_sample(out / "topologies.trprobs")
    sampled = read_tree_sample(tmp_path / "trees.nwk", reference.taxa)
    probability = {row.tobytes(): p for row, p in zip(reference.children, reference.weights, strict=True)}
    # Counts are within 1 of what these draws say, and these differ from the run's by the standard error of an
    # effective sample of more than 1000.
    for row, count in zip(sampled.children, sampled.weights, strict=True):
        p = probability.get(row.tobytes(), 0.0)
        assert abs(count / 300 - p) < 1 / 300 + 5 * np.sqrt(p * (1 - p) / 1000) + 0.002
    assert (
        "as much information as" in command("sample", out, "-n", "20000", "--out", tmp_path / "many.nex")[2]
    )
    content = json.loads(command("sample", out, "-n", "3", "--json")[1])
    assert len(content["trees"]) == 3
    assert content["ess"] > 1000


def start(arguments, **options):
    return subprocess.Popen([*VBPI_MIX, *single(arguments)], stderr=subprocess.PIPE, text=True, **options)


def wait_for_progress(process, out):
    """Wait until a run has saved a checkpoint in the midst of training; its metrics may be ahead of it."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        checkpoint = out / "checkpoint.pt"
        if checkpoint.exists() and torch.load(checkpoint, weights_only=True)["step"] > 0:
            return
        time.sleep(0.01)
    pytest.fail(f"no progress: {process.communicate()[1]}")


KILLED_AFTER_A_REPORT = """
import os, signal, sys
from vbpi_mix import _cli_run, cli

def append(path, record, append=_cli_run.append_json_line):
    append(path, record)
    if record["iteration"] == 200:
        os.kill(os.getpid(), signal.SIGKILL)

_cli_run.append_json_line = append
cli.main()
"""


def test_a_killed_run_continues_bit_for_bit(inputs, tmp_path, command):
    alignment, trees = inputs
    settings = ["--support", trees, "--components", 2, "--estimator", "s2a", "--seed", 3, "--quiet", *JC]
    settings += ["--iterations", 500, "--repeats", 2, "--posterior-samples", 50, "--log-every", 10]
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    assert command("run", alignment, *settings, "--out", straight)[0] == 0
    arguments = ["run", alignment, *settings, "--out", killed, "--checkpoint-seconds", 0]
    program = [sys.executable, "-c", KILLED_AFTER_A_REPORT, *single(arguments)]
    assert subprocess.run(program, check=False).returncode == -signal.SIGKILL
    assert not (killed / "result.json").exists()
    # The metrics are ahead of the checkpoint.
    assert torch.load(killed / "checkpoint.pt", weights_only=True)["step"] == 190
    assert json.loads((killed / "metrics.jsonl").read_text().splitlines()[-1])["iteration"] == 200
    assert command("run", "--resume", "--out", killed, "--checkpoint-seconds", 30, "--quiet")[0] == 0
    one, other = (torch.load(path / "checkpoint.pt", weights_only=True) for path in (straight, killed))
    assert one["step"] == other["step"] == 500
    assert one["streams"] == other["streams"]
    for name, tensor in one["state"].items():
        assert torch.equal(tensor, other["state"][name]), name
    for name in ("posterior.run1.t", "topologies.trprobs", "consensus.con.tre"):
        assert (straight / name).read_bytes() == (killed / name).read_bytes(), name
    metrics = [
        [json.loads(line)["bound"] for line in (path / "metrics.jsonl").read_text().splitlines()]
        for path in (straight, killed)
    ]
    assert metrics[0] == metrics[1]
    results = [json.loads((path / "result.json").read_text()) for path in (straight, killed)]
    assert results[0]["marginal_log_likelihood"] == results[1]["marginal_log_likelihood"]


@pytest.mark.parametrize("content", [None, "", "{damaged\n", '{"iteration": 5}\n'])
def test_a_run_continues_without_its_metrics(inputs, tmp_path, command, content):
    out = tmp_path / "run"
    settings = ["--support", inputs[1], "--iterations", 60, "--repeats", 2, "--log-every", 20, "--quiet", *JC]
    assert command("run", inputs[0], *settings, "--out", out)[0] == 0
    (out / "result.json").unlink()
    if content is None:
        (out / "metrics.jsonl").unlink()
    else:
        (out / "metrics.jsonl").write_text(content)
    code, printed, err = command("run", "--resume", "--out", out, "--threads", 2, "--quiet", "--json")
    assert code == 0, err
    result = json.loads(printed)
    assert "--iterations" in result["provenance"]["command"]
    assert "--resume" not in result["provenance"]["command"]
    assert result["provenance"]["threads"] == 2
    assert result["ms_per_iteration"] == pytest.approx(1000 * result["seconds"]["training"] / 60)


def test_threads_of_the_torch_engine_are_torchs(inputs, tmp_path, command):
    before = torch.get_num_threads()
    settings = ["--support", inputs[1], "--iterations", 2, "--repeats", 2, "--quiet", *JC]
    try:
        code, _, err = command(
            "run", inputs[0], *settings, "--engine", "torch", "--threads", before + 1, "--out", tmp_path / "x"
        )
        assert code == 0, err
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_sigterm_saves_and_a_second_run_is_refused(inputs, tmp_path, command):
    out = tmp_path / "run"
    arguments = ["run", inputs[0], "--support", inputs[1], "--out", out, "--iterations", 1_000_000]
    with start([*arguments, "--checkpoint-seconds", 0.1]) as process:
        wait_for_progress(process, out)
        code, _, err = command("run", "--resume", "--out", out)
        assert code == 2
        assert f"in use by process {process.pid}" in err
        process.send_signal(signal.SIGTERM)
        messages = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 128 + signal.SIGTERM
    assert f"continue with: vbpi-mix run --resume --out {out}" in messages
    assert "Traceback" not in messages
    step = torch.load(out / "checkpoint.pt", weights_only=True)["step"]
    assert f"stopped after iteration {step:,}\n" in messages
    last = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["iteration"] == step


def test_a_terminal_shows_a_live_bar_and_control_c_stops(inputs, tmp_path):
    alignment, trees = inputs
    arguments = ["run", str(alignment), "--support", str(trees), "--out", str(tmp_path / "run")]
    terminal = pexpect.spawn(
        VBPI_MIX[0],
        [*VBPI_MIX[1:], *single(arguments), "--iterations", "1000000", "--log-every", "10"],
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
        dimensions=(24, 120),
        encoding="utf-8",
        timeout=PATIENCE,
    )
    try:
        terminal.expect(r"six\.fasta: 6 taxa, 150 sites")
        terminal.expect(r"support: [\d,]+ parameters from 105 topologies")
        terminal.expect(r"training.*/1000000.* annealing 1% \(tempered bound -\d+\.\d\d\).*\d+:\d\d.* left")
        terminal.sendintr()
        terminal.expect("stopped after iteration")
        terminal.expect(pexpect.EOF)
        terminal.wait()  # closing would not: it kills what is still about to end
    finally:
        terminal.close(force=True)
    assert terminal.exitstatus == 128 + signal.SIGINT


def test_a_full_disk_is_one_message(inputs, tmp_path):
    arguments = ["run", inputs[0], "--support", inputs[1], "--out", tmp_path / "run", "--iterations", 10]
    with start(
        arguments, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (5000, -1))
    ) as process:
        err = process.communicate()[1]
    assert process.returncode == 2
    assert f"Error: {tmp_path / 'run' / 'checkpoint.pt'}: cannot be written" in err
    assert "make room on the disk" in err
    assert "Traceback" not in err


def test_a_bound_that_is_not_finite_is_one_message_and_its_state_is_saved(inputs, tmp_path, command, recwarn):
    out = tmp_path / "run"
    settings = ["--support", inputs[1], "--branch-rate", 300, "--log-every", 1000, *JC]
    code, _, err = command("run", inputs[0], *settings, "--iterations", 1000, "--out", out)
    assert code == 2
    step = torch.load(out / "checkpoint.pt", weights_only=True)["step"]
    message = err.splitlines()[-1]
    assert message.startswith(f"Error: training stopped after step {step:,}: ")
    assert "lower --topology-rate and --branch-rate and another --out" in message
    assert "Warning" not in err
    assert not recwarn.list


def test_sigterm_before_anything_is_saved_says_so(tmp_path, command):
    program = tmp_path / "bin" / "iqtree3"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/started\nexec sleep 600\n")
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"}
    write_fasta(load_dataset("DS1"), tmp_path / "ds1.fasta")
    out = tmp_path / "run"
    with start(["run", tmp_path / "ds1.fasta", "--out", out], env=environment) as process:
        deadline = time.monotonic() + PATIENCE
        while not (tmp_path / "started").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        messages = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 128 + signal.SIGTERM
    assert messages.splitlines()[-1] == "stopped before anything was saved; start the run again"
    code, _, err = command("run", "--resume", "--out", out)
    assert code == 2
    assert "start it again without --resume" in err


@pytest.mark.iqtree
def test_an_alignment_alone_gets_its_support_from_iqtree(tmp_path, command, require_program):
    require_program("iqtree3", "iqtree2")
    whole = load_dataset("DS1")
    part = Alignment(whole.taxa[:7], whole.states[:7, :400], "part of DS1")
    write_fasta(part, tmp_path / "seven.fasta")
    settings = ["--iterations", "20", "--repeats", "2", "--json", *JC]
    out, again = tmp_path / "run", tmp_path / "again"
    code, printed, err = command("run", tmp_path / "seven.fasta", "--out", out, *settings)
    assert code == 0, err
    assert "making bootstrap trees with IQ-TREE" in err
    result = json.loads(printed)
    assert result["provenance"]["support"].startswith("iqtree")
    kept = out / "support.trees.tsv.gz"
    assert read_tree_sample(kept, whole.taxa[:7]).weights.sum() > 1_000  # bootstrap trees, and others found
    code, printed, err = command(
        "run", tmp_path / "seven.fasta", "--support", kept, "--out", again, *settings
    )
    assert code == 0, err
    assert json.loads(printed)["marginal_log_likelihood"] == result["marginal_log_likelihood"]


def test_six_taxa_need_no_iqtree(inputs, tmp_path, command, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    settings = ["--iterations", "20", "--repeats", "2", "--json", *JC]
    code, printed, err = command("run", inputs[0], "--out", tmp_path / "run", *settings)
    assert code == 0, err
    assert "from 105 topologies" in err
    assert json.loads(printed)["provenance"]["support"] == "all topologies of 6 taxa"
    assert len(read_tree_sample(tmp_path / "run" / "support.trees.tsv.gz").weights) == 105


def test_a_run_can_be_repeated_from_its_configuration(finished, tmp_path, command):
    out, _ = finished
    config = ["--config", out / "config.toml", "--iterations", "50", "--quiet"]
    code, printed, err = command("run", *config, "--out", tmp_path / "again", "--json")
    assert code == 0, err
    result = json.loads(printed)
    assert result["iterations"] == 50
    assert (
        result["provenance"]["data_sha256"]
        == json.loads((out / "result.json").read_text())["provenance"]["data_sha256"]
    )


def test_an_estimated_model_is_in_every_output(inputs, tmp_path, command):
    out = tmp_path / "run"
    settings = ["--support", inputs[1], "--iterations", 60, "--repeats", 2, "--posterior-samples", 40]
    code, printed, err = command(
        "run", inputs[0], *settings, "--model", "hky+fo+g2", "--out", out, "--quiet", "--json"
    )
    assert code == 0, err
    result = json.loads(printed)
    names = ["kappa", "pi(A)", "pi(C)", "pi(G)", "pi(T)", "alpha"]
    assert [*result["model"]] == names
    assert sum(result["model"][f"pi({x})"]["mean"] for x in "ACGT") == pytest.approx(1.0)
    for one in (*result["model"].values(), result["tree_length"]):
        assert one["hpd95"][0] < one["median"] < one["hpd95"][1]
    assert result["provenance"]["model"] == "HKY+FO+G2"
    assert 'model = "HKY+FO+G2"' in (out / "config.toml").read_text()
    header = (out / "posterior.run1.p").read_text().splitlines()[1]
    assert header.split("\t") == ["Gen", "LnL", "LnPr", "TL", *names]
    # other commands draw from the same final density
    code, printed, err = command("evaluate", out, "--json")
    assert code == 0, err
    again = json.loads(printed)
    assert [*again["model"]] == names
    assert again["lower_bound_10"] == pytest.approx(result["lower_bound_10"], abs=3.0)
    assert command("sample", out, "-n", 3)[0] == 0
    code, printed, _ = command("run", "--resume", "--out", out)
    assert "substitution model         HKY+FO+G2" in printed
    assert re.search(r"^kappa +\d.*95% HPD", printed, re.MULTILINE)
