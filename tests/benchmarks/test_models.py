"""The comparison of estimated models with MrBayes: its commands, its files, what stands side by side."""

import json
from pathlib import Path

import _model_chains as chains
import _mrbayes as mrbayes
import models
import numpy as np
import pytest
from _splits import split_names
from sections import models as models_section

from vbpi_mix.alignment import Alignment
from vbpi_mix.likelihood.base import make_likelihood
from vbpi_mix.likelihood.model_names import parse_model
from vbpi_mix.likelihood.model_parameters import empirical_frequencies
from vbpi_mix.likelihood.models import discrete_gamma_rates, gtr
from vbpi_mix.patterns import compress
from vbpi_mix.trees.samples import read_tree_draws
from vbpi_mix.trees.summaries import split_table
from vbpi_mix.trees.topology import random_topologies

EMPIRICAL = np.array([0.4, 0.3, 0.2, 0.1])


@pytest.mark.parametrize(
    ("name", "lset", "prset", "moves"),
    [
        ("JC", "nst=1 rates=equal;", "statefreqpr=fixed(equal)", []),
        ("HKY+FO", "nst=2 rates=equal;", "tratiopr=beta(1.0,1.0) statefreqpr=dirichlet(1,1,1,1)", ["Pi"]),
        ("HKY+F", "nst=2 rates=equal;", "statefreqpr=fixed(0.40000000,0.30000000,0.20000000,0.10000000)", []),
        ("F81+F{0.1,0.2,0.3,0.4}", "nst=1 rates=equal;", "fixed(0.10000000,0.20000000,0.30000000,0.4", []),
        ("GTR+F+G4", "nst=6 rates=gamma ngammacat=4;", "shapepr=exponential(1.0)", ["Revmat"]),
        ("GTR+FO+G4", "nst=6 rates=gamma ngammacat=4;", "dirichlet(1,1,1,1) shapepr", ["Revmat", "Pi"]),
        ("SYM+I+G8", "nst=6 rates=invgamma ngammacat=8;", "pinvarpr=uniform(0.0,1.0)", ["Revmat"]),
        ("K80+I", "nst=2 rates=propinv;", "tratiopr=beta(1.0,1.0) statefreqpr=fixed(equal)", []),
    ],
)
def test_models_in_the_words_of_mrbayes(name, lset, prset, moves):
    first, second, *others = chains.model_commands(parse_model(name), EMPIRICAL)
    assert first == f"lset {lset}"
    assert prset in second
    assert second.endswith("brlenspr=unconstrained:exp(10.0);")
    assert [line.split("(")[1].split(")")[0] for line in others] == moves


@pytest.mark.parametrize("name", ["TN+FO", "HKY{2}+FO", "K80+G4{0.5}", "GTR+F+I{0.1}"])
def test_models_that_mrbayes_does_not_estimate_alike_are_refused(name):
    with pytest.raises(SystemExit, match=name.split("+")[0].split("{")[0]):
        chains.model_commands(parse_model(name), EMPIRICAL)


def test_only_the_rest_of_an_analysis_appends():
    alignment = Alignment(
        tuple("abcd"), np.array([[1, 2, 4], [1, 2, 4], [1, 2, 8], [1, 2, 8]], np.uint8), "x"
    )
    analysis = chains.Analysis("x", "GTR+F+G4", 5_000, 1, 100)
    for is_continued, word in ((False, "append=no"), (True, "append=yes")):
        (line,) = [one for one in chains.commands(analysis, alignment, is_continued) if "mcmc" in one]
        assert word in line
        assert "ngen=5000 samplefreq=100" in line


@pytest.fixture(scope="module")
def ambiguous():
    """An alignment of six taxa with ambiguities and missing data at one end."""
    rng = np.random.default_rng(8)
    states = rng.choice(np.array([1, 2, 4, 8], np.uint8), (6, 80), p=[0.4, 0.3, 0.2, 0.1])
    states[:3, :9] = 15
    states[4, 20:24] = 5  # R
    return Alignment(tuple(f"taxon{i}" for i in range(6)), states, "ambiguous.fasta")


@pytest.mark.mrbayes
def test_fixed_frequencies_give_mrbayes_our_likelihood(ambiguous, tmp_path, require_program, monkeypatch):
    require_program("mb")
    analysis = chains.Analysis("ambiguous", "GTR+F+G4", 200, 1, 100)
    fasta = tmp_path / "ambiguous.fasta"
    symbols = "?ACMGRSVTWYHKDB?"
    fasta.write_text(
        "".join(
            f">{taxon}\n{''.join(symbols[state] for state in row)}\n"
            for taxon, row in zip(ambiguous.taxa, ambiguous.states, strict=True)
        )
    )
    monkeypatch.setattr(chains, "alignment_path", lambda data, work: fasta)
    found = chains.run_chains(analysis, tmp_path)
    assert found["samples_of_runs"] == [3, 3]
    folder = tmp_path / analysis.name
    patterns = compress(ambiguous)
    ours = empirical_frequencies(patterns)

    def start(frequencies):
        draws = read_tree_draws(folder / "chain.run1.t", ambiguous.taxa)
        model = gtr(frequencies, np.ones(6), discrete_gamma_rates(1.0, 4))
        return make_likelihood(patterns, model).value(draws.children[:1], draws.branch_lengths[:1])[0]

    said = chains.read_traces(folder / "chain.run1.p")["LnL"][0]
    assert start(ours) == pytest.approx(said, abs=2e-4)
    # MrBayes' own counts share missing data among the nucleotides: another model, if only slightly.
    text = (folder / "run.nex").read_text()
    given = ",".join(f"{value:.8f}" for value in ours)
    (folder / "run.nex").write_text(text.replace(f"fixed({given})", "fixed(empirical)"))
    mrbayes.run([([mrbayes.program()], folder)])
    bits = np.arange(16)[:, None] >> np.arange(4) & 1
    counts = np.bincount(ambiguous.states.ravel(), minlength=16)[1:]
    shared = counts @ (bits[1:] / bits[1:].sum(1, keepdims=True))
    said = chains.read_traces(folder / "chain.run1.p")["LnL"][0]
    assert start(shared / shared.sum()) == pytest.approx(said, abs=2e-4)
    assert abs(start(ours) - said) > 1e-2


def test_columns_of_traces_have_our_names(tmp_path):
    path = tmp_path / "chain.run1.p"
    rows = "\n".join(f"{i}\t{-i}\t{i / 10}" for i in range(8))
    path.write_text(f"[ID: 1]\nGen\tLnL\talpha{{all}}\n{rows}\n")
    found = chains.read_traces(path)
    assert [*found] == ["Gen", "LnL", "alpha"]
    np.testing.assert_allclose(found["alpha"], np.arange(8) / 10)


def write_chain(folder, run, trees, alphas):
    """Files as MrBayes leaves them, of trees of five taxa."""
    lines = [f"   tree gen.{10 * i} = [&U] {tree};" for i, tree in enumerate(trees)]
    names = ", ".join(f"{i + 1} t{i}" for i in range(5))
    (folder / f"chain.run{run}.t").write_text(
        "\n".join(["#NEXUS", "begin trees;", f"   translate {names};", *lines, "end;", ""])
    )
    rows = [f"{10 * i}\t-5.0\t1.0\t0.5\t{alpha}" for i, alpha in enumerate(alphas)]
    (folder / f"chain.run{run}.p").write_text("\n".join(["[ID: 1]", "Gen\tLnL\tLnPr\tTL\talpha", *rows, ""]))


FIRST = "((1:0.1,2:0.1):{},(3:0.1,4:0.1):0.2,5:0.1)"
SECOND = "((1:0.1,3:0.1):{},(2:0.1,4:0.1):0.2,5:0.1)"


def test_chains_are_summed_up_without_burn_in(tmp_path):
    # Of each run nine samples are asked for, the first two of them burn-in; a tenth is left out.
    burn_in = [SECOND.format(9)] * 2
    write_chain(tmp_path, 1, [*burn_in, *[FIRST.format(0.3)] * 7, burn_in[0]], [9, 9, *[1.0] * 7, 9])
    write_chain(
        tmp_path,
        2,
        [*burn_in, *[FIRST.format(0.5)] * 6, SECOND.format(0.4), burn_in[0]],
        [9, 9, *[2.0] * 7, 9],
    )
    found = chains.summarise(tmp_path, tuple(f"t{i}" for i in range(5)), 9)
    assert found["samples_of_runs"] == [7, 7]
    assert [*found["parameters"]] == ["LnL", "TL", "alpha"]
    alpha = found["parameters"]["alpha"]
    assert (alpha["mean"], alpha["sd"], alpha["means_of_runs"]) == (1.5, 0.5, [1.0, 2.0])
    assert found["splits"]["0,1"] == {"frequency": 13 / 14, "of_runs": [1.0, 6 / 7]}
    assert found["splits"]["0,2"] == {"frequency": 1 / 14, "of_runs": [0.0, 1 / 7]}
    assert found["asdsf"] == pytest.approx(1 / 7 / np.sqrt(2))
    assert found["lengths"]["0,1"]["mean"] == pytest.approx((7 * 0.3 + 6 * 0.5) / 13)
    assert found["lengths"]["0,1"]["means_of_runs"] == pytest.approx([0.3, 0.5])
    assert "0,2" not in found["lengths"]
    assert found["lengths"]["4"]["mean"] == pytest.approx(0.1)
    topologies = found["topologies"]
    assert topologies["distinct"] == 2
    assert topologies["probabilities"]["(((0,1),(2,3)),4)"]["of_runs"] == [1.0, 6 / 7]


def test_names_of_splits_are_the_taxa_without_the_last():
    children = random_topologies(70, 1, np.random.default_rng(2))
    names = split_names(split_table(children))
    assert len(names) == 2 * 70 - 3
    assert {str(taxon) for taxon in range(70)} <= {*names}
    assert all("69" not in name.split(",") for name in names if "," in name)


def posteriors():
    """Ours and MrBayes', as they are compared."""
    of_runs = {"means_of_runs": [1.4, 1.6], "sds_of_runs": [1.0, 2.0]}
    ours = {
        "parameters": {"kappa": {"mean": 2.0, "sd": 0.5, "hpd95": [1.0, 3.0]}},
        "splits": {"0,1": 0.9, "0,2": 0.05},
        "topologies": {"a": 0.7, "b": 0.3},
        "lengths": {
            "0": {"mean": 0.11, "sd": 0.03},
            "0,1": {"mean": 0.3, "sd": 0.06},
            "0,2": {"mean": 5.0, "sd": 0.05},
        },
    }
    theirs = {
        "parameters": {"kappa": {"mean": 1.5, "sd": 1.0, "hpd95": [0.5, 2.5], **of_runs}, "LnL": {}},
        "splits": {
            "0,1": {"frequency": 0.85, "of_runs": [0.84, 0.86]},
            "1,2": {"frequency": 0.09, "of_runs": [0.06, 0.12]},
        },
        "topologies": {"probabilities": {"a": {"probability": 0.75, "of_runs": [0.7, 0.8]}}},
        "lengths": {
            "0": {"frequency": 1.0, "mean": 0.1, "sd": 0.02, "means_of_runs": [0.1, 0.1]},
            "0,1": {"frequency": 0.85, "mean": 0.33, "sd": 0.05, "means_of_runs": [0.32, 0.34]},
            "0,2": {"frequency": 0.2, "mean": 0.1, "sd": 0.05, "means_of_runs": [0.1, 0.1]},
        },
    }
    return ours, theirs


def test_differences_are_in_units_of_mrbayes_deviations():
    found = models.side_by_side(*posteriors())
    kappa = found["parameters"]["kappa"]
    assert kappa["difference_in_sds"] == 0.5
    assert kappa["ratio_of_sds"] == 0.5
    assert kappa["difference_of_mrbayes_runs_in_sds"] == pytest.approx(-0.2)
    assert kappa["ratio_of_sds_of_mrbayes_runs"] == 0.5
    lengths = found["lengths"]
    assert lengths["num_branches"] == 2  # the rare split's is no matter
    assert lengths["largest_difference_in_sds"] == pytest.approx(0.6)
    assert lengths["largest_relative_difference"] == pytest.approx(0.1)
    assert lengths["largest_difference_of_mrbayes_runs_in_sds"] == pytest.approx(0.4)
    assert lengths["ratios_of_sds"] == pytest.approx([1.2, 1.5])


def test_what_one_posterior_lacks_has_probability_zero_there():
    splits = models.side_by_side(*posteriors())["splits"]
    assert splits["largest_difference"] == pytest.approx(0.09)
    assert splits["mean_difference"] == pytest.approx(0.05)  # of the one split from a tenth on
    assert splits["largest_difference_of_mrbayes_runs"] == pytest.approx(0.06)
    assert splits["listed"] == {"0,1": {"ours": 0.9, "mrbayes": 0.85}}
    topologies = models.side_by_side(*posteriors())["topologies"]
    assert topologies["largest_difference"] == pytest.approx(0.3)


def a_run(seed, wall=50.0, converged=True):
    """Content of a result file."""
    result = {
        "converged": converged,
        "pareto_k": 0.4,
        "ess": 5000.0,
        "seconds": {"support": 3.0, "training": 20.0, "evaluation": 5.0},
        "iterations": 9000,
    }
    head = {"alignment": "primates", "model": "GTR+F+G4", "seed": seed, "rounds": 2, "wall_seconds": wall}
    return {**head, "result": result, **models.side_by_side(*posteriors())}


def test_the_section_has_the_worst_of_the_seeds(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "primates.GTR+F+G4.seed0.json").write_text(json.dumps(a_run(0)))
    (folder / "primates.GTR+F+G4.seed1.json").write_text(json.dumps(a_run(1, converged=False)))
    section = models_section.section(tmp_path)
    assert "differ from MrBayes' by 0.090 at most" in section.text[0]
    assert "1 of the runs say" in section.text[0]
    program, agreement, parameters, figure = section.parts
    assert [row[2] for row in program.rows] == ["yes", "no"]
    assert agreement.rows[0][:3] == ["primates GTR+F+G4", "2", "0.0900 (0.0600)"]
    assert parameters.rows[0][:4] == ["primates GTR+F+G4", "kappa", "1.5 (1)", "2 (0.5)"]
    assert figure.name == "models-splits"
    assert models_section.section(tmp_path / "nowhere") is None


def test_runs_need_chains_to_be_compared_with(tmp_path, monkeypatch):
    monkeypatch.setattr(models, "RESULTS", tmp_path)
    with pytest.raises(SystemExit, match=r"models\.py chains primates\.HKY"):
        models.runs(["primates.HKY+FO"], [0], False, [])


def test_what_has_a_result_is_not_made_again(tmp_path, monkeypatch):
    monkeypatch.setattr(models, "RESULTS", tmp_path)
    (tmp_path / "models").mkdir()
    for kind in ("mrbayes", "seed0", "seed2"):
        (tmp_path / "models" / f"primates.HKY+FO.{kind}.json").write_text("{}")
    monkeypatch.setattr(models, "run_chains", lambda *_: pytest.fail("MrBayes was run"))
    monkeypatch.setattr(models, "run_ours", lambda *_: pytest.fail("a run was made"))
    models.chains(["primates.HKY+FO"], tmp_path, False)
    models.runs(["primates.HKY+FO"], [0, 2], False, [])


@pytest.mark.ape
def test_alignments_of_other_programs_are_found(tmp_path, require_ape):
    path = chains.alignment_path("woodmouse", tmp_path)
    assert len(path.read_text().split(">")) == 16
    assert chains.alignment_path("DS1", tmp_path).exists()
    assert chains.alignment_path("primates", tmp_path) == Path("/usr/share/doc/mrbayes/examples/primates.nex")
