"""Threads of the compiled likelihoods: the same results to the last bit, whatever the helpers do."""

import gc
import threading
import time

import numpy as np
import pytest

from vbpi_mix.likelihood import _board
from vbpi_mix.likelihood.base import make_likelihood
from vbpi_mix.likelihood.compiled import CompiledGeneralLikelihood, CompiledJC69Likelihood
from vbpi_mix.likelihood.models import jc69
from vbpi_mix.likelihood.workers import Workers, new_board


def make(kind, patterns, threads, dtype="float64"):
    if kind == "jc69":
        return CompiledJC69Likelihood(patterns, threads=threads, dtype=dtype)
    return CompiledGeneralLikelihood(patterns, jc69(), threads=threads, dtype=dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kind", ["jc69", "general"])
def test_many_jobs_of_changing_size_and_kind(kind, dtype, draw_trees, draw_patterns):
    # Batches change size, so that helpers come upon arrays that are no longer theirs; pauses send them to
    # sleep; jobs with and without gradients alternate.
    patterns = draw_patterns(12, 150, seed=30)
    children, lengths = draw_trees(12, 7, seed=31)
    single, double = make(kind, patterns, 1, dtype), make(kind, patterns, 3, dtype)
    expected = single.value_and_gradient(children, lengths)
    rng = np.random.default_rng(32)
    for job in range(300):
        trees = slice(0, int(rng.integers(1, 8)))
        if rng.random() < 0.3:
            np.testing.assert_array_equal(double.value(children[trees], lengths[trees]), expected[0][trees])
        else:
            actual = double.value_and_gradient(children[trees], lengths[trees])
            np.testing.assert_array_equal(actual[0], expected[0][trees])
            np.testing.assert_array_equal(actual[1], expected[1][trees])
        if job % 50 == 0:
            time.sleep(0.01)


def test_helpers_leave_with_the_likelihood(draw_trees, draw_patterns):
    before = set(threading.enumerate())  # some may be helpers of others that are about to leave
    likelihood = make_likelihood(draw_patterns(8, 100, seed=33), jc69(), threads=4)
    likelihood.value(*draw_trees(8, 3, seed=34))
    helpers = set(threading.enumerate()) - before
    assert len(helpers) == 3
    del likelihood
    gc.collect()
    for helper in helpers:
        helper.join(60)
    assert not any(helper.is_alive() for helper in helpers)


def test_pieces_are_taken_once_each():
    board = new_board()
    assert _board.take(board, 5, 1)[0] == -1  # no job yet
    for mode in (_board.GRADIENT, _board.VALUE):
        _board.post(board, 5, 1, mode)
        assert _board.take(board, 5, 2)[0] == -1  # another generation
        taken = [_board.take(board, 5, 1) for _ in range(6)]
        assert taken[:5] == [(piece, mode) for piece in range(5)]
        assert taken[5][0] == -1
        for _ in range(5):
            assert not _board.await_finish(board)
            _board.finish(board)
        assert _board.await_finish(board)


def test_a_helper_that_is_late_finds_nothing(draw_trees, draw_patterns):
    # The job is done although no helper ever comes: they are asleep and nobody wakes them.
    patterns = draw_patterns(6, 200, seed=35)
    likelihood = make("jc69", patterns, 2)
    likelihood._workers.wake = lambda: None
    children, lengths = draw_trees(6, 2, seed=36)
    expected = make("jc69", patterns, 1).value(children, lengths)
    np.testing.assert_array_equal(likelihood.value(children, lengths), expected)


def test_a_call_waits_for_the_helpers_of_an_interrupted_one(draw_trees, draw_patterns):
    likelihood = make("jc69", draw_patterns(6, 200, seed=37), 1)
    children, lengths = draw_trees(6, 2, seed=38)
    expected = likelihood.value(children, lengths)
    board = likelihood._workers.board
    board[_board.UNFINISHED] = 1  # somebody is still at a piece
    timer = threading.Timer(0.2, _board.finish, [board])
    timer.start()
    np.testing.assert_array_equal(likelihood.value(children, lengths), expected)
    timer.join()
    assert board[_board.UNFINISHED] == 0


def test_no_threads():
    with pytest.raises(ValueError, match="threads must be at least one, got 0"):
        Workers(0)
