"""The study of estimators: its jobs run, continue, and are reported as their results say."""

import json
import signal
import sys
from pathlib import Path

import pytest
import study
from _jobs import claim
from _render import draw, markdown_table
from _sections import Figure, Table
from _study import Job, keep, measure, seconds_close
from sections import study as reported

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SMALL = ("--repeats", "2", "--samples", "60", "--posterior-samples", "20", "--no-refit", "--particles", "2")
EVERY_REPORT = ("--log-every", "20", "--checkpoint-seconds", "0")

# Waits until each of its checkpoints is kept, and is stopped by its starter after iteration 60.
STOPPED = """
import os, signal, sys, time
from pathlib import Path
from vbpi_mix import _cli_run, cli

signal.alarm(300)  # lest it outlive a test that fails
kept = Path(sys.argv[sys.argv.index("--out") + 1]).parent / "checkpoints"
interruption = []

def train(*arguments, train=_cli_run._train):
    interruption.append(arguments[-1])
    return train(*arguments)

def save(checkpoint, directory, save=_cli_run.save):
    num_kept = len(list(kept.iterdir()))
    save(checkpoint, directory)
    while len(list(kept.iterdir())) == num_kept:
        time.sleep(0.005)
    if checkpoint.state.step == 60:
        os.kill(os.getppid(), signal.SIGTERM)
        while interruption[0].signal_number is None:
            time.sleep(0.005)

_cli_run._train, _cli_run.save = train, save
cli.main()
"""


def test_a_stopped_job_continues_where_its_checkpoints_end(tmp_path, monkeypatch):
    monkeypatch.delenv("VBPI_MIX_REFERENCE", raising=False)
    monkeypatch.setattr("_study.TRAJECTORY_DRAWS", 300)
    job = Job("DS1", "s2a", 3, 1, 5, 1.6, 120, "small", (*SMALL, *EVERY_REPORT))
    folder = tmp_path / "job"
    with claim(folder.with_suffix(".lock")) as descriptor, monkeypatch.context() as patch:
        patch.setattr("_study.PROGRAM", (sys.executable, "-c", STOPPED))
        with pytest.raises(SystemExit, match=str(128 + signal.SIGTERM)):
            measure(job, folder, descriptor)
    assert not (folder / "run" / "result.json").exists()
    num_kept = len(list((folder / "checkpoints").glob("*.pt")))
    assert num_kept == 4  # one is that before the first step

    with claim(folder.with_suffix(".lock")) as descriptor:
        measured = measure(job, folder, descriptor)
    assert measured["continued"]
    assert measured["result"]["iterations"] == job.iterations
    course = measured["trajectory"]
    assert len(course) > num_kept  # from before the kill and after it
    assert [point["iteration"] for point in course[:num_kept]] == [0, 20, 40, 60]
    assert course[-1]["iteration"] == job.iterations
    seconds = [point["training_seconds"] for point in course]
    assert seconds == sorted(seconds)
    assert course[-1]["lower_bound_1"] < course[-1]["lower_bound_10"]
    assert course[0]["lower_bound_10"] < course[-1]["lower_bound_10"]
    assert 0 < seconds_close(course, 0.01) <= 0.01 * job.iterations
    assert 0.1 < measured["peak_memory_gib"] < 8
    assert measured["agreement"] is None
    assert str(tmp_path) not in json.dumps(measured)


def test_a_program_that_fails_says_why(tmp_path):
    job = Job("DS1", "a2a", 3, 1, 0, 1.0, 10)
    with (
        claim(tmp_path / "job.lock") as descriptor,
        pytest.raises(RuntimeError, match=r"ended with 2: Error.*S = A"),
    ):
        measure(job, tmp_path / "job", descriptor)


def test_checkpoints_outlive_their_replacement(tmp_path):
    checkpoint, folder = tmp_path / "checkpoint.pt", tmp_path / "kept"
    folder.mkdir()
    keep(checkpoint, folder)
    for content in ("first", "first", "second"):
        if not checkpoint.exists() or checkpoint.read_text() != content:
            (tmp_path / "new").write_text(content)
            (tmp_path / "new").replace(checkpoint)
        keep(checkpoint, folder)
    assert [path.read_text() for path in sorted(folder.iterdir())] == ["first", "second"]


def course(*bounds):
    return [
        {"iteration": 10 * i, "training_seconds": float(i), "lower_bound_1": b, "lower_bound_10": b}
        for i, b in enumerate(bounds)
    ]


@pytest.mark.parametrize(
    ("bounds", "target", "expected"),
    [
        ((-9.0, -5.05, -5.0, -5.02), None, 1.0),
        ((-5.0, -9.0, -5.05, -5.0), None, 2.0),  # it must stay there
        ((None, -5.0, -5.0), None, 1.0),
        ((-9.0, -5.0), -4.0, None),
        ((-9.0, -5.0, -3.0), -4.0, 2.0),  # above is close, too
    ],
)
def test_seconds_until_a_bound_stays_close(bounds, target, expected):
    assert seconds_close(course(*bounds), 0.1, target) == expected


def test_all_workers_of_a_cluster_share_the_jobs(tmp_path):
    code = f"""
import sys
sys.path.insert(0, {str(BENCHMARKS)!r})
from pathlib import Path
from _jobs import work_through
folder = Path({str(tmp_path)!r})
def do(name, descriptor):
    (folder / name).touch(exist_ok=False)

work_through(list("abcdef"), folder / "locks", lambda name: (folder / name).exists(), do)
"""
    chosen, _ = study.parse(
        ["submit", "--cluster", "local", "--tasks", "2", "--work", str(tmp_path / "work")]
    )
    submitted = study.submit([sys.executable, "-W", "ignore", "-c", code], chosen)
    assert len(submitted) == 2
    for job in submitted:
        job.result()
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == list("abcdef")


def test_training_settings_need_a_name():
    chosen, options = study.parse(["run", "--label", "slow", "--", "--branch-rate", "0.01"])
    assert (chosen.label, options) == ("slow", ["--branch-rate", "0.01"])
    for arguments in (["run", "--", "--branch-rate", "0.01"], ["run", "--label", "slow"]):
        with pytest.raises(SystemExit):
            study.parse(arguments)


def test_a_worker_is_told_the_same_jobs():
    arguments = ["run", "--datasets", "DS4", "--seeds", "7", "--label", "x", "--", "--branch-rate", "0.1"]
    chosen, options = study.parse(arguments)
    command = study.worker_command(chosen, options)
    again, repeated = study.parse(command[2:])
    assert again.action == "work"
    assert repeated == options
    for name in ("datasets", "seeds", "seconds", "label"):
        assert getattr(again, name) == getattr(chosen, name)


def test_exit_codes_and_signals_reach_their_ends():
    assert study.start_workers([sys.executable, "-c", "raise SystemExit(3)"], 2) == 3


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A folder of results for the study, with steps that need no calibration."""
    monkeypatch.setattr("_common.RESULTS", tmp_path)
    monkeypatch.setattr(study, "RESULTS", tmp_path)
    milliseconds = {(1, 1): 1.0, (3, 3): 4.0}
    monkeypatch.setattr(
        study, "milliseconds_of_step", lambda dataset, estimator, A, S: milliseconds.get((A, S), 2.0)
    )
    return tmp_path


def test_configurations_take_the_same_time(results):
    chosen, options = study.parse(
        ["list", "--datasets", "DS7", "DS1", "--seeds", "0", "1", "--seconds", "10"]
    )
    jobs = study.plan(chosen, options)
    assert len({job.name for job in jobs}) == len(jobs) == 2 * 2 * 9
    assert [job.dataset for job in jobs[::9]] == ["DS7", "DS1", "DS7", "DS1"]
    assert [job.seed for job in jobs[::9]] == [0, 0, 1, 1]
    ds1 = [job for job in jobs if job.dataset == "DS1" and job.seed == 0]
    by_sizes = {(job.components, job.sampled): job.iterations for job in ds1 if job.seconds == 10}
    assert by_sizes[1, 1] == 10_000
    assert by_sizes[3, 3] == 2_500
    (longer,) = (job for job in ds1 if job.seconds != 10)
    assert (longer.components, longer.seconds, longer.iterations) == (1, 30.0, 30_000)
    assert {job.seconds for job in jobs if job.dataset == "DS7"} == {20.0, 60.0}


def test_the_calibration_is_kept(results, monkeypatch):
    chosen, options = study.parse(["list", "--datasets", "DS1", "--seeds", "0"])
    jobs = study.plan(chosen, options)
    monkeypatch.delattr(study, "milliseconds_of_step")
    assert study.plan(chosen, options) == jobs
    manifest = json.loads((results / "study" / "manifest.json").read_text())
    assert list(manifest["jobs"]) == [job.name for job in jobs]


def test_a_calibration_is_a_time():
    assert 0.05 < study.milliseconds_of_step("DS1", "s2s", 2, 1) < 1000


def test_results_appear_whole_and_scratch_goes(results, monkeypatch):
    job = Job("DS1", "a2a", 1, 1, 0, 1.0, 10)

    def measured(job, folder, lock):
        folder.mkdir()
        return {"seed": job.seed}

    monkeypatch.setattr(study, "measure", measured)
    assert study.work([job], results / "work") == []
    assert json.loads((results / "study" / f"{job.name}.json").read_text())["seed"] == 0
    assert list((results / "work").iterdir()) == []
    monkeypatch.setattr(study, "measure", None)  # what is done is not done again
    assert study.work([job], results / "work") == []


def save_run(results, dataset, estimator, components, sampled, seed, std, seconds=10.0):
    run = {
        "dataset": dataset,
        "estimator": estimator,
        "components": components,
        "sampled": sampled,
        "seed": seed,
        "seconds": seconds,
        "iterations": 1000,
        "label": "",
        "continued": False,
        "wall_seconds": 20.0,
        "cpu_seconds": 19.0,
        "peak_memory_gib": 0.5,
        "trajectory": course(-30.0, -12.0, -11.0 - std),
        "agreement": {"splits": {"maximum": std / 2, "mean": 0.01}} if dataset == "DS5" else None,
        "result": {
            "marginal_log_likelihood": {"mean": -10.0, "std": std},
            "lower_bound_1": -12.0,
            "lower_bound_10": -11.0 - std,
            "ess_percent": 10 - std,
            "pareto_k": None if std > 5 else std,
            "seconds": {"support": 1.0, "training": seconds, "evaluation": 4.0},
        },
    }
    name = f"{dataset}.{estimator}.A{components}.S{sampled}.{seconds:g}s.seed{seed}"
    (results / "study").mkdir(exist_ok=True)
    (results / "study" / f"{name}.json").write_text(json.dumps(run))


@pytest.fixture
def section(tmp_path):
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "manifest.json").write_text('{"jobs": {}}')
    for seed in (0, 1):
        for dataset, gain in (("DS4", 0.05), ("DS5", -0.05)):
            save_run(tmp_path, dataset, "a2a", 1, 1, seed, 0.2)
            save_run(tmp_path, dataset, "a2a", 1, 1, seed, 0.15, 30.0)
            save_run(tmp_path, dataset, "a2a", 3, 3, seed, 0.2 - gain)
            save_run(tmp_path, dataset, "s2a", 3, 1, seed, 0.2 + gain * (1 - 2 * seed))
    return reported.section(tmp_path)


def test_the_text_says_where_mixtures_help_and_where_not(section):
    (std,) = (text for text in section.text if text.startswith("**std of ML**"))
    assert std.endswith(
        "4 comparisons: better in 1 (DS4: A2A A=3 S=3); worse in 1 (1 on DS5); "
        "mixed in 2 (1 on DS4, 1 on DS5)."
    )


def test_the_text_compares_sampled_components_with_all(section):
    (cheap,) = (text for text in section.text if text.startswith("**Sampled components"))
    assert cheap.endswith("mixed: DS4 S2A, A=3, S=1, DS5 S2A, A=3, S=1.")


def test_the_text_compares_with_longer_training(section):
    (longer,) = (text for text in section.text if text.startswith("**Longer"))
    assert "DS4: 0.150 with A=1 in 30 s, 0.150 with A2A, A=3, S=3 in 10 s" in longer


def test_tables_hold_every_configuration_and_seed(section):
    tables = [part for part in section.parts if isinstance(part, Table)]
    assert len(tables) == 1 + 2 * 2
    (ds4,) = (table for table in tables if table.caption.startswith("DS4: mean over seeds"))
    assert [row[0] for row in ds4.rows] == ["A=1", "S2A, A=3, S=1", "A2A, A=3, S=3", "A=1"]
    assert ds4.rows[1][4] == "0.200 (0.250, 0.150)"
    for table in tables:
        assert {len(row) for row in table.rows} == {len(table.columns)}
        assert "nan" not in markdown_table(table)


def test_the_plots_can_be_drawn(section):
    figures = [part for part in section.parts if isinstance(part, Figure)]
    assert len(figures) == 2
    assert all("S2A, A=3, S=1" in draw(figure) for figure in figures)


def test_one_configuration_alone_is_reported(tmp_path):
    save_run(tmp_path, "DS1", "s2s", 10, 1, 0, 9.0)
    section = reported.section(tmp_path)
    assert section.sources == ["study/DS1.s2s.A10.S1.10s.seed0.json"]
    assert all(draw(part) for part in section.parts if isinstance(part, Figure))


def test_without_results_there_is_no_section(tmp_path):
    assert reported.section(tmp_path) is None
