"""The command line in this process: options, messages, exit codes and output of the quick commands."""

import json
from pathlib import Path

import numpy as np
import pytest
import tomli_w

from vbpi_mix import cli
from vbpi_mix._cli_config import (
    OPTION_FIELDS,
    RECIPES,
    continued_config,
    parse_duration,
    read_config,
    resolve_config,
    settings_of_options,
)
from vbpi_mix._cli_settings import read_command, write_config
from vbpi_mix.errors import ConfigurationError
from vbpi_mix.training.config import ENOUGH_ESS, FIRST_ROUND, RunConfig

FOUR_TAXA = ">A\nACGTACGTAA\n>B\nACGTACGTCA\n>C\nACGAACGTGA\n>D\nACGAACTTTA\n"
TREE = "(A:0.1,B:0.2,(C:0.15,D:0.05):0.02);"


@pytest.fixture
def alignment(tmp_path):
    path = tmp_path / "four.fasta"
    path.write_text(FOUR_TAXA)
    return path


def test_every_option_of_a_run_has_a_place_in_the_configuration():
    fields = RunConfig.model_fields
    for option, path in OPTION_FIELDS.items():
        model = RunConfig
        for section in path[:-1]:
            model = model.model_fields[section].annotation
        assert path[-1] in model.model_fields, option
    assert "seed" in fields


def test_help_states_the_configurations_defaults(command):
    _, out, _ = command("run", "--help")
    text = " ".join(out.split())
    config = RunConfig.model_validate({"data": {"dataset": "DS1"}})
    defaults = {
        "--components": config.mixture.components,
        "--estimator": config.mixture.estimator.value,
        "--particles": config.mixture.particles,
        "--iterations": f"rounds of {FIRST_ROUND}, {2 * FIRST_ROUND}, ...; "
        f"{config.optimisation.iterations} of a single run",
        "--branch-model": config.mixture.branch_model.value,
        "--branch-density": config.mixture.branch_density.value,
        "--topology-rate": config.optimisation.topology_rate,
        "--branch-rate": config.optimisation.branch_rate,
        "--runs": config.runs.number,
        "--max-rounds": config.runs.max_rounds,
        "--seed": config.seed,
        "--engine": config.machine.engine,
        "--device": config.machine.device,
        "--threads": "all available cores",
        "--dtype": config.machine.dtype,
        "--repeats": f"{config.evaluation.repeats}, or as few as do for several runs",
        "--samples": config.evaluation.samples,
        "--refit": "refit" if config.evaluation.refit else "no-refit",
        "--posterior-samples": config.evaluation.posterior_samples,
        "--checkpoint-seconds": f"{config.machine.checkpoint_seconds:g}",
        "--log-every": config.machine.log_every,
    }
    for option, value in defaults.items():
        described = text[text.index(f"{option} ") :]
        assert f"[default: {value}]" == described[described.index("[default:") : described.index("]") + 1], (
            option
        )


def test_choices_are_those_of_the_configuration():
    from vbpi_mix.branches.network import BranchDensity, BranchFeatures
    from vbpi_mix.objectives.estimators import Estimator

    assert [e.value for e in cli.EstimatorName] == [e.value for e in Estimator]
    assert [e.value for e in cli.BranchModelName] == [e.value for e in BranchFeatures]
    assert [e.value for e in cli.BranchDensityName] == [e.value for e in BranchDensity]
    assert [e.value for e in cli.RecipeName] == list(RECIPES)


@pytest.mark.parametrize("name", ["run", "loglik", "evaluate", "compare", "report", "sample", "datasets"])
def test_every_command_has_help(command, name):
    code, out, _ = command(name, "--help")
    assert code == 0
    assert out.startswith("Usage: ")
    assert f" {name} [OPTIONS]" in out.splitlines()[0]


def test_version(command):
    from vbpi_mix import __version__

    assert command("--version")[:2] == (0, f"vbpi-mix {__version__}\n")


def test_datasets_as_table_and_as_json(command):
    code, out, _ = command("datasets")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["name", *(f"DS{i}" for i in range(1, 9))]
    content = json.loads(command("datasets", "--json")[1])
    assert (content[0]["name"], content[0]["num_taxa"], content[0]["num_sites"]) == ("DS1", 27, 1949)


def jc_log_likelihood_of_pair(differences, sites, length):
    """Closed form for two sequences under Jukes-Cantor."""
    same = 0.25 + 0.75 * np.exp(-4 * length / 3)
    other = 0.25 - 0.25 * np.exp(-4 * length / 3)
    return (sites - differences) * np.log(same / 4) + differences * np.log(other / 4)


def test_log_likelihood_in_closed_form(command, tmp_path):
    # C and D hold no data, so only the path of length 0.3 between A and B counts: 2 of 8 sites differ.
    path = tmp_path / "pair.fasta"
    path.write_text(">A\nACGTACGT\n>B\nACCTACGA\n>C\nNNNNNNNN\n>D\n--------\n")
    code, out, _ = command("loglik", path, TREE, "--json")
    assert code == 0
    assert json.loads(out) == {
        "log_likelihood": pytest.approx(jc_log_likelihood_of_pair(2, 8, 0.3), rel=1e-12)
    }


def test_gradient_by_finite_differences(command, alignment):
    code, out, _ = command("loglik", alignment, TREE, "--gradient", "--json")
    assert code == 0
    result = json.loads(out)
    assert len(result["gradient"]) == 5
    for derivative, branch in zip(result["gradient"], result["branches"], strict=True):
        values = []
        for step in (1e-5, -1e-5):
            moved = TREE.replace(f":{branch['length']:g}", f":{branch['length'] + step:.10f}", 1)
            values.append(json.loads(command("loglik", alignment, moved, "--json")[1])["log_likelihood"])
        # central differences: error of the order of step^2 times the third derivative, here 1e-10 * 1e4
        assert derivative == pytest.approx((values[0] - values[1]) / 2e-5, abs=1e-4)
    assert {frozenset(branch["taxa"]) for branch in result["branches"]} == {
        frozenset(group) for group in ("A", "B", "C", "D", "AB")
    }


def test_log_likelihood_of_a_tree_file_and_as_text(command, alignment, tmp_path):
    (tmp_path / "tree.nwk").write_text(TREE)
    from_file = command("loglik", alignment, tmp_path / "tree.nwk")
    assert from_file == command("loglik", alignment, TREE)
    assert float(from_file[1]) == pytest.approx(
        json.loads(command("loglik", alignment, TREE, "--json")[1])["log_likelihood"], abs=1e-6
    )
    lines = command("loglik", alignment, TREE, "--gradient")[1].splitlines()
    assert lines[1].split("\t") == ["derivative", "length", "taxa"]
    assert len(lines) == 7


def test_a_dataset_can_be_named_in_place_of_an_alignment(command):
    from vbpi_mix.datasets import dataset_info
    from vbpi_mix.trees.newick import newick_texts, quoted
    from vbpi_mix.trees.samples import read_tree_sample

    sample = read_tree_sample(dataset_info("DS1").support_path)
    lengths = np.full((1, 51), 0.05)
    text = next(iter(newick_texts(sample.children[:1], lengths, [quoted(name) for name in sample.taxa])))
    code, out, _ = command("loglik", "ds1", text)
    assert code == 0
    assert -11_000 < float(out) < -7_000  # the posterior lies near -7,100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["loglik", "missing.fasta", TREE], "no such file, and no bundled data set (DS1, DS2,"),
        (["loglik", "ALIGNMENT", "(A,B,(C,D));"], "expected a length on every branch"),
        (["loglik", "ALIGNMENT", "(A:1,B:1,(C:1,X:1):1);"], "X"),
        (["loglik", "ALIGNMENT", "missing.nwk"], "missing.nwk"),
        (
            ["loglik", "ALIGNMENT", "(A:1,B:1,(C:1,D:-1):1);"],
            "expected branch lengths of 0 or more, got -1 above D",
        ),
        (["loglik", "ALIGNMENT", "(A:0,B:0,(C:0,D:0):0);"], "the likelihood of this tree is zero"),
        (["loglik", "ALIGNMENT", "FOLDER"], "a directory"),
        (["evaluate", "missing"], "expected the directory of a run, but there is none"),
        (["compare", "missing", "--reference", "x"], "expected the directory of a run, but there is none"),
        (["sample", "missing"], "expected the directory of a run, but there is none"),
        (
            ["run", "--out", "OUT"],
            "expected an alignment file, or a bundled data set with --dataset, got neither",
        ),
        (["run", "ALIGNMENT", "--dataset", "DS1", "--out", "OUT"], "either an alignment file or a data set"),
        (["run", "--dataset", "DS9", "--out", "OUT"], "one of DS1, DS2"),
        (
            ["run", "--dataset", "DS1", "--components", "0", "--out", "OUT"],
            "--components: input should be greater",
        ),
        (["run", "--dataset", "DS1", "--sampled", "2", "--out", "OUT"], "--components"),
        (["run", "--dataset", "DS1", "--device", "cuda", "--out", "OUT"], "use the engine torch"),
        (
            [
                "run",
                "ALIGNMENT",
                "--support",
                "TREES",
                "--engine",
                "torch",
                "--device",
                "abacus",
                "--model",
                "JC",
                "--out",
                "OUT",
            ],
            "abacus",
        ),
        (["run", "ALIGNMENT", "--engine", "torch", "--out", "OUT"], "torch engine takes no model with param"),
        (["run", "ALIGNMENT", "--model", "WAG", "--out", "OUT"], "--model: Model 'WAG': expected one of JC"),
        (["loglik", "ALIGNMENT", TREE, "--model", "HKY+G4"], "parameters to estimate (kappa, alpha)"),
        (["run", "--dataset", "DS1", "--threads", "0", "--out", "OUT"], "--threads"),
        (["run", "--resume", "--out", "OUT"], "expected the directory of a run, but there is none"),
        (["run", "ALIGNMENT", "--support", "missing.trees", "--out", "OUT"], "missing.trees"),
        (
            ["run", "--config", "missing.toml", "--out", "OUT"],
            "missing.toml: expected a configuration in TOML",
        ),
    ],
)
def test_user_errors_are_one_message_and_exit_code_2(command, alignment, tmp_path, arguments, message):
    places = {
        "ALIGNMENT": alignment,
        "OUT": tmp_path / "out",
        "FOLDER": tmp_path,
        "TREES": tmp_path / "trees",
    }
    places["TREES"].write_text("(A,B,(C,D));")
    code, out, err = command(*(places.get(argument, argument) for argument in arguments))
    assert code == 2
    assert out == ""
    last = err.splitlines()[-1]
    assert last.startswith("Error: ")
    assert message in last
    assert "Traceback" not in err
    assert not (tmp_path / "out" / "config.toml").exists()


def test_an_unknown_option_is_a_user_error_too(command):
    code, _, err = command("run", "--compnents", "3")
    assert code == 2
    assert "--compnents" in err


def test_without_iqtree_the_fallback_says_how_to_install_it(command, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("vbpi_mix.training.support_routes.has_piqtree", lambda: False)
    monkeypatch.setattr("vbpi_mix.training.joining_trees.NUM_REPLICATES", 3)
    alignment = tmp_path / "seven.fasta"
    alignment.write_text("".join(f">{name}\nACGT\n" for name in "ABCDEFG"))
    settings = ["--runs", "1", "--iterations", "5", "--repeats", "2", "--json"]
    code, printed, err = command("run", alignment, "--out", tmp_path / "out", *settings)
    assert code == 0, err
    assert "support by route neighbour-joining" in err
    source = json.loads(printed)["provenance"]["support"]
    for text in (err, source):
        assert "a fallback, since IQ-TREE was not found: install IQ-TREE" in text
        assert "--support" in text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("10m", 600), ("1.5h", 5400), ("1h30m", 5400), ("2m5s", 125)],
)
def test_durations_of_a_budget(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "ten minutes", "-5m", "0s", "5m1h", "1d"])
def test_other_durations_are_refused(text):
    with pytest.raises(ConfigurationError, match="--budget: expected a time such as 90s, 10m or 1h30m"):
        parse_duration(text)


def test_a_number_of_iterations_is_one_round(tmp_path):
    def rounds(options, recipe=None, file=None):
        return resolve_config(settings_of_options(options), recipe, file).runs.max_rounds

    assert rounds({"dataset": "DS1"}) == 4
    assert rounds({"dataset": "DS1", "iterations": 100}) == 1
    assert rounds({"dataset": "DS1", "iterations": 100, "max_rounds": 2}) == 2
    assert rounds({"dataset": "DS1"}, "published") == 1
    # a run's own file has both, so that it can be repeated
    file = tmp_path / "config.toml"
    write_config(file, resolve_config(settings_of_options({"dataset": "DS1"})), ["vbpi-mix", "run"])
    assert rounds({}, None, file) == 4
    assert rounds({"iterations": 100}, None, file) == 1


def test_several_runs_stop_by_themselves_where_no_number_is_asked_for(tmp_path):
    def resolved(file=None, **options):
        config = resolve_config(settings_of_options({"dataset": "DS1", **options}), file=file)
        return config.optimisation.iterations, config.evaluation.enough_ess

    assert resolved() == (FIRST_ROUND, ENOUGH_ESS)
    assert resolved(runs=1) == (15_000, None)
    assert resolved(runs=3, iterations=100) == (100, ENOUGH_ESS)
    assert resolved(repeats=50) == (FIRST_ROUND, None)
    file = tmp_path / "config.toml"
    for options in ({}, {"repeats": 50}, {"runs": 1}):
        config = resolve_config(settings_of_options({"dataset": "DS1", **options}))
        write_config(file, config, ["vbpi-mix", "run"])
        assert resolve_config({}, file=file) == config


def test_layers_of_configuration(tmp_path):
    file = tmp_path / "config.toml"
    file.write_text(
        tomli_w.dumps({"data": {"dataset": "DS2"}, "optimisation": {"iterations": 7, "topology_rate": 0.5}})
    )
    settings = settings_of_options({"iterations": 9, "components": 3, "seed": None})
    config = resolve_config(settings, "published", file)
    assert config.data.dataset == "DS2"  # file
    assert config.optimisation.iterations == 9  # option over file
    assert config.optimisation.topology_rate == 0.5  # file over recipe
    assert config.optimisation.branch_rate == 0.001  # recipe over default
    assert config.mixture.components == 3
    assert config.seed == 0


def test_the_published_recipe_overrides_the_defaults_and_options_override_it():
    config = resolve_config(settings_of_options({"dataset": "DS1", "particles": 5}), "published")
    assert config.optimisation.iterations == 400_000
    assert config.optimisation.annealing.steps == 100_000
    assert config.mixture.particles == 5


def test_components_of_a_stored_configuration_can_be_changed(tmp_path):
    file = tmp_path / "config.toml"
    write_config(file, resolve_config(settings_of_options({"dataset": "DS1"})), ["vbpi-mix", "run"])
    config = resolve_config(settings_of_options({"components": 3}), file=file)
    assert (config.mixture.components, config.mixture.num_sampled) == (3, 3)


def test_data_of_an_option_replace_data_of_the_other_kind(tmp_path):
    file = tmp_path / "config.toml"
    file.write_text('[data]\nalignment = "/a.fasta"\nsupport = "/a.trees"\nbranch_prior_rate = 5.0\n')
    data = resolve_config(settings_of_options({"dataset": "DS2"}), file=file).data
    assert (data.alignment, data.dataset, data.support, data.branch_prior_rate) == (None, "DS2", None, 5.0)
    other = resolve_config(settings_of_options({"alignment": Path("/b.fasta")}), file=file).data
    assert (other.alignment, other.support) == (Path("/b.fasta"), Path("/a.trees"))


def test_a_configuration_keeps_its_command(tmp_path):
    file = tmp_path / "config.toml"
    config, command = (
        resolve_config(settings_of_options({"dataset": "DS1"})),
        ["vbpi-mix", "run", "a file's name", "--out", "x"],
    )
    write_config(file, config, command)
    assert read_command(file) == command
    assert read_config(file) == config
    write_config(file, config, ["vbpi-mix", "run", "two\nlines"])
    assert read_config(file) == config
    file.write_text('[data]\ndataset = "DS1"\n')
    assert read_command(file) == []


def test_a_continued_run_may_change_what_cannot_change_its_results():
    config = resolve_config(settings_of_options({"dataset": "DS1", "components": 2, "estimator": "s2a"}))
    given = settings_of_options({"threads": 3, "checkpoint_seconds": 1.0, "sampled": 1, "dataset": "DS1"})
    machine = continued_config(config, given).machine
    assert (machine.threads, machine.checkpoint_seconds) == (3, 1.0)
    assert continued_config(config, given).mixture == config.mixture
    with pytest.raises(ConfigurationError, match="--sampled: this run was started with 1, not 2"):
        continued_config(config, settings_of_options({"sampled": 2}))
    assert continued_config(config, settings_of_options({"model": "jc69"})).data.model == "JC"
    with pytest.raises(ConfigurationError, match=r"--model: this run was started with JC, not HKY\+F"):
        continued_config(config, settings_of_options({"model": "hky"}))
    with pytest.raises(ConfigurationError, match="--support: this run was started with its default, not /x"):
        continued_config(config, settings_of_options({"support": Path("/x")}))
    torch = resolve_config(settings_of_options({"dataset": "DS1", "engine": "torch"}))
    with pytest.raises(ConfigurationError, match="--threads"):  # torch rounds otherwise
        continued_config(torch, settings_of_options({"threads": torch.machine.threads + 1}))


def test_choices_may_be_written_in_any_case(command, alignment):
    assert command("loglik", alignment, TREE, "--model", "jc")[0] == 0
    # the next thing that is wrong is named
    code, _, err = command("run", "--estimator", "S2A", "--branch-model", "PSP", "--out", "x")
    assert code == 2
    assert "expected an alignment file" in err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("runs = 3\n[optimisation]\niterations = 5\n", "runs: "),
        ("data = 3\n", "data: "),
        ("seed = " + "[" * 5000, "expected a configuration in TOML"),
        ("seed = 1e999\n", "seed: "),
        ("[optimisation]\nbranch_rate = inf\n", "--branch-rate: input should be a finite number"),
    ],
)
def test_settings_of_another_kind_are_refused(tmp_path, content, message):
    file = tmp_path / "config.toml"
    file.write_text(content)
    settings = {} if content.startswith("data") else {"data": {"dataset": "DS1"}}
    with pytest.raises(ConfigurationError, match=r"config\.toml: ") as error:
        resolve_config(settings, file=file)
    assert message in str(error.value)


def test_too_little_memory_is_one_message(command, alignment, monkeypatch):
    def need_much(*arguments):
        raise MemoryError("Unable to allocate 9 EiB")

    monkeypatch.setattr("vbpi_mix._cli_commands.log_likelihood", need_much)
    code, _, err = command("loglik", alignment, TREE)
    assert code == 2
    assert err.startswith("Error: too little memory: Unable to allocate 9 EiB; take another machine")


def test_unknown_settings_of_a_file_are_refused(tmp_path):
    file = tmp_path / "config.toml"
    file.write_text('[data]\ndataset = "DS1"\n[mixture]\ncomponent = 3\n')
    with pytest.raises(ConfigurationError, match=r"config\.toml: mixture\.component: unknown setting"):
        read_config(file)
