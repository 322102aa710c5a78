"""Checkpoints: training goes on from a file bit for bit."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from vbpi_mix.errors import RunDirectoryError
from vbpi_mix.seeding import RandomStreams
from vbpi_mix.training.checkpoint import Checkpoint
from vbpi_mix.training.config import RunConfig
from vbpi_mix.training.growth import GrowthRound
from vbpi_mix.training.loop import train
from vbpi_mix.training.state import TrainingState, initial_mixture

CONFIG = RunConfig.model_validate(
    {
        "seed": 4,
        "data": {"dataset": "DS1"},
        "mixture": {"components": 3, "sampled": 2, "estimator": "s2a", "particles": 3},
        "optimisation": {"iterations": 12},
    }
)

TAKING_TURNS = CONFIG.model_validate(
    CONFIG.model_dump() | {"mixture": {"components": 3, "sampled": 1, "estimator": "s2s", "particles": 3}}
)


def start(problem, config=CONFIG):
    state = TrainingState.initial(
        initial_mixture(problem.support, problem.sample, config.mixture, config.optimisation)
    )
    return Checkpoint(config, problem.patterns, problem.sample, state, RandomStreams.from_seed(4), 1.5, 2.5)


def run(problem, kind, checkpoint, num_reports=None):
    config = checkpoint.config
    engine = problem.engine(kind, config.mixture, config.optimisation, checkpoint.state)
    reports = []
    for report in train(engine, checkpoint.streams, config.mixture, config.optimisation, 8, 3):
        reports.append((report.step, report.bound))
        if num_reports is not None and len(reports) == num_reports:
            break
    return engine.state(), reports


@pytest.mark.parametrize(
    ("kind", "config"), [("compiled", CONFIG), ("torch", CONFIG), ("compiled", TAKING_TURNS)]
)
def test_resuming_continues_bit_for_bit(small_problem, kind, config, tmp_path):
    whole, all_reports = run(small_problem, kind, start(small_problem, config))
    assert [step for step, _ in all_reports] == [3, 6, 9, 12]

    first = start(small_problem, config)
    state, reports = run(small_problem, kind, first, num_reports=2)
    path = tmp_path / "checkpoint.pt"
    Checkpoint(config, first.patterns, first.sample, state, first.streams, 9.0, 2.5).save(path)
    loaded = Checkpoint.load(path)
    assert (loaded.state.step, loaded.training_seconds, loaded.support_seconds) == (6, 9.0, 2.5)
    assert loaded.config == config
    rest, more_reports = run(small_problem, kind, loaded)
    assert reports + more_reports == all_reports
    for name, array in whole.arrays().items():
        np.testing.assert_array_equal(rest.arrays()[name], array, err_msg=name)


def test_a_checkpoint_stands_alone(small_problem, tmp_path):
    original = start(small_problem)
    original.save(tmp_path / "c.pt")
    loaded = Checkpoint.load(tmp_path / "c.pt")
    assert loaded.patterns.taxa == original.patterns.taxa
    np.testing.assert_array_equal(loaded.patterns.states, original.patterns.states)
    np.testing.assert_array_equal(loaded.sample.children, original.sample.children)
    assert loaded.sample.source == original.sample.source
    np.testing.assert_array_equal(loaded.state.mixture.networks.log_q, original.state.mixture.networks.log_q)


def test_files_that_are_no_checkpoint_are_refused(small_problem, tmp_path):
    path = tmp_path / "c.pt"
    with pytest.raises(RunDirectoryError, match="no such file"):
        Checkpoint.load(path)
    path.write_bytes(b"rubbish")
    with pytest.raises(RunDirectoryError, match="cannot be read"):
        Checkpoint.load(path)
    start(small_problem).save(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(RunDirectoryError, match="cannot be read"):
        Checkpoint.load(path)
    torch.save({"version": 99}, path)
    with pytest.raises(RunDirectoryError, match="version 99"):
        Checkpoint.load(path)


def test_a_flipped_bit_is_found(small_problem, tmp_path):
    path = tmp_path / "c.pt"
    start(small_problem).save(path)
    content = path.read_bytes()
    array = start(small_problem).state.arrays()["logits"].tobytes()
    place = content.index(array) + len(array) // 2
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    with pytest.raises(RunDirectoryError, match=r"its part c/data/\d+ is damaged.*put back a copy"):
        Checkpoint.load(path)


def test_a_state_of_another_shape_is_refused(small_problem):
    state = start(small_problem).state
    arrays = {name: array[:1] for name, array in state.arrays().items()}
    with pytest.raises(ValueError, match="another run"):
        state.restore(3, arrays)


def with_rounds(config, number):
    optimisation = config.optimisation.model_copy(update={"rounds": number})
    return config.model_copy(update={"optimisation": optimisation})


def test_further_rounds_after_growth_are_a_phase_of_their_own(small_problem, tmp_path):
    plain = start(small_problem)
    plain.state.step = 12
    assert plain.training == CONFIG.optimisation
    again = plain.continued(with_rounds(CONFIG, 2))
    assert (again.training.num_steps, again.num_steps, again.steps_before) == (12 + 24, 12, 0)

    grown = replace(plain, growth=(GrowthRound(0.1, 2, 3),), steps_before=12, rounds_before=1)
    grown.state.step = 2  # a fifth of twelve, and done
    assert grown.training == CONFIG.training_after_growth()
    assert grown.training.num_steps == 2
    assert grown.continued(CONFIG).training == grown.training
    for number, length in ((2, 24), (3, 48)):
        before = grown.num_steps
        grown = grown.continued(with_rounds(CONFIG, number))
        path = tmp_path / "checkpoint.pt"
        grown.save(path)
        grown = Checkpoint.load(path)
        assert (grown.state.step, grown.num_steps, grown.training.num_steps) == (0, before, length)
        assert grown.training == CONFIG.optimisation.model_copy(update={"iterations": length})
        grown.state.step = length
    assert grown.num_steps == 12 + 2 + 24 + 48
