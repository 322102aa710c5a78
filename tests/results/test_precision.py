"""Precision: what the configuration says is for training; evaluation computes in double precision."""

import numpy as np

from vbpi_mix.alignment import Alignment
from vbpi_mix.datasets import load_dataset
from vbpi_mix.likelihood.base import make_likelihood
from vbpi_mix.likelihood.models import jc69
from vbpi_mix.results.analysis import likelihood_of, make_engine, start_run
from vbpi_mix.training.config import DataConfig, MachineConfig, RunConfig


def test_single_precision_is_for_training_alone(tmp_path):
    full = load_dataset("DS1")
    alignment = Alignment(full.taxa[:5], full.states[:5, :100].copy(), "part of DS1")
    config = RunConfig(
        data=DataConfig(alignment=tmp_path / "part.fasta", model="JC"), machine=MachineConfig(dtype="float32")
    )
    checkpoint = start_run(config, alignment)
    trees = checkpoint.sample.children, np.full((len(checkpoint.sample.children), 7), 0.1)
    training = make_engine(checkpoint)._likelihood.value(*trees)
    evaluation = likelihood_of(checkpoint).value(*trees)
    for got, dtype in ((training, "float32"), (evaluation, "float64")):
        np.testing.assert_array_equal(
            got, make_likelihood(checkpoint.patterns, jc69(), dtype=dtype).value(*trees)
        )
    assert not np.array_equal(training, evaluation)
