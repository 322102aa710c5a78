"""The race against MrBayes: what its files say, how samples are compared, how runs of ours are planned."""

import gzip
from itertools import pairwise

import _mrbayes as mrbayes
import numpy as np
import pytest
import race
from _common import save
from _splits import differences, listed, read_split_table, split_frequencies
from sections import race as race_section
from sections import topologies as topologies_section

from vbpi_mix.trees.enumeration import all_topologies
from vbpi_mix.trees.topology import canonicalise

STEPPING_STONE_LOG = """
      Marginal likelihood (in natural log units) estimated using stepping-stone sampling

         Run   Marginal likelihood (ln)
         ------------------------------
           1    -7152.31
           2     -7118.73
         ------------------------------
         Mean:  -7119.42

"""


def test_marginal_likelihoods_are_those_of_the_runs():
    assert mrbayes.read_marginal_likelihoods(STEPPING_STONE_LOG) == [-7152.31, -7118.73]
    with pytest.raises(ValueError, match="expected a table of marginal likelihoods"):
        mrbayes.read_marginal_likelihoods("Run  Marginal")


def test_split_deviations_are_the_last_column_of_each_diagnosis(tmp_path):
    path = tmp_path / "chain.mcmc"
    path.write_text("[ID: 12]\n[comment]\nGen\tx\tAvgStdDev(s)\n0\t1.0\tNA\n10000\t0.5\t0.0625\n")
    assert mrbayes.read_split_deviations(path) == {10_000: 0.0625}


def test_the_last_generation_is_that_of_the_last_whole_sample(tmp_path):
    path = tmp_path / "chain.run1.t"
    assert mrbayes.last_generation(path) == 0
    path.write_text(
        "begin trees;\n   tree gen.0 = [&U] (1,2,3);\n   tree gen.1300 = [&U] (1,2,3);\n   tree gen.14"
    )
    assert mrbayes.last_generation(path) == 1300


def test_the_grid_of_generations_rises_to_the_last():
    grid = mrbayes.generation_grid(100_000)
    assert grid[0] == 2_000
    assert grid[-1] == 100_000
    assert all(a < b <= 1.2 * a for a, b in pairwise(grid))
    assert all(g % mrbayes.SAMPLE_EVERY == 0 for g in grid)
    assert mrbayes.generation_grid(1_000) == [1_000]


def test_convergence_pools_runs_and_leaves_burn_in_out():
    a, b, c, d = canonicalise(all_topologies(5)[[0, 4, 7, 9]])
    weights = np.array([3.0, 1.0])  # of a and b: 0.75, 0.25
    # Up to generation 300 four samples, of which the first is burn-in; then b alone, and c from elsewhere.
    first = np.array([d, a, a, b, b, b, b, b])
    second = np.array([d, a, b, c, b, b, b, b])
    early, late = mrbayes.convergence(np.array([a, b]), weights, [first, second], [300, 700])
    # Early: a 3, b 2, c 1 of six samples.
    assert early["total_variation"] == pytest.approx(0.5 * (0.25 + abs(1 / 3 - 0.25) + 1 / 6))
    assert early["coverage"] == 1.0
    assert early["kl"] == pytest.approx(0.75 * np.log(0.75 / 0.5) + 0.25 * np.log(0.25 * 3))
    assert early["num_topologies"] == 3
    # Late: samples 2 to 7: a 1, b 10, c 1 of twelve.
    assert late["total_variation"] == pytest.approx(0.5 * ((0.75 - 1 / 12) + (10 / 12 - 0.25) + 1 / 12))


def test_kl_of_partly_covered_references_is_renormalised():
    a, b = canonicalise(all_topologies(5)[[0, 4]])
    (found,) = mrbayes.convergence(np.array([a, b]), np.array([3.0, 1.0]), [np.array([a, a])], [100])
    assert found["coverage"] == 0.75
    assert found["kl"] == pytest.approx(0.0)


def test_nexus_holds_every_taxon_under_a_name_that_mrbayes_takes():
    text = mrbayes.nexus_matrix(["a b", "c"], ["AC?", "GTA"])
    assert "dimensions ntax=2 nchar=3;" in text
    assert [line.split()[1] for line in text.splitlines() if line.endswith(("AC?", "GTA"))] == ["AC?", "GTA"]
    assert "a b" not in text


def test_split_frequencies_and_tables_name_the_side_without_the_last_taxon(tmp_path):
    trees = canonicalise(all_topologies(4))  # the three quartets
    frequencies = split_frequencies(trees, np.array([2.0, 1.0, 1.0]))
    assert sorted(frequencies.values()) == [0.25, 0.25, 0.5]
    assert set(frequencies) == {"0,1", "0,2", "1,2"}
    path = tmp_path / "splits.tsv.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write("probability\tsd\ttaxa\n0.5\t0.01\tA,D\n1\t0\tB\n0.2\t0\tA,B\n")
    assert read_split_table(path, "ABCD") == {"1,2": 0.5, "0,1": 0.2}


def test_differences_count_unlisted_splits_only_above_what_tables_list():
    found = differences({"0,1": 0.5, "0,2": 0.05, "1,2": 0.3}, {"0,1": 0.6, "2,3": 0.12})
    assert found["num_splits"] == 3
    assert found["maximum"] == pytest.approx(0.2)  # 1,2: at least 0.3 - 0.1
    assert found["mean"] == pytest.approx((0.1 + 0.12 + 0.2) / 3)
    assert listed({"0,1": 0.1, "0,2": 0.09}) == {"0,1": 0.1}


def test_a_plan_uses_up_a_budget_but_for_a_reserve():
    costs = race.Costs(fixed=5.0, iteration=0.002, repeat=0.05)
    iterations, repeats = race.plan(25.0 / (1 - race.RESERVE), costs, evaluation_share=0.25)
    assert (iterations, repeats) == (7_500, 100)
    assert costs.fixed + iterations * costs.iteration + repeats * costs.repeat == pytest.approx(25.0)
    assert race.plan(1.0, costs, 0.25) == (race.MIN_ITERATIONS, race.REPEATS[0])


def test_costs_are_those_of_a_measured_run():
    seconds = {"support": 4.0, "training": 10.0, "evaluation": 5.0}
    run = {"wall_seconds": 22.0, "repeats": 50, "result": {"seconds": seconds, "iterations": 5_000}}
    assert race.costs_of(run) == race.Costs(fixed=7.0, iteration=0.002, repeat=0.1)


def test_a_budget_takes_the_last_point_within_it():
    curve = race_section.curve(
        [{"generations": 1_000, "total_variation": 0.5}, {"generations": 3_000, "total_variation": 0.2}],
        {"startup_seconds": 1.0, "generations_per_second": 100.0},
    )
    assert curve == [(11.0, 0.5), (31.0, 0.2)]
    assert [race_section.at_budget(curve, b) for b in (10, 30, 32, 60)] == [None, 0.5, 0.2, None]


def _run(budget, seconds, seed=0, variation=0.03):
    kinds = dict.fromkeys(("raw", "refitted", "corrected"), variation)
    return {
        "dataset": "DS1",
        "budget": budget,
        "seed": seed,
        "wall_seconds": seconds,
        "agreement": {"total_variation": kinds, "kl": kinds, "coverage": kinds},
        "result": {
            "iterations": 1_000,
            "pareto_k": 0.5,
            "marginal_log_likelihood": {"mean": -7.0, "std": 0.1, "pooled": -7.0, "standard_error": 0.01},
        },
    }


def test_a_budget_takes_the_largest_plan_that_all_seeds_kept():
    runs = [_run(10, 9.0), _run(10, 10.4, seed=1), _run(20, 19.0), _run(20, 23.0, seed=1)]
    assert race_section.runs_within(runs, 9) == []
    assert race_section.runs_within(runs, 10) == runs[:2]
    assert race_section.runs_within(runs, 20) == runs[:2]
    assert race_section.runs_within(runs, 30) == runs[2:]


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr("_common.RESULTS", tmp_path)
    convergence = [
        {"generations": g, "total_variation": v} for g, v in ((1_000, 0.6), (3_000, 0.2), (89_000, 0.02))
    ]
    speed = {
        "settings": "fast",
        "generations_per_second": 100.0,
        "startup_seconds": 1.0,
        "cpu_per_wall": 1.9,
    }
    save("race/chains/DS1.seed1", {"dataset": "DS1", "convergence": convergence})
    save("race/speed/DS1", {"dataset": "DS1", "best": speed, "trials": [speed]})
    stone = {"dataset": "DS1", "generations": 900, "marginal_log_likelihood": [-7.5, -6.5]}
    save("race/stepping_stone/DS1.seed1", stone)
    save("race/ours/DS1.budget30.seed0", _run(30, 29.0))
    splits = {"maximum": 0.04, "mean": 0.004, "num_splits": 9}
    chain = {
        "dataset": "DS5",
        "generations": 900,
        "splits": {"0,1": 0.5},
        "splits_between_runs": splits,
        "splits_against_table": splits,
    }
    save("race/chains/DS5.seed1", chain)
    ours = {**_run(None, 50.0), "dataset": "DS5", "splits": {"0,1": 0.45}, "agreement": {"splits": splits}}
    save("topologies/DS5.seed0", ours)
    return tmp_path


def test_the_race_says_who_is_lower_at_which_budget(results):
    section = race_section.section(results)
    rows = {row[1]: row for row in section.parts[0].rows}
    assert rows["10"][-1] == "-"  # ours has nothing so early
    assert rows["30"][2] == "0.600"
    assert rows["30"][-1] == "ours"
    assert rows["900"][2:] == ["0.020", "0.030", "0.030", "0.030", "29", "MrBayes"]
    assert any("below MrBayes' on DS1 at 30" in paragraph for paragraph in section.text)
    stones = section.parts[2].rows
    assert stones[0][1:3] == ["-7.00 (0.71)", "10"]


def test_clades_stand_beside_tables_and_chains(results):
    section = topologies_section.section(results)
    assert "in 0 of 1 runs; not in DS5 seed 0" in section.text[0]
    (row,) = section.parts[-1].rows
    assert row[3:5] == ["0.040 / 0.0040", "0.050 / 0.0500"]


def test_without_results_there_is_no_section(tmp_path):
    assert race_section.section(tmp_path) is None
    assert topologies_section.section(tmp_path) is None
