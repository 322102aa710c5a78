"""The table of targets says met, missed or not measured as the result files have it."""

import json

import pytest
from sections import targets


@pytest.fixture
def put(tmp_path):
    """Function that writes a result file."""

    def write(name, content):
        path = tmp_path / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))

    return write


def states(results):
    section = targets.section(results)
    return {row[0]: (row[2], row[3]) for row in section.parts[0].rows}


def run(std=0.04, mean=-7108.42, k=0.5, training=1.0, wall=10.0, **more):
    return {
        "wall_seconds": wall,
        "result": {
            "marginal_log_likelihood": {"mean": mean, "std": std},
            "lower_bound_1": -7109.0,
            "pareto_k": k,
            "seconds": {"support": 0.5, "training": training, "evaluation": 1.0},
        },
        **more,
    }


def corrected(value, budget, wall, **more):
    return run(wall=wall, budget=budget, agreement={"total_variation": {"corrected": value}}, **more)


def test_nothing_measured_gives_no_section(tmp_path):
    assert targets.section(tmp_path) is None
    assert targets.headline(tmp_path) is None


def test_every_target_is_listed_whatever_was_measured(tmp_path, put):
    put("datasets/DS1.seed0", run())
    rows = states(tmp_path)
    assert len(rows) == 52
    assert sum(state == "not measured" for _, state in rows.values()) == 50
    assert len(targets.headline(tmp_path).rows) == 2


def test_the_kernel(tmp_path, put):
    times = {"JC float64": 0.7, "JC float32": 0.5, "JC float64, 2 threads": 0.35}
    content = {
        "milliseconds": {name: {"median": value} for name, value in times.items()},
        "limit_milliseconds": {"float64": {"value and gradient": 0.2}},
    }
    put("kernel/DS1", content)
    put("kernel/DS7", content)
    rows = states(tmp_path)
    assert rows["ten DS1 trees, value + gradient, float64"] == ("0.70 ms", "met")
    assert rows["the same, scaled float32"] == ("0.50 ms", "missed")
    assert rows["the same float64, over its arithmetic limit"] == ("3.5 times", "missed")
    assert rows["two threads against one, DS7"] == ("2.00 times", "met")


def test_iterations_are_compared_with_one_component(tmp_path, put):
    times = {"a2a.A1.S1": [0.9, 1.0], "s2a.A50.S1": [1.8, 1.9], "s2s.A200.S1": [1.0, 1.12]}
    configurations = [
        {"name": f"{name}.float64.t1", "milliseconds": {"median": passes[0], "medians_of_passes": passes}}
        for name, passes in times.items()
    ]
    put("iteration/DS1", {"dataset": "DS1", "configurations": configurations})
    rows = states(tmp_path)
    assert rows["iteration, DS1, A=S=1, K=10"] == ("0.90 ms", "met")
    assert rows["iteration, DS1, S2A, S=1: A=50 against A=1"] == ("1.95 times", "met")
    assert rows["iteration, DS1, S2S, S=1: A=200 against A=1"] == ("1.12 times", "missed")
    assert rows["iteration, DS1, S2A, S=1: A=200 against A=1"] == ("-", "not measured")


def test_settings_count_if_all_their_seeds_are_good(tmp_path, put):
    name = "DS1, support given: ML within 0.05 nat"
    put("fast-3s/DS1.seed0", run(training=1.0))
    put("fast-3s/DS1.seed1", run(training=1.2))
    put("datasets/DS1.seed0", run(training=30.0))
    assert states(tmp_path)[name] == ("2.7 s", "met")
    put("fast-3s/DS1.seed1", run(training=1.2, mean=-7108.6))
    assert states(tmp_path)[name] == ("31.5 s", "missed")


def test_total_variation_is_the_worst_of_the_largest_budget_that_fits(tmp_path, put):
    put("race/ours/DS1.budget10.seed0", corrected(0.01, 10, 9.0))
    put("race/ours/DS1.budget30.seed0", corrected(0.02, 30, 28.0))
    put("race/ours/DS1.budget30.seed1", corrected(0.04, 30, 29.0))
    put("race/ours/DS1.budget60.seed0", corrected(0.001, 60, 58.0))
    rows = states(tmp_path)
    assert rows["DS1, from the alignment: corrected total variation within 30 s"] == ("0.040", "missed")
    assert rows["DS1, from the alignment: corrected total variation within 120 s"] == ("0.001", "met")


def test_mrbayes_is_looked_up_at_the_same_time(tmp_path, put):
    name = (
        "corrected total variation below MrBayes' at every budget from 30 s, DS1 to DS4, from the alignment"
    )
    points = [{"generations": g, "total_variation": tv} for g, tv in ((1000, 0.5), (2900, 0.3), (6000, 0.1))]
    put("race/chains/DS2.seed1", {"convergence": points})
    put("race/speed/DS2", {"best": {"startup_seconds": 1.0, "generations_per_second": 100.0}})
    put("race/ours/DS2.budget10.seed0", corrected(0.9, 10, 10.0))  # budgets below 30 s do not count
    put("race/ours/DS2.budget30.seed0", corrected(0.2, 30, 30.0))  # MrBayes: 2,900 generations
    assert states(tmp_path)[name] == ("in 1 of 1 runs", "met")
    put("race/ours/DS2.budget60.seed0", corrected(0.2, 60, 61.0))
    assert states(tmp_path)[name] == ("in 1 of 2 runs", "missed")


def test_hard_data_need_three_seeds(tmp_path, put):
    name = "DS5: std of ML with k-hat < 0.7 within 60 s, 3 seeds"
    for seed, (std, k) in enumerate(((0.1, 0.5), (0.14, 0.6))):
        put(f"minute/DS5.seed{seed}", run(std=std, k=k, wall=50.0))
    put("datasets/DS1.seed0", run())
    assert states(tmp_path)[name] == ("-", "not measured")
    put("minute/DS5.seed2", run(std=0.12, k=0.65, wall=55.0))
    assert states(tmp_path)[name] == ("0.140, k-hat 0.65, 55 s", "met")
    put("minute/DS5.seed2", run(std=0.12, k=None, wall=55.0))
    assert states(tmp_path)[name] == ("0.140, k-hat inf, 55 s", "missed")


def test_clade_probabilities_are_those_of_the_longest_run(tmp_path, put):
    for wall, maximum in ((50.0, 0.02), (90.0, 0.04)):
        agreement = {"splits": {"maximum": maximum, "mean": 0.003}}
        put(f"race/ours/DS8.budget{wall:g}.seed0", run(wall=wall, agreement=agreement, budget=wall))
    measured = states(tmp_path)["DS8: clade probabilities against MrBayes, max and mean difference"]
    assert measured == ("0.040 and 0.0030 in 90 s", "missed")


def test_growth_is_linear_up_to_a_tenth(tmp_path, put):
    growth = {f"{kind} float64": {"fit": {"exponent": e}} for kind, e in (("taxa", 1.04), ("patterns", 1.2))}
    put("kernel/growth", {"growth": growth})
    rows = states(tmp_path)
    name = "cost of value + gradient, float64: growth with {}, exponent of a power law"
    assert rows[name.format("taxa")] == ("1.04", "met")
    assert rows[name.format("patterns")] == ("1.20", "missed")


def test_many_taxa_need_little_memory_and_a_settled_bound(tmp_path, put):
    put("large/taxa0250", {"peak_memory_gib": 1.5, "rise_at_the_end": 0.2})
    put("large/taxa1000", {"peak_memory_gib": 3.0, "rise_at_the_end": -2.5})
    rows = states(tmp_path)
    name = "{} taxa, 2,000 sites, simulated: memory, and change of the bound at the end"
    assert rows[name.format(250)] == ("1.50 GiB and 0.20 nat", "met")
    assert rows[name.format(1000)] == ("3.00 GiB and -2.50 nat", "missed")


def test_the_text_counts_what_the_table_says(tmp_path, put):
    put("fast/DS1.seed0", run(training=50.0))
    section = targets.section(tmp_path)
    assert section.text[0] == "0 of 52 targets are met, 2 are missed and 50 are not measured."
    assert section.text[1].startswith(
        "Missed: DS1, support given: ML within 0.05 nat (51.5 s; asked <= 3.0 s);"
    )
    assert section.sources == ["fast/DS1.seed0.json"]


def test_misvae(tmp_path, put):
    def timed(estimator, components, milliseconds):
        times = {"milliseconds": milliseconds, "seconds_per_epoch": milliseconds[0] / 2}
        return {"decoder": "independent", "estimator": estimator, "components": components, **times}

    runs = [
        timed("s2a", 1, [100.0, 110.0]),
        timed("s2a", 100, [120.0, 132.0]),
        timed("s2s", 100, [109.0, 119.9]),
    ]
    put("misvae", {"measured": [{"threads": 2, "runs": runs}]})
    put(
        "misvae_training/independent",
        {
            "decoder": "independent",
            "training": {"epochs": 50},
            "evaluation": {"negative_log_likelihood": {"mean": 84.6, "standard_error": 0.2}},
        },
    )
    rows = states(tmp_path)
    assert rows["MISVAE, default model, MNIST: an epoch, two threads"] == ("50 s", "met")
    assert rows["MISVAE, S2A, S=1: an epoch of A=100 against A=1"] == ("1.20 times", "met")
    assert rows["MISVAE, S2S, S=1: an epoch of A=100 against A=1"] == ("1.09 times", "missed")
    name = "MISVAE, {} pixels: NLL of MNIST's test images after an hour of training at most"
    assert rows[name.format("independent")] == ("84.60 nats, 42 min", "met")
    assert rows[name.format("autoregressive")] == ("-", "not measured")


def test_kernels_of_models_are_the_worst_of_the_data_sets(tmp_path, put):
    for dataset, ratio in (("DS1", 2.1), ("DS7", 2.3)):
        ratios = {"GTR+F": {"float64": 2.0, "float32": ratio}, "GTR+F+G4": {"float64": 7.0, "float32": 8.0}}
        put(f"model_kernel/{dataset}", {"times_jc": ratios})
    rows = states(tmp_path)
    name = "{}, ten trees, value + all gradients over JC's, float64 and float32"
    assert rows[name.format("GTR+F")] == ("2.00 and 2.30 times", "missed")
    assert rows[name.format("GTR+F+G4")] == ("7.00 and 8.00 times", "met")


def test_estimated_models_need_three_seeds(tmp_path, put):
    def model_run(wall, clades, lengths, kappa):
        return {
            "wall_seconds": wall,
            "splits": {"largest_difference": clades},
            "lengths": {"largest_difference_in_sds": lengths},
            "parameters": {"kappa": {"difference_in_sds": kappa}, "LnL": {"difference_in_sds": 3.0}},
        }

    put("datasets/DS1.seed0", run())
    put("models/primates.GTR+F+G4.seed0", model_run(50.0, 0.01, 0.05, -0.2))
    put("models/primates.GTR+F+G4.seed1", model_run(55.0, 0.02, 0.08, 0.05))
    name = "primates, GTR+F+G4: {}"
    assert states(tmp_path)[name.format("from the prompt to the report")] == ("-", "not measured")
    put("models/primates.GTR+F+G4.seed2", model_run(61.0, 0.0, 0.0, 0.0))
    put("models/primates.GTR+F+G4.mrbayes", {"asdsf": 0.001})
    rows = states(tmp_path)
    assert rows[name.format("from the prompt to the report")] == ("61 s", "missed")
    assert rows[name.format("clades, largest difference from MrBayes")] == ("0.020", "met")
    assert rows[name.format("branch lengths, largest difference from MrBayes")] == ("0.08 sd", "met")
    assert rows[name.format("parameters, largest difference from MrBayes")] == ("0.20 sd", "missed")


def test_false_stops_are_counted_among_analyses_without_a_budget(tmp_path, put):
    for seed, (converged, maximum, budget) in enumerate(
        ((True, 0.02, None), (True, 0.06, None), (False, 0.3, None), (True, 0.3, "30s"))
    ):
        content = {"result": {"converged": converged}, "splits": {"maximum": maximum}, "budget": budget}
        put(f"stopping/DS1.seed{seed}", content)
    name = "verdicts of yes with a clade more than 0.05 from the reference, DS1 to DS8"
    assert states(tmp_path)[name] == ("1 of 2, in 3 analyses", "missed")


def test_a_route_counts_with_all_four_data_sets(tmp_path, put):
    put("datasets/DS1.seed0", run())
    for number, share in enumerate((0.999, 0.995, 1.0), start=1):
        one = {"dataset": f"DS{number}", "route": "iqtree", "is_spoilt": False, "coverage": share}
        put(f"support_routes/DS{number}.iqtree", one)
    put("support_routes/DS1.iqtree.spoilt", {**one, "is_spoilt": True, "coverage": 0.4})
    name = "golden posteriors of DS1 to DS4 in the support, route iqtree"
    assert states(tmp_path)[name] == ("-", "not measured")
    put("support_routes/DS4.iqtree", {**one, "dataset": "DS4", "coverage": 0.9})
    assert states(tmp_path)[name] == ("90.00%", "missed")
    put("support_routes/DS4.iqtree", {**one, "dataset": "DS4", "coverage": 0.992})
    assert states(tmp_path)[name] == ("99.20%", "met")
