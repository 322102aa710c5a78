"""Runs whose support is checked against the posterior, and grown."""

import contextlib
import io
import json
import os
import signal
import sys

import pytest

from vbpi_mix import _cli_run, cli
from vbpi_mix.alignment import Alignment, write_fasta
from vbpi_mix.datasets import load_dataset
from vbpi_mix.results import analysis
from vbpi_mix.sbn.support import build_support
from vbpi_mix.training.checkpoint import Checkpoint
from vbpi_mix.trees.enumeration import all_topologies
from vbpi_mix.trees.newick import newick_texts, quoted
from vbpi_mix.trees.samples import read_tree_sample

QUICK = ["--iterations", 400, "--repeats", 10, "--posterior-samples", 200, "--log-every", 50, "--quiet"]
SINGLE = ["--runs", 1, "--model", "JC", *QUICK]


def run(*arguments):
    """Exit code and standard output of ``vbpi-mix run`` in this process."""
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(sys, "argv", ["vbpi-mix", "run", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_info:
            cli.main()
    return exit_info.value.code or 0, printed.getvalue()


def write_trees(path, alignment, topologies):
    """Write topologies as Newick."""
    path.write_text(
        "\n".join(newick_texts(topologies, None, [quoted(name) for name in alignment.taxa])) + "\n"
    )
    return path


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Six taxa of DS1: the alignment's file, and the alignment."""
    whole, chosen = load_dataset("DS1"), [0, 5, 9, 14, 19, 24]
    part = Alignment(tuple(whole.taxa[i] for i in chosen), whole.states[chosen, 400:550], "part of DS1")
    path = tmp_path_factory.mktemp("inputs") / "six.fasta"
    write_fasta(part, path)
    return path, part


@pytest.fixture(scope="module")
def complete(inputs, tmp_path_factory):
    """A finished run on all topologies."""
    path, part = inputs
    folder = tmp_path_factory.mktemp("complete")
    trees = write_trees(folder / "all.nwk", part, all_topologies(6))
    assert run(path, "--support", trees, "--out", folder / "run", *SINGLE)[0] == 0
    return folder / "run"


@pytest.fixture(scope="module")
def poor_trees(inputs, complete, tmp_path_factory):
    """A file of probable topologies that all lack a split of the best one."""
    part = inputs[1]
    posterior = read_tree_sample(complete / "topologies.trprobs", part.taxa)
    best = build_support(posterior.children[:1], part.taxa)
    splits = best.splits_of(posterior.children)
    lacking = [~(splits == inner).any(axis=1) for inner in range(6, 9)]
    lacks = max(lacking, key=lambda trees: posterior.weights[trees].sum())
    path = tmp_path_factory.mktemp("poor") / "poor.nwk"
    return write_trees(path, part, posterior.children[lacks][:4])


@pytest.fixture(scope="module")
def grown(inputs, poor_trees, tmp_path_factory):
    """A finished run that began with these trees, and what it printed."""
    out = tmp_path_factory.mktemp("grown") / "run"
    code, printed = run(inputs[0], "--support", poor_trees, "--out", out, *SINGLE)
    assert code == 0
    return out, printed


def result_of(out):
    return json.loads((out / "result.json").read_text())


def without_times(result):
    return {
        key: value
        for key, value in result.items()
        if key not in ("seconds", "ms_per_iteration", "provenance")
    }


def test_a_complete_support_is_not_grown(complete):
    assert result_of(complete)["support_growth"] == {"rounds": [], "mass_outside": 0.0, "is_enough": True}
    assert result_of(complete)["iterations"] == 400


def test_a_support_without_the_best_split_is_grown(inputs, complete, poor_trees, grown):
    out, printed = grown
    result = result_of(out)
    growth = result["support_growth"]
    assert 1 <= len(growth["rounds"]) <= 3
    assert growth["rounds"][0]["mass_outside"] > 0.05
    assert growth["mass_outside"] < 0.005
    assert growth["is_enough"]
    assert "grown in" in printed
    assert result["iterations"] == 400 + 80 * len(growth["rounds"])
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert records[-1]["iteration"] == result["iterations"]
    assert all(r["inverse_temperature"] == 1.0 for r in records if r["iteration"] > 400)
    posterior = read_tree_sample(complete / "topologies.trprobs", inputs[1].taxa)
    found = read_tree_sample(out / "topologies.trprobs", inputs[1].taxa)
    probability = {t.tobytes(): p for t, p in zip(found.children, found.weights, strict=True)}
    for children, expected in list(zip(posterior.children, posterior.weights, strict=True))[:5]:
        assert probability.get(children.tobytes(), 0.0) == pytest.approx(expected, abs=0.05)
    reference = result_of(complete)["marginal_log_likelihood"]["pooled"]
    assert result["marginal_log_likelihood"]["pooled"] == pytest.approx(reference, abs=0.1)
    parameters = sum(one["num_parameters"] for one in growth["rounds"])
    before = build_support(read_tree_sample(poor_trees, inputs[1].taxa).children, inputs[1].taxa)
    assert result["provenance"]["num_parameters"] == before.num_parameters + parameters


def test_without_growth_a_run_is_as_it_was(inputs, poor_trees, tmp_path):
    out, again = tmp_path / "fixed", tmp_path / "again"
    arguments = [inputs[0], "--support", poor_trees, *SINGLE]
    assert run(*arguments, "--out", out, "--no-grow-support")[0] == 0
    assert result_of(out)["support_growth"] is None
    # A check that finds little changes nothing else: its random numbers are its own.
    patient = tmp_path / "patient.toml"
    patient.write_text("[growth]\nmax_outside = 0.999\n")
    assert run(*arguments, "--out", again, "--config", patient)[0] == 0
    fixed, checked = without_times(result_of(out)), without_times(result_of(again))
    assert checked.pop("support_growth")["is_enough"]
    support = [criterion for criterion in checked["criteria"] if criterion["name"] == "support"]
    assert [criterion["passed"] for criterion in support] == [True]
    checked["criteria"].remove(support[0])
    assert checked.pop("verdict").startswith(fixed.pop("verdict"))
    fixed.pop("support_growth")
    assert fixed == checked
    assert (out / "posterior.run1.t").read_text() == (again / "posterior.run1.t").read_text()


def test_several_runs_grow_each_and_train_on_in_further_rounds(inputs, poor_trees, tmp_path):
    out = tmp_path / "runs"
    settings = ["--iterations", 100, "--max-rounds", 2, "--repeats", 2, "--samples", 60, "--log-every", 10]
    code, printed = run(inputs[0], "--support", poor_trees, "--out", out, *settings, "--quiet")
    assert code == 3  # so few draws cannot be enough
    result = result_of(out)
    members = [result_of(out / name) for name in ("run1", "run2")]
    for name, member in zip(("run1", "run2"), members, strict=True):
        rounds = len(member["support_growth"]["rounds"])
        assert rounds >= 1
        checkpoint = Checkpoint.load(out / name / "checkpoint.pt")
        assert checkpoint.config.optimisation.rounds == 2
        assert member["iterations"] == checkpoint.num_steps == 100 + 200 + 20 * rounds
        records = [json.loads(line) for line in (out / name / "metrics.jsonl").read_text().splitlines()]
        assert [r["iteration"] for r in records] == list(range(10, member["iterations"] + 1, 10))
        # Training after growth is not annealed, a further round is.
        is_warm = {r["iteration"]: r["inverse_temperature"] < 1.0 for r in records}
        after, further = range(110, 101 + 20 * rounds, 10), range(110 + 20 * rounds, 260 + 20 * rounds, 10)
        assert not any(is_warm[iteration] for iteration in after)
        assert all(is_warm[iteration] for iteration in further)
    outside = [member["support_growth"]["mass_outside"] for member in members]
    assert result["support_growth"]["mass_outside"] == max(outside)
    support = next(criterion for criterion in result["criteria"] if criterion["name"] == "support")
    assert (support["value"], support["threshold"]) == (max(outside), 0.005)
    assert {"alpha", "r(A<->G)"} <= set(result["model"])
    assert "substitution model         GTR+F+G4" in printed
    page = (out / "report.html").read_text(encoding="utf-8")
    for text in ("GTR+F+G4", "alpha", "run2", "just outside"):
        assert text in page


@pytest.mark.parametrize("moment", ["while training on", "while looking"])
def test_an_interrupted_growth_continues_to_the_same_result(
    moment, inputs, poor_trees, grown, tmp_path, monkeypatch
):
    whole, parts = grown[0], tmp_path / "parts"

    def stop(*_):
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        if moment == "while training on":
            write = _cli_run.append_json_line

            def write_and_stop(path, record):
                write(path, record)
                if record["iteration"] == 450:
                    stop()

            patch.setattr(_cli_run, "append_json_line", write_and_stop)
        else:
            check, calls = analysis.check_support, []

            def check_and_stop(checkpoint):
                calls.append(checkpoint)
                found = check(checkpoint)
                if len(calls) == 2:
                    stop()
                return found

            patch.setattr(analysis, "check_support", check_and_stop)
        code, _ = run(inputs[0], "--support", poor_trees, "--out", parts, *SINGLE)
    assert code == 128 + signal.SIGTERM
    checkpoint = Checkpoint.load(parts / "checkpoint.pt")
    assert len(checkpoint.growth) == 1
    assert checkpoint.steps_before == 400
    assert checkpoint.num_steps == (450 if moment == "while training on" else 480)
    assert run("--resume", "--out", parts)[0] == 0
    assert without_times(result_of(parts)) == without_times(result_of(whole))
    iterations = [
        json.loads(line)["iteration"] for line in (parts / "metrics.jsonl").read_text().splitlines()
    ]
    assert iterations == sorted(set(iterations))


@pytest.mark.parametrize(
    ("arguments", "grows"),
    [(["six.fasta"], True), (["--dataset", "DS1"], False), (["six.fasta", "--recipe", "published"], False)],
)
def test_alignments_grow_their_support_and_bundled_data_do_not(arguments, grows):
    from vbpi_mix._cli_config import resolve_config

    data = {"dataset": "DS1"} if arguments[0] == "--dataset" else {"alignment": arguments[0]}
    recipe = "published" if "published" in arguments else None
    assert resolve_config({"data": data}, recipe).grows_support is grows
    assert resolve_config({"data": data, "growth": {"enabled": True}}, recipe).grows_support
