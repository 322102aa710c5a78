"""What a page tells, part by part, against cases worked by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest

from vbpi_mix.alignment import Alignment
from vbpi_mix.errors import RunDirectoryError
from vbpi_mix.likelihood.model_names import parse_model
from vbpi_mix.patterns import compress
from vbpi_mix.report.clades import smaller_side
from vbpi_mix.report.data_summary import summarise_data
from vbpi_mix.report.methods import _prior_sentence, methods, model_words, prior_rows
from vbpi_mix.report.references import compare_with
from vbpi_mix.report.run_files import read_splits, read_traces
from vbpi_mix.report.specialities import specialities
from vbpi_mix.report.words import diagnostics_of, duration, fixed, percent, significant, size, verdict_of
from vbpi_mix.results.posterior_files import load_final
from vbpi_mix.sbn.network import SubsplitNetworks
from vbpi_mix.training.checkpoint import Checkpoint
from vbpi_mix.training.config import DataConfig, MixtureConfig, RunConfig
from vbpi_mix.trees.newick import newick_texts, parse_newick, quoted
from vbpi_mix.trees.splits import index_splits
from vbpi_mix.trees.summaries import split_table
from vbpi_mix.trees.topology import unique_topologies

A, C, G, T, R, MISSING = 1, 2, 4, 8, 5, 15


def test_the_data_are_counted():
    states = np.array(
        [
            [A, A, A, C, MISSING, A],
            [A, A, C, C, MISSING, R],
            [A, C, C, G, MISSING, A],
            [A, C, C, G, MISSING, G],
            [A, C, C, G, MISSING, G],
            [MISSING] * 6,
        ],
        np.uint8,
    )
    data = summarise_data(compress(Alignment(tuple("abcdef"), states, "by hand")))
    assert (data.num_taxa, data.num_sites) == (6, 6)
    assert data.num_variable == 4  # columns 2, 3, 4, 6
    assert data.num_informative == 3  # columns 2, 4, 6
    assert data.missing == pytest.approx(11 / 36)
    assert data.ambiguous == pytest.approx(1 / 36)
    assert data.frequencies == pytest.approx((10 / 24, 9 / 24, 5 / 24, 0))
    assert data.identical == (("d", "e"),)
    assert data.gappy == (("f", 1.0),)


@pytest.mark.parametrize(
    ("value", "text"), [(-7108.388, "−7,108.388"), (0.0, "0.000"), (None, "–"), (float("nan"), "–")]
)
def test_numbers_are_written(value, text):
    assert fixed(value) == text


def test_other_numbers_are_written():
    assert [significant(v) for v in (0.012345, -12345.6, 0.0, 1e-9, None)] == [
        *("0.0123", "−12,346", "0", "1.00e−09", "–"),
    ]
    assert percent(0.1234) == "12.3%"
    assert [duration(s) for s in (1.25, 120.0, 7200.0)] == ["1.2 s", "2.0 min", "2.0 h"]
    assert [size(n) for n in (12, 12_345, 12_345_678, 12_345_678_901)] == [
        "12 bytes",
        "12 kB",
        "12 MB",
        "12.3 GB",
    ]


@pytest.fixture
def result(nasty_run):
    return json.loads(nasty_run.result.read_text())


@pytest.mark.parametrize(
    ("k", "ess", "kind"),
    [(0.3, 500.0, "good"), (0.7, 500.0, "bad"), (0.3, 99.0, "bad"), (None, 500.0, "good")],
)
def test_without_a_verdict_weights_and_sample_size_decide(result, k, ess, kind):
    verdict = verdict_of({**result, "pareto_k": k, "ess": ess, "criteria": []})
    assert verdict.kind == kind
    assert ("Train longer" in verdict.text) == (kind == "bad")


@pytest.mark.parametrize(
    ("converged", "line", "kind", "text"),
    [
        (True, "converged: yes - flat bound; ASDSF 0.001", "good", "Flat bound; ASDSF 0.001."),
        (False, "converged: no - k-hat 0.9: train longer", "bad", "K-hat 0.9: train longer."),
        (None, "converged: unknown - one run", "unknown", "One run."),
    ],
)
def test_a_recorded_verdict_is_shown(result, converged, line, kind, text):
    judged = {**result, "converged": converged, "verdict": line, "criteria": [{"name": "pareto_k"}]}
    verdict = verdict_of(judged)
    assert (verdict.kind, verdict.text) == (kind, text)
    assert {one.judgement for one in diagnostics_of(judged)} == {
        ""
    }  # the criteria have thresholds of their own


def test_growth_of_the_support_is_told(result):
    rounds = [{"mass_outside": 0.04, "num_topologies": 1200, "num_parameters": 9}]
    growth = {"rounds": rounds, "mass_outside": 0.003, "is_enough": True}
    grown = {**result, "support_growth": growth, "criteria": []}
    (found,) = (one for one in diagnostics_of(grown) if one.name == "Support")
    assert found.value == (
        "estimated posterior mass just outside 0.30%, 4.0% before it grew by 1,200 topologies in 1 round"
    )
    assert found.judgement == "good"


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("/some/DS1.ufboot.tsv.gz", "IQ-TREE (Minh et al. 2020)"),
        ("iqtree2 2.0.7 -B 1000", "IQ-TREE (Minh et al. 2020)"),
        ("built-in neighbour joining, seed 0; a fallback, since IQ-TREE was not found", "joining, seed 0."),
        ("/home/me/mine.trees", "these trees: mine.trees."),
    ],
)
def test_the_paragraph_says_where_the_support_is_from(result, source, told):
    data = summarise_data(compress(Alignment(tuple("abcd"), np.full((4, 3), 1, np.uint8), "x")))
    changed = {**result, "provenance": {**result["provenance"], "support": source}}
    found = methods(changed, RunConfig(data=DataConfig(dataset="DS1")), data)
    assert found.sentences[5].endswith(told + ("" if told.endswith(".") else "."))
    assert ("Minh" in " ".join(found.citations)) == ("Minh" in told)


def test_diagnostics_say_what_tracer_cannot(result):
    told = " ".join(one.help for one in diagnostics_of(result))
    assert "Tracer" in told
    assert "0.7" in told


@pytest.mark.parametrize(
    ("model", "cited"),
    [
        ("JC", ["Jukes & Cantor 1969"]),
        ("K80", ["Kimura 1980"]),
        ("HKY+FO", ["Hasegawa et al. 1985"]),
        ("TN", ["Tamura & Nei 1993"]),
        ("SYM+G4", ["Zharkikh 1994", "Yang 1994"]),
        ("GTR+F+I+G4", ["Tavaré 1986", "Yang 1994", "Gu et al. 1995"]),
        ("F81+I", ["Felsenstein 1981", "Gu et al. 1995"]),
    ],
)
def test_models_are_cited(model, cited):
    words = model_words(parse_model(model))
    assert [name in words for name in cited] == [True] * len(cited)


def test_the_paragraph_cites_what_it_names_and_nothing_else(result):
    data = summarise_data(compress(Alignment(tuple("abcd"), np.full((4, 3), 1, np.uint8), "x")))
    config = RunConfig(data=DataConfig(dataset="DS1"), mixture=MixtureConfig(components=3))
    found = methods(result, config, data)
    text = " ".join(found.sentences)
    assert "mixture of 3 subsplit Bayesian networks" in text
    surnames = {citation.split(" ")[0] for citation in found.citations}
    assert {"Zhang", "Hotti", "Molén", "Jukes", "Larget", "DS1:"} <= surnames
    assert "Yang" not in surnames
    assert f"{result['num_draws']:,} draws" in text
    one = methods(result, config.model_copy(update={"mixture": MixtureConfig()}), data)
    assert "Hotti" not in " ".join(one.citations)


def test_several_runs_are_in_the_paragraph(result):
    data = summarise_data(compress(Alignment(tuple("abcd"), np.full((4, 3), 1, np.uint8), "x")))
    runs = {"runs": [{"seed": 3}, {"seed": 4}], "criteria": [{"name": "asdsf", "value": 0.0042}]}
    text = " ".join(methods({**result, **runs}, RunConfig(data=DataConfig(dataset="DS1")), data).sentences)
    assert "2 independent runs were combined (average standard deviation of split frequencies 0.0042)" in text
    assert "Random seeds 3, 4" in text


def test_priors_are_those_of_the_configuration():
    config = RunConfig(data=DataConfig(dataset="DS1", branch_prior_rate=5.0))
    rows = {row.parameter: row.prior for row in prior_rows(config)}
    assert rows["branch lengths"] == "independent exponential, rate 5 (mean 0.2)"
    assert rows["topology"].startswith("uniform")


@pytest.mark.parametrize(
    ("model", "free", "given"),
    [
        ("GTR+FO+I+G4", 6, []),
        ("HKY{2.5}+F+G4{0.5}", 2, ["1, 2.5, 1, 1, 2.5, 1", "those of the alignment", "0.5"]),
        ("K80+I{0.2}", 3, ["0.2"]),
    ],
)
def test_free_parameters_have_priors_and_others_their_values(model, free, given):
    data = DataConfig.model_construct(dataset="DS1", model=model, branch_prior_rate=10.0)
    config = RunConfig.model_construct(data=data)
    rows = prior_rows(config)
    fixed_values = [row.prior for row in rows if row.prior.startswith("fixed")]
    assert len(rows) - len(fixed_values) == free
    told = _prior_sentence(config)
    assert [words for words in given if f"– {words}" not in told] == []
    assert told.count(" – ") == free + len(given)


def test_splits_that_no_draw_has_are_read_without_lengths(nasty_run, tmp_path):
    header, *rows = nasty_run.splits.read_text(encoding="utf-8").splitlines()
    assert float(rows[0].split("\t")[3]) > 0.5
    path = tmp_path / "splits.tsv"
    for row, probability, is_read in ((-1, "1e-6", True), (-1, "nan", False), (0, "1", False)):
        changed = [line.split("\t") for line in rows]
        changed[row][3:] = [probability, "1e-8", *(len(changed[row]) - 5) * ["nan"]]
        path.write_text(
            "\n".join(["\t".join(line) for line in [[header], *changed]]) + "\n", encoding="utf-8"
        )
        if is_read:
            table = read_splits(path).table
            assert np.isnan(table.lengths.mean[-1])
            assert np.isfinite(table.lengths.mean[:-1]).all()
        else:
            with pytest.raises(RunDirectoryError, match="expected the file as the run wrote it"):
                read_splits(path)


def test_splits_come_back_as_they_were_written(nasty_run):
    splits, final = read_splits(nasty_run.splits), load_final(nasty_run.final_posterior)
    table = split_table(final.topologies, np.exp(final.log_topology_probabilities))
    assert len(table.masks) == len(splits.table.masks)
    of = {mask.tobytes(): p for mask, p in zip(table.masks, table.frequencies, strict=True)}
    found = {mask.tobytes(): p for mask, p in zip(splits.table.masks, splits.table.frequencies, strict=True)}
    assert found == pytest.approx(of, abs=1e-7)  # eight digits are written
    assert splits.table.sizes.tolist() == [bin(int(mask[0])).count("1") for mask in splits.table.masks]


def test_traces_of_both_files_are_joined(nasty_run):
    traces = read_traces(nasty_run)
    assert list(traces)[:3] == ["LnL", "LnPr", "TL"]
    lines = [len(nasty_run.run_parameters(number).read_text().splitlines()) - 2 for number in (1, 2)]
    assert len(traces["TL"]) == sum(lines)


def test_the_smaller_side_is_named():
    assert smaller_side(np.array([True, True, False, False, False])) == (0, 1)
    assert smaller_side(np.array([True, True, True, False, False])) == (3, 4)
    assert smaller_side(np.array([False, False, True, True])) == (0, 1)
    assert smaller_side(np.array([True, False, True, False])) == (0, 2)


def test_specialities_are_what_brute_force_says(nasty_run):
    final = load_final(nasty_run.final_posterior)
    support = Checkpoint.load(nasty_run.checkpoint).state.mixture.support
    networks = SubsplitNetworks.from_logits(support, final.logits)
    q = np.exp(networks.log_probability_of(final.topologies))
    index = index_splits(final.topologies)
    own = np.stack([index.frequencies(column / column.sum()) for column in q.T], axis=1)
    largest = np.abs(own - own.mean(axis=1, keepdims=True)).max(axis=0)
    found = specialities(networks, final)
    assert len(found) == 3
    for a, speciality in enumerate(found):
        differences = [abs(clade.own - clade.mixture) for clade in speciality.clades]
        assert differences == sorted(differences, reverse=True)
        if largest[a] >= 0.005:
            assert differences[0] == pytest.approx(largest[a], rel=1e-6)
        for tree in speciality.topologies:
            assert tree.responsibility > 1 / 3


def test_equal_components_have_no_specialities(nasty_run):
    final = load_final(nasty_run.final_posterior)
    same = replace(final, logits=np.repeat(final.logits[:1], 3, axis=0))
    support = Checkpoint.load(nasty_run.checkpoint).state.mixture.support
    found = specialities(SubsplitNetworks.from_logits(support, same.logits), same)
    assert [one.clades for one in found] == [(), (), ()]


FOUR = ("((a:1,b:1):1,c:1,d:1);", "((a:1,c:1):1,b:1,d:1);", "((a:1,d:1):1,b:1,c:1);")


def write_trees(path, counts):
    path.write_text("\n".join(text for text, count in zip(FOUR, counts, strict=True) for _ in range(count)))
    return path


def test_a_reference_is_compared_by_hand(tmp_path):
    # Run: ab|cd 0.5, ac|bd 0.45, ad|bc 0.05. Reference, of all its trees: 0.75, 0.25, 0.
    children = np.stack([parse_newick(text).children for text in FOUR])
    topologies = unique_topologies(children)[0]
    p = np.array([0.5, 0.45, 0.05])
    first, second = write_trees(tmp_path / "1.t", (6, 2, 0)), write_trees(tmp_path / "2.t", (6, 2, 0))
    found = compare_with(
        [first, second], 0.0, tuple("abcd"), split_table(topologies, p), topologies, np.log(p)
    )
    assert found.to_run.splits.num_splits == 2  # the third is below 0.1 in both
    assert found.to_run.splits.maximum == pytest.approx(0.25)
    assert found.to_run.asdsf == pytest.approx((0.25 + 0.2) / 2 / np.sqrt(2))
    assert found.to_run.total_variation == pytest.approx(0.25)
    assert found.coverage == pytest.approx(1.0)
    assert found.within.asdsf == 0.0
    assert found.within.total_variation == 0.0
    assert found.reference.tolist() == pytest.approx([0.75, 0.25])
    assert found.run.tolist() == pytest.approx([0.5, 0.45])
    assert found.taxa == ((0, 1), (0, 2))


def test_splits_of_the_reference_alone_count(tmp_path):
    children = np.stack([parse_newick(text).children for text in FOUR])
    topologies = unique_topologies(children)[0]
    chain = write_trees(tmp_path / "1.t", (0, 0, 8))
    found = compare_with(
        [chain], None, tuple("abcd"), split_table(topologies[:1]), topologies[:1], np.zeros(1)
    )
    assert found.files[0].burn_in == 0.25
    assert found.files[0].num_trees == 6
    assert found.coverage == 0.0
    assert found.to_run.total_variation == pytest.approx(1.0)
    assert sorted(zip(found.reference.tolist(), found.run.tolist(), strict=True)) == [(0.0, 1.0), (1.0, 0.0)]
    assert found.within is None


def test_names_in_reference_files_may_need_quotes(nasty_run, tmp_path):
    splits, final = read_splits(nasty_run.splits), load_final(nasty_run.final_posterior)
    names = [quoted(name) for name in splits.taxa]
    path = tmp_path / "mine.nwk"
    path.write_text("\n".join(newick_texts(final.topologies[:4], None, names)))
    found = compare_with(
        [path], 0.0, splits.taxa, splits.table, final.topologies, final.log_topology_probabilities
    )
    assert found.coverage == pytest.approx(1.0)
