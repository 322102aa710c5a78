"""The verdict on constructed runs, each criterion by itself, and MrBayes' own ASDSF."""

import dataclasses
import re
import subprocess

import numpy as np
import pytest

from vbpi_mix.results import posterior_files
from vbpi_mix.results.convergence import (
    RunEvidence,
    average_standard_deviation,
    bound_rise,
    judge,
)
from vbpi_mix.results.correction import correct
from vbpi_mix.results.diagnostics import Reliability
from vbpi_mix.results.run_directory import RunDirectory
from vbpi_mix.trees.enumeration import all_topologies
from vbpi_mix.trees.samples import read_tree_draws
from vbpi_mix.trees.summaries import split_table

TOPOLOGIES = all_topologies(5)


def table(*weights):
    """Split frequencies of the first topologies of five taxa, weighted so."""
    return split_table(TOPOLOGIES[: len(weights)], np.array(weights, float))


def evidence(**changes):
    good = RunEvidence(
        pareto_k=0.4,
        ess=5000.0,
        log_marginal=-100.0,
        standard_error=0.01,
        rise=(0.02, 0.03),
        splits=table(0.6, 0.4),
    )
    return dataclasses.replace(good, **changes)


def by_name(verdict):
    return {criterion.name: criterion for criterion in verdict.criteria}


def test_two_runs_that_agree_have_converged():
    verdict = judge([evidence(), evidence(log_marginal=-100.02, pareto_k=0.5)])
    assert verdict.converged is True
    assert verdict.line == (
        "converged: yes - training complete, flat bound, k-hat 0.50, effective sample size 5,000, "
        "ASDSF 0.0000, log marginal likelihoods 0.02 nats apart"
    )
    assert list(by_name(verdict)) == ["training", "bound", "pareto_k", "ess", "asdsf", "marginal_likelihood"]
    assert all(criterion.passed for criterion in verdict.criteria)


@pytest.mark.parametrize(
    ("name", "changes", "value", "threshold", "reason"),
    [
        (
            "training",
            {"trained": 0.4},
            0.4,
            1.0,
            "time ran out after 40% of training: give more time (--budget)",
        ),
        (
            "bound",
            {"rise": (0.5, 0.1)},
            0.5,
            0.1,
            "the bound rose by 0.50 nats in the last tenth of training",
        ),
        ("pareto_k", {"pareto_k": 0.71}, 0.71, 0.7, "k-hat 0.71 is not below 0.7, so a few draws dominate"),
        ("ess", {"ess": 399.0}, 399.0, 400.0, "effective sample size 399 is below 400"),
        (
            *("asdsf", {"splits": table(0.7, 0.3)}, 0.1 / np.sqrt(2), 0.01),
            "the runs disagree about clades (ASDSF 0.071 > 0.01): train longer (--iterations)",
        ),
        (
            *("marginal_likelihood", {"log_marginal": -99.0}, 1.0, 0.1),
            "log marginal likelihoods 1.00 nats apart, where errors explain 0.04",
        ),
    ],
)
def test_each_criterion_alone_keeps_runs_from_having_converged(name, changes, value, threshold, reason):
    for runs in ([evidence(), evidence(**changes)], [evidence(**changes), evidence()]):
        verdict = judge(runs)
        assert verdict.converged is False
        assert verdict.line.startswith(f"converged: no - {reason}")
        failed = [criterion.name for criterion in verdict.criteria if not criterion.passed]
        assert failed == [name]
        assert by_name(verdict)[name].value == pytest.approx(value)
        assert by_name(verdict)[name].threshold == pytest.approx(threshold)


def test_all_reasons_are_named_and_every_cure_once():
    line = judge([evidence(), evidence(pareto_k=0.9, ess=9.0, splits=table(1, 0), log_marginal=-90.0)]).line
    assert line.endswith(
        ": train longer (--iterations) or add components (--components) or draw more (--repeats)"
    )
    assert line.count("train longer") == 1
    assert line.count(";") == 3
    for part in ("k-hat 0.90", "ASDSF", "10.00 nats apart"):
        assert part in line


def test_all_draws_together_count_as_each_runs():
    def found(k, ess):
        together = Reliability(num_draws=1000, ess=ess, pareto_k=k)
        return by_name(judge([evidence(), evidence()], together))

    assert found(0.8, 5000.0)["pareto_k"].passed is False
    assert found(0.8, 5000.0)["pareto_k"].value == 0.8
    assert found(0.1, 300.0)["ess"].passed is False
    alone = by_name(judge([evidence(), evidence()]))
    for together in (found(0.1, 5000.0), found(None, 5000.0)):
        assert together["pareto_k"] == alone["pareto_k"]
        assert together["ess"] == alone["ess"]


@pytest.mark.parametrize(
    ("rise", "passed"), [((0.1, 0.0), True), ((0.11, 0.0), False), ((0.3, 0.11), True), ((-5.0, 0.1), True)]
)
def test_a_bound_is_flat_where_no_rise_is_certain(rise, passed):
    assert by_name(judge([evidence(rise=rise), evidence()]))["bound"].passed is passed


def test_evidence_within_its_errors_agrees():
    runs = [evidence(log_marginal=-100.9, standard_error=0.3), evidence(standard_error=0.01)]
    criterion = by_name(judge(runs))["marginal_likelihood"]
    assert criterion.passed
    assert criterion.threshold == pytest.approx(3 * np.hypot(0.3, 0.01))


def test_what_cannot_be_known_does_not_count():
    verdict = judge([evidence(pareto_k=None, rise=None), evidence(pareto_k=None)])
    assert verdict.converged is True
    assert (by_name(verdict)["bound"].passed, by_name(verdict)["pareto_k"].passed) == (None, None)
    assert "bound" not in verdict.line


def test_one_run_cannot_show_agreement_but_can_fail():
    alone = judge([evidence(splits=None)])
    assert alone.converged is None
    assert alone.line.startswith("converged: unknown - one run cannot show agreement")
    assert "asdsf" not in by_name(alone)
    assert judge([evidence(splits=None, ess=10.0)]).converged is False


def test_what_lies_outside_the_support_counts_where_it_was_looked_at():
    good = judge([evidence(outside=(0.001, 0.005)), evidence(outside=(0.002, 0.005))])
    assert good.converged is True
    assert by_name(good)["support"].value == 0.002
    bad = judge([evidence(outside=(0.001, 0.005)), evidence(outside=(0.03, 0.005))])
    assert bad.line == (
        "converged: no - 3% of the posterior just outside the support, more than 0.5%: "
        "give trees that hold more of it (--support)"
    )


@pytest.mark.parametrize(
    ("changes", "asks"),
    [
        ({}, False),
        ({"trained": 0.5}, False),
        ({"outside": (0.1, 0.005)}, False),
        ({"ess": 1.0}, True),
        ({"trained": 0.5, "pareto_k": 1.0}, True),
    ],
)
def test_training_is_asked_for_where_it_may_help(changes, asks):
    assert judge([evidence(), evidence(**changes)]).asks_for_training is asks


def test_asdsf_by_hand():
    # Two inner splits a tree; of five taxa every one has a pair on its smaller side.
    def pairs(topology):
        one = split_table(TOPOLOGIES[topology : topology + 1])
        return {mask.tobytes() for mask, size in zip(one.masks, one.sizes, strict=True) if size > 1}

    first = pairs(0)
    shared = next(i for i in range(1, 15) if len(pairs(i) & first) == 1)
    chosen = np.array([0, shared])
    a = split_table(TOPOLOGIES[chosen], np.array([0.75, 0.25]))
    b = split_table(TOPOLOGIES[chosen], np.array([0.25, 0.75]))
    # A split of frequency 1 in both, and two of 0.75 and 0.25: standard deviations 0, 0.5 / sqrt 2 twice.
    assert average_standard_deviation([a, b]) == pytest.approx(2 * 0.5 / np.sqrt(2) / 3)
    # Three runs: 0.75, 0.25 and 0.75.
    third = np.std([0.75, 0.25, 0.75], ddof=1)
    assert average_standard_deviation([a, b, a]) == pytest.approx(2 * third / 3)
    # A split that is rarer than 0.1 in all runs is left out, one that is not in one of them counts.
    rare = split_table(TOPOLOGIES[chosen], np.array([0.95, 0.05]))
    rarer = split_table(TOPOLOGIES[chosen], np.array([0.99, 0.01]))
    assert average_standard_deviation([rare, rarer]) == pytest.approx(0.04 / np.sqrt(2) / 2)
    assert average_standard_deviation([rare, a]) == pytest.approx(2 * 0.2 / np.sqrt(2) / 3)


@pytest.mark.mrbayes
def test_asdsf_is_that_of_mrbayes(make_toy, tmp_path, require_program):
    program = require_program("mb")
    toy = make_toy(concentration=0.2)
    draws = toy.draw(2000, np.random.default_rng(3))
    parts = [np.arange(1200), np.arange(1200, 2000)]
    directory = RunDirectory(tmp_path)
    posterior_files.write_posterior(directory, draws, correct(draws), 600, np.random.default_rng(4), parts)
    tables = [split_table(read_tree_draws(directory.run_trees(n), draws.taxa).children) for n in (1, 2)]
    matrix = "\n".join(f"{name} ACGTACGTAC" for name in draws.taxa)
    (tmp_path / "matrix.nex").write_text(
        f"#NEXUS\nbegin data;\ndimensions ntax={len(draws.taxa)} nchar=10;\nformat datatype=dna;\n"
        f"matrix\n{matrix}\n;\nend;\n"
    )
    commands = (
        "set autoclose=yes nowarn=yes;\nexecute matrix.nex;\n"
        "sumt filename=posterior nruns=2 relburnin=no burnin=0;\nquit;\n"
    )
    said = subprocess.run(
        [program], input=commands, capture_output=True, text=True, cwd=tmp_path, timeout=60
    ).stdout
    found = re.search(r"Average standard deviation of split frequencies = ([\d.]+)", said)
    assert found, said[-3000:]
    ours = average_standard_deviation(tables)
    assert ours > 0.005
    assert float(found.group(1)) == pytest.approx(ours, abs=1e-6)


def records(bounds, inverse_temperature=1.0, every=100):
    return [
        {"iteration": every * (i + 1), "bound": bound, "inverse_temperature": inverse_temperature}
        for i, bound in enumerate(bounds)
    ]


def test_the_rise_of_a_bound_is_that_of_the_last_tenth():
    climbing = [-50.0] * 90 + list(np.linspace(-10.0, -9.0, 10))
    rise, error = bound_rise(records(climbing))
    assert rise == pytest.approx(1.0)
    assert error == pytest.approx(0.0, abs=1e-9)


def test_the_error_of_a_rise_covers_what_noise_makes():
    rng = np.random.default_rng(0)
    rises = [bound_rise(records(rng.normal(-10.0, 0.2, 150))) for _ in range(300)]
    shares = np.array([rise / error for rise, error in rises])
    # A t distribution of 13 degrees of freedom has standard deviation 1.09.
    assert 0.9 < shares.std() < 1.3


def test_too_few_or_tempered_reports_say_nothing():
    assert bound_rise([]) is None
    assert bound_rise(records([-1.0] * 70)) is None
    assert bound_rise(records([-1.0] * 200, inverse_temperature=0.9)) is None
