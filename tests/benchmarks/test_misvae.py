"""Benchmarks of MISVAE: steps are timed, jobs run and are planned, sections say what the results say."""

import json
import sys
from dataclasses import asdict

import misvae
import misvae_study
import misvae_training
import pytest
import tomli_w
import torch
from _jobs import claim
from misvae_study import CONFIGURATIONS, Job, name_of
from sections import misvae as reported_speed
from sections import misvae_study as reported
from sections import misvae_training as reported_training

from vbpi_mix.vae.config import ModelConfig
from vbpi_mix.vae.model import Misvae

SMALL = {
    "model": {
        "latent": 4,
        "encoder_channels": 2,
        "trunk_features": 16,
        "head_width": 8,
        "decoder": {"kind": "independent", "hidden": 16, "features": 8},
    },
    "optimisation": {"batch_size": 100, "epochs": 2},
    "machine": {"log_every": 5},
}
WITH_SMALL_MODEL_AND_FEWER_IMAGES = """
import sys
from vbpi_mix import cli
from vbpi_mix.vae import images
images.NUM_TRAINING = 1_000
is_new = "train" in sys.argv and "--resume" not in sys.argv
if is_new and "--config" in sys.argv:
    sys.argv[sys.argv.index("--config") + 1] = {config!r}
elif is_new:
    sys.argv += ["--config", {config!r}]
cli.main()
"""


@pytest.fixture
def digits(require_reference):
    return require_reference("mnist/train-images-idx3-ubyte.gz").parent


@pytest.fixture
def small_program(tmp_path):
    """Command that stands for ``vbpi-mix`` and starts new runs small."""
    config = tmp_path / "small.toml"
    config.write_text(tomli_w.dumps(SMALL))
    return sys.executable, "-c", WITH_SMALL_MODEL_AND_FEWER_IMAGES.format(config=str(config))


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.reference
def test_steps_are_timed_and_reported(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(misvae, "WARM_UP", 0)
    measured = misvae.measure(2, 1, digits)
    single, mixture = measured["runs"][:2]
    assert (single["components"], mixture["components"]) == (1, 100)
    assert len(single["milliseconds"]) == 2
    # A component costs its column, of as many parameters as the head has hidden units.
    assert mixture["num_parameters"] - single["num_parameters"] == 99 * 64
    single["milliseconds"], mixture["milliseconds"] = [100.0, 110.0], [120.0, 132.0]
    single["seconds_per_epoch"] = 52.5
    measured["threads"] = 2
    (tmp_path / "misvae.json").write_text(json.dumps({"measured": [measured], "provenance": {}}))
    section = reported_speed.section(tmp_path)
    assert section is not None
    assert "takes 52 s, within the 60 s" in section.text[0]
    assert (
        "S2A, A=100, S=1, independent pixels takes 1.20 times as long (at most 1.25: met)" in section.text[0]
    )
    assert len(section.parts[0].rows) == 4


@pytest.mark.reference
def test_a_job_trains_and_is_scored(digits, small_program, tmp_path, monkeypatch):
    monkeypatch.setattr(misvae_study, "PROGRAM", small_program)
    monkeypatch.setattr(misvae_study, "TOTAL_SAMPLES", 5)
    job = Job("mnist", "independent", "s2a", 3, 1, 1, 4, 30)
    with claim(tmp_path / "job.lock") as lock:
        assert lock is not None
        measured = misvae_study.measure(job, tmp_path / "job", lock, digits)
    assert {key: measured[key] for key in asdict(job)} == asdict(job)
    assert measured["samples"] == 2  # of each component: five in all, rounded up
    values = measured["image_negative_log_likelihood"]
    assert len(values) == 30
    assert sum(values) / 30 == pytest.approx(measured["negative_log_likelihood"]["mean"], abs=1e-3)
    assert measured["training_seconds"] == pytest.approx(measured["seconds_per_epoch"])


@pytest.fixture
def calibrated(tmp_path, monkeypatch):
    """Results with a calibration: S components take S times as long."""
    times = {name_of(*c): 100.0 * c[2] for c in CONFIGURATIONS}
    monkeypatch.setattr(misvae_study, "RESULTS", tmp_path)
    (tmp_path / "misvae_study").mkdir()
    manifest = {"milliseconds_of_step": {"independent": times}}
    (tmp_path / "misvae_study" / "manifest.json").write_text(json.dumps(manifest))
    return tmp_path


def test_jobs_are_at_equal_epochs_and_at_equal_time(calibrated):
    jobs = misvae_study.plan(misvae_study.parse(["list", "--epochs", "8", "--seeds", "0"]))
    assert len({job.name for job in jobs}) == len(jobs)
    by_sampled = {
        sampled: {job.epochs for job in jobs if job.configuration == f"s2a.A100.S{sampled}"}
        for sampled in (1, 2, 5)
    }
    assert by_sampled == {1: {8}, 2: {8, 4}, 5: {8, 2}}
    costs = [job.epochs * job.sampled for job in jobs]
    assert max(costs[: len(CONFIGURATIONS)]) <= 10 < min(costs[len(CONFIGURATIONS) :])
    (calibrated / "misvae_study" / f"{jobs[0].name}.json").write_text("{}")
    assert misvae_study.is_done(jobs[0].name)
    assert not misvae_study.is_done(jobs[1].name)


def test_the_network_of_half_the_width_is_a_smaller_model():
    sizes = {}
    for network in ("default", "half"):
        config = ModelConfig.model_validate(misvae_study.model_settings("autoregressive", network))
        sizes[network] = Misvae(config, 1, torch.Generator()).num_parameters()
    assert 3 < sizes["default"] / sizes["half"] < 4
    job = Job("mnist", "independent", "s2a", 3, 1, 4, 0, 100, "half")
    assert job.name == "mnist.independent-half.s2a.A3.S1.e4.seed0"


def result_of(components, epochs, values):
    """A result of S2A, with these negative log-likelihoods of images."""
    return {
        **asdict(Job("mnist", "independent", "s2a", components, 1, epochs, 0, len(values))),
        "num_parameters": 1000 + components,
        "negative_log_likelihood": {"mean": sum(values) / len(values), "standard_error": 1.0},
        "bound": -101.0,
        "active_components": 1.5,
        "image_negative_log_likelihood": values,
    }


def test_the_section_compares_image_by_image(tmp_path):
    folder = tmp_path / "misvae_study"
    folder.mkdir()
    single = [80.0, 120.0, 100.0, 90.0]
    runs = {
        "single": result_of(1, 8, single),
        "same": result_of(5, 8, [81.0, 119.0, 101.0, 89.0]),
        "better": result_of(20, 8, [v - 1 - 0.02 * i for i, v in enumerate(single)]),
        "slower": result_of(100, 4, [v + 1 + 0.02 * i for i, v in enumerate(single)]),
        "other seed": {**result_of(5, 8, [81.5, 119.5, 101.5, 89.5]), "seed": 1},
    }
    times = {"s2a.A1.S1": 100.0, "s2a.A5.S1": 100.0, "s2a.A20.S1": 100.0, "s2a.A100.S1": 200.0}
    manifest = {"milliseconds_of_step": {"independent": times}, "steps_in_epoch": 500}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    for name, run in runs.items():
        (folder / f"{name}.json").write_text(json.dumps({**run, "provenance": {}}))
    assert reported.difference(runs["same"], runs["single"])[0] == pytest.approx(0.0)
    section = reported.section(tmp_path)
    assert section is not None
    text, _, between_seeds = section.text
    assert "differs by 0.50 of S2A, A=5, S=1 (mnist, 8 epochs):" in between_seeds
    assert "of S2A, A=20, S=1 after 8 epochs" in text
    assert "at equal epochs: 1 better, 1 the same within the error" in text
    assert "at equal training time: 1 better, 1 worse, 1 the same within the error" in text
    rows = {row[0]: row for row in section.parts[0].rows}
    assert rows["S2A, A=100, S=1"][3:5] == ["100.0", "400"]
    assert rows["S2A, A=100, S=1"][6:8] == ["-", "+1.03 (0.01)"]
    assert rows["S2A, A=20, S=1"][6:8] == ["-1.03 (0.01)", "-1.03 (0.01)"]


@pytest.mark.reference
def test_the_default_model_is_trained_once_and_evaluated(digits, small_program, tmp_path, monkeypatch):
    monkeypatch.setattr(misvae_training, "PROGRAM", small_program)
    measured = misvae_training.measure("independent", tmp_path / "run", 2, 1, digits)
    written = (tmp_path / "run" / "result.json").stat().st_mtime_ns
    assert measured["training"]["epochs"] == 2
    assert len(measured["bound_by_epoch"]) == 2
    assert measured["evaluation"]["num_samples"] == 2
    again = misvae_training.measure("independent", tmp_path / "run", 2, 1, digits)
    assert (tmp_path / "run" / "result.json").stat().st_mtime_ns == written
    assert again["evaluation"]["negative_log_likelihood"] == measured["evaluation"]["negative_log_likelihood"]
    (tmp_path / "misvae_training").mkdir()
    (tmp_path / "misvae_training" / "independent.json").write_text(json.dumps(measured))
    section = reported_training.section(tmp_path)
    assert section is not None
    assert "after 2 epochs; asked below 85.0 within 60 min: missed" in section.text[0]
    assert [row[0] for row in section.parts[1].rows] == ["1", "2"]


def test_epochs_of_the_course_end_with_their_last_line(tmp_path):
    records = [(0.5, -3.0), (1.0, -1.0), (1.5, -1.5), (2.0, -0.5)]
    lines = [json.dumps({"epoch": epoch, "bound": bound}) for epoch, bound in records]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    assert misvae_training.bound_by_epoch(tmp_path / "metrics.jsonl") == [-2.0, -1.0]
