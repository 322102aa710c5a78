import io

import pytest

from vbpi_mix._cli_progress import (
    PlainProgress,
    SilentProgress,
    TerminalProgress,
    bound_text,
    duration,
    show_progress,
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (3723, "1 h 2 min"),
    ],
)
def test_durations_in_words(seconds, text):
    assert duration(seconds) == text


def lines_of(num_iterations, reports):
    """Lines that plain progress writes for reports (iteration, seconds on the clock, bound)."""
    stream = io.StringIO()
    times = iter([seconds for _, seconds, _ in reports])
    progress = PlainProgress(num_iterations, stream, clock=lambda: next(times))
    for iteration, _, bound in reports:
        progress.training(iteration, bound, 1.0)
    return stream.getvalue().splitlines()


def test_plain_progress_is_sparse_and_tells_pace_and_time_left():
    reports = [(i, i / 100, -7000.0 - i) for i in range(10, 1001, 10)]
    lines = lines_of(1000, reports)
    assert len(lines) == 10
    # 10 iterations to 110 took a second at a pace of 10 ms; 890 are left.
    assert lines[0] == "iteration 110 of 1,000 (11%), bound -7110.00, 10.00 ms/iteration, 8.9 s left"
    assert lines[-1].startswith("iteration 1,000 of 1,000 (100%)")
    assert lines[-1].endswith(", bound -8000.00, 10.00 ms/iteration")


def test_plain_progress_says_something_every_minute():
    reports = [(i, 25.0 * i, -1.0) for i in range(1, 10)]
    assert [line.split()[1] for line in lines_of(100_000, reports)] == ["4", "7"]


def test_a_resumed_run_counts_its_pace_from_where_it_began():
    lines = lines_of(1000, [(800, 0.0, -1.0), (900, 1.0, -1.0)])
    assert lines == ["iteration 900 of 1,000 (90%), bound -1.00, 10.00 ms/iteration, 1.0 s left"]


def test_a_training_of_one_report_has_a_line():
    assert lines_of(50, [(50, 0.0, -1.0)]) == ["iteration 50 of 50 (100%), bound -1.00"]


def test_a_tempered_bound_is_labelled():
    assert bound_text(-7.254, 0.314) == "annealing 31% (tempered bound -7.25)"
    assert bound_text(-7.254, 1.0) == "bound -7.25"


def test_quiet_is_silent(capsys):
    with show_progress(10, quiet=True) as progress:
        assert isinstance(progress, SilentProgress)
        progress.stage("something")
        progress.training(5, -1.0, 1.0)
    assert capsys.readouterr() == ("", "")


def test_a_pipe_gets_plain_lines_and_a_terminal_a_bar():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    with show_progress(10, quiet=False, stream=io.StringIO()) as progress:
        assert isinstance(progress, PlainProgress)
    stream = Terminal()
    with show_progress(10, quiet=False, stream=stream) as progress:
        assert isinstance(progress, TerminalProgress)
        progress.stage("[bold] is no markup")
        progress.training(5, -7.25, 0.314)
    assert "[bold] is no markup" in stream.getvalue()
    assert "5/10" in stream.getvalue()
    assert "annealing 31% (tempered bound -7.25)" in stream.getvalue()


def test_a_finished_bar_says_how_long_training_took():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    with show_progress(10, quiet=False, stream=stream) as progress:
        progress.training(5, -7.25, 1.0)
        progress.training(10, -7.25, 1.0)
    last = stream.getvalue().split("training ")[-1]
    assert "10/10" in last
    assert "in all" in last
    assert "left" not in last
