"""Iterations planned for a budget, and the pace they are planned by."""

import numpy as np
import pytest

from vbpi_mix._cli_budget import (
    CROWDING,
    FIXED_SECONDS,
    MIN_ITERATIONS,
    Pace,
    evaluation_seconds,
    plan_training,
    rehearse,
)
from vbpi_mix._cli_members import last_record
from vbpi_mix.alignment import Alignment
from vbpi_mix.datasets import load_dataset
from vbpi_mix.errors import ConfigurationError
from vbpi_mix.results.analysis import start_run
from vbpi_mix.results.run_directory import RunDirectory
from vbpi_mix.training.config import RunConfig
from vbpi_mix.trees.enumeration import all_topologies
from vbpi_mix.trees.samples import TreeSample

CONFIG = RunConfig.model_validate({"data": {"dataset": "DS1"}})
PACE = Pace(step=0.002, draw=0.0001)


def test_evaluation_is_paid_first():
    # the refit learns from 50,000 draws; 100,000 are evaluated, and as many of all runs together
    assert evaluation_seconds(CONFIG, PACE) == pytest.approx(FIXED_SECONDS + 25.0)


def test_nine_tenths_of_the_rest_are_for_training():
    planned = plan_training(CONFIG, PACE, FIXED_SECONDS + 25.0 + 10.0)
    assert planned.optimisation.iterations == 4500
    assert planned.machine.training_seconds == pytest.approx(10.0)
    assert planned.model_dump(exclude={"optimisation", "machine"}) == CONFIG.model_dump(
        exclude={"optimisation", "machine"}
    )


def test_an_evaluation_that_may_stop_gets_what_training_leaves():
    evaluation = CONFIG.evaluation.model_copy(update={"enough_ess": 5000.0})
    config = CONFIG.model_copy(update={"evaluation": evaluation})
    # ten repeats: 10,000 draws to learn from, to evaluate, and of all runs together
    least = FIXED_SECONDS + 3.0
    planned = plan_training(config, PACE, least + 10.0)
    assert (planned.optimisation.iterations, planned.evaluation.repeats) == (4500, 10)
    assert planned.machine.training_seconds == pytest.approx(10.0)
    whole = CONFIG.optimisation.iterations * 0.002 / 0.9
    planned = plan_training(config, PACE, least + whole + 3.1)
    assert (planned.optimisation, planned.evaluation.repeats) == (CONFIG.optimisation, 20)
    assert planned.machine.training_seconds == pytest.approx(whole + 3.1)
    assert planned.evaluation.enough_ess == 5000.0
    assert plan_training(config, PACE, 1e6).evaluation == evaluation
    with pytest.raises(ConfigurationError, match="--budget: expected about"):
        plan_training(config, PACE, least)


def test_runs_at_the_same_time_are_slower():
    assert PACE.crowded() == Pace(step=CROWDING * 0.002, draw=CROWDING * 0.0001)


def test_no_more_iterations_than_without_a_budget():
    assert plan_training(CONFIG, PACE, 1e6).optimisation == CONFIG.optimisation


def test_too_small_a_budget_says_how_much_is_missing():
    least = FIXED_SECONDS + 25.0 + MIN_ITERATIONS * 0.002 / 0.9
    assert plan_training(CONFIG, PACE, least + 1e-4).optimisation.iterations == MIN_ITERATIONS
    with pytest.raises(ConfigurationError, match="--budget: expected about 5 s more: 30 s were left"):
        plan_training(CONFIG, PACE, 30.0)


def test_a_rehearsal_measures_and_changes_nothing(tmp_path):
    directory = RunDirectory(tmp_path)
    whole = load_dataset("DS1")
    part = Alignment(whole.taxa[:6], whole.states[:6, 400:550], "part of DS1")
    sample = TreeSample(part.taxa, all_topologies(6), np.ones(105), "all topologies")
    start_run(CONFIG, part, sample).save(directory.checkpoint)
    before = directory.checkpoint.read_bytes()
    pace = rehearse(directory)
    assert 0 < pace.draw < pace.step < 1
    assert directory.checkpoint.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [directory.checkpoint.name]


def test_the_last_complete_line_of_a_growing_file(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert last_record(path) is None
    path.write_text("")
    assert last_record(path) is None
    path.write_text('{"iteration": 1}\n{"iteration": 2}\n{"iterat')
    assert last_record(path) == {"iteration": 2}
    path.write_text("x" * 9000 + '\n{"iteration": 3}\n')
    assert last_record(path) == {"iteration": 3}
    path.write_text("rubbish\n")
    assert last_record(path) is None
