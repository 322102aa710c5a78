import json

import numpy as np
import pytest

from vbpi_mix.errors import RunDirectoryError
from vbpi_mix.machine import versions
from vbpi_mix.results import correction, evaluation, result


@pytest.fixture(scope="module")
def draws(make_toy):
    return make_toy().draw(4000, np.random.default_rng(1))


@pytest.fixture(scope="module")
def run_result(draws):
    estimates = result.estimate(draws, correction.correct(draws))
    return result.RunResult(
        **estimates.model_dump(),
        refit=None,
        seconds=result.Seconds(support=1.0, training=2.5, evaluation=0.5),
        iterations=100,
        ms_per_iteration=1.25,
        seed=7,
        versions=versions(),
        provenance=result.Provenance(
            command=["vbpi-mix", "run"],
            data="DS1",
            data_sha256="0" * 64,
            model="JC",
            support="trees.nex",
            num_taxa=6,
            num_sites=20,
            num_patterns=9,
            num_parameters=40,
            device="cpu",
            threads=1,
            platform="Linux",
        ),
    )


def test_estimates_are_those_of_the_functions(draws, run_result):
    log_weights = draws.by_component(draws.log_weights)
    assert run_result.lower_bound_1 == evaluation.lower_bound(log_weights, 1)
    assert run_result.lower_bound_10 == evaluation.lower_bound(log_weights, 10)
    assert run_result.marginal_log_likelihood.num_repeats == 4
    assert run_result.marginal_log_likelihood.evaluations_per_repeat == 1000
    assert run_result.ess_percent == pytest.approx(100 * run_result.ess / 4000)
    assert 0 < run_result.jensen_shannon < np.log(2)
    assert run_result.topologies.correction is correction.CorrectionMethod.RAO_BLACKWELLISED


def test_the_file_has_the_documented_keys_and_reads_back(tmp_path, run_result):
    path = tmp_path / "result.json"
    result.write_result(path, run_result)
    content = json.loads(path.read_text())
    assert {
        "marginal_log_likelihood",
        "lower_bound_1",
        "lower_bound_10",
        "pareto_k",
        "ess",
        "seconds",
        "iterations",
        "ms_per_iteration",
        "versions",
        "seed",
    } <= content.keys()
    assert {"mean", "std", "pooled", "standard_error"} <= content["marginal_log_likelihood"].keys()
    assert content["seconds"] == {"support": 1.0, "training": 2.5, "evaluation": 0.5}
    assert {"vbpi-mix", "python", "numpy", "numba", "torch"} <= content["versions"].keys()
    assert result.read_result(path) == run_result


def test_a_result_that_is_not_finite_is_not_written(tmp_path, run_result):
    path = tmp_path / "result.json"
    with pytest.raises(ValueError):
        result.write_result(path, run_result.model_copy(update={"ms_per_iteration": float("nan")}))
    assert not path.exists()


def test_a_missing_result_says_how_to_get_one(tmp_path):
    with pytest.raises(RunDirectoryError, match="has not finished; finish it with --resume"):
        result.read_result(tmp_path / "result.json")


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b'{"bound": 3}', "got marginal_log_likelihood: Field required"),
        (b"{", "damaged"),
        (b"\xff", "damaged"),
    ],
)
def test_a_strange_result_is_one_message(tmp_path, content, fault):
    (tmp_path / "result.json").write_bytes(content)
    with pytest.raises(RunDirectoryError, match=fault) as error:
        result.read_result(tmp_path / "result.json")
    assert "\n" not in str(error.value)
    assert "run the analysis again" in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ('"mean": ', '"mean": 1e999, "once": ', "mean: Input should be a finite number"),
        ('"topology_entropy": [', '"topology_entropy": [1.0,', "components: .* as there are components"),
        ('"vbpi-mix"', '"vbpi-mis"', "versions: .* the version of vbpi-mix"),
        ('"level": 0.95', '"level": 0.8', "credible_sets: .* levels 0.5, 0.9, 0.95, 0.99"),
    ],
)
def test_a_damaged_value_is_named(tmp_path, run_result, old, new, fault):
    path = tmp_path / "result.json"
    result.write_result(path, run_result)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(RunDirectoryError, match=fault):
        result.read_result(path)


def test_few_draws_have_no_pareto_k_and_one_repeat(make_toy):
    draws = make_toy().draw(24, np.random.default_rng(1))
    estimates = result.estimate(draws, correction.correct(draws))
    assert estimates.pareto_k is None
    assert estimates.marginal_log_likelihood.num_repeats == 1
