import dataclasses
import json
import re
import subprocess

import dendropy
import numpy as np
import pytest

from vbpi_mix.errors import RunDirectoryError
from vbpi_mix.results import correction, posterior_files
from vbpi_mix.results.posterior_summary import credible_sets, halves, sbn_mode
from vbpi_mix.results.run_directory import RunDirectory
from vbpi_mix.training.model_density import ModelDensity
from vbpi_mix.trees.ccd import conditional_clade_distribution
from vbpi_mix.trees.samples import read_tree_draws, read_tree_sample
from vbpi_mix.trees.summaries import split_table
from vbpi_mix.trees.topology import clade_masks


@pytest.fixture(scope="module")
def toy(make_toy):
    return make_toy(concentration=0.02)


@pytest.fixture(scope="module")
def draws(toy):
    draws = toy.draw(20_000, np.random.default_rng(1))
    return dataclasses.replace(draws, traces={"LnL": np.random.default_rng(3).normal(-1000, 5, 20_000)})


@pytest.fixture(scope="module")
def corrected(draws):
    return correction.correct(draws)


@pytest.fixture(scope="module")
def directory(tmp_path_factory, draws, corrected):
    directory = RunDirectory(tmp_path_factory.mktemp("run"))
    posterior_files.write_posterior(directory, draws, corrected, 1000, np.random.default_rng(2))
    return directory


def exact_cherry_probability(toy, first, second):
    """Posterior probability that two taxa are sisters."""
    num_taxa = toy.topologies.shape[1] + 2
    pair = {first, second}
    return sum(
        p
        for topology, p in zip(toy.topologies, toy.posterior, strict=True)
        if any(set(row) == pair for row in topology.tolist())
        # the last leaf's sister hangs from the top node, beside the last leaf
        or (num_taxa - 1 in pair and (pair - {num_taxa - 1}).pop() in topology[-1].tolist())
    )


@pytest.mark.parametrize("number", [1, 2])
def test_resampled_trees_read_back_with_the_frequencies_of_their_half(directory, draws, corrected, number):
    trees = read_tree_draws(directory.run_trees(number), draws.taxa)
    assert len(trees.children) == 500
    half = halves(draws.component)[number - 1]
    weights = np.bincount(draws.topology_index[half], corrected.draw_weights[half], len(draws.topologies))
    drawn = {row.tobytes(): p for row, p in zip(draws.topologies, weights / weights.sum(), strict=True)}
    rows, counts = np.unique(trees.children.reshape(500, -1), axis=0, return_counts=True)
    for row, count in zip(rows, counts, strict=True):
        assert abs(count - 500 * drawn[row.tobytes()]) < 1
    # log b has standard deviation .6 in the posterior, and the draws' weights an effective size above 300
    np.testing.assert_allclose(
        np.log(trees.branch_lengths).mean(axis=0), np.linspace(-3.0, -1.5, 9), atol=4 * 0.6 / np.sqrt(300)
    )


def test_the_halves_are_disjoint_and_of_all_components():
    component = np.tile(np.arange(3), 10)
    one, two = halves(component)
    assert sorted([*one, *two]) == list(range(30))
    assert np.bincount(component[one]).tolist() == np.bincount(component[two]).tolist() == [5, 5, 5]


def test_parameters_are_those_of_the_trees(directory, draws):
    for number in (1, 2):
        lines = directory.run_parameters(number).read_text().splitlines()
        assert lines[0].startswith("[500 trees, importance-resampled")
        assert lines[1].split("\t") == ["Gen", "LnL", "TL"]
        table = np.array([line.split("\t") for line in lines[2:]], float)
        trees = read_tree_draws(directory.run_trees(number), draws.taxa)
        np.testing.assert_array_equal(table[:, 0], np.arange(1, 501))
        np.testing.assert_allclose(table[:, 2], trees.branch_lengths.sum(axis=1), rtol=1e-8)
        tree_lengths = draws.branch_lengths.sum(axis=1)
        nearest = np.abs(table[:, 2, None] - tree_lengths).argmin(axis=1)
        np.testing.assert_allclose(table[:, 1], draws.traces["LnL"][nearest], rtol=1e-9)


def test_the_trees_say_that_they_are_resampled(directory):
    assert (
        "[500 trees, importance-resampled with replacement from 10000 of 20000 weighted draws (half 1 of 2)]"
        in directory.posterior_trees.read_text()
    )


def test_topology_probabilities_read_back(directory, draws, corrected):
    sample = read_tree_sample(directory.topology_probabilities, draws.taxa)
    assert len(sample.children) == len(draws.topologies)
    probabilities = {row.tobytes(): w for row, w in zip(sample.children, sample.weights, strict=True)}
    for row, p in zip(draws.topologies, corrected.topology_probabilities, strict=True):
        assert probabilities[row.tobytes()] == pytest.approx(p, rel=1e-6)


def test_dendropy_reads_all_three(directory, draws):
    trees = dendropy.TreeList.get(path=str(directory.posterior_trees), schema="nexus")
    assert len(trees) == 500
    assert {taxon.label for taxon in trees.taxon_namespace} == set(draws.taxa)
    topologies = dendropy.TreeList.get(
        path=str(directory.topology_probabilities), schema="nexus", store_tree_weights=True
    )
    assert sum(tree.weight for tree in topologies) == pytest.approx(1.0, abs=1e-5)
    consensus = dendropy.Tree.get(path=str(directory.consensus), schema="nexus")
    assert {leaf.taxon.label for leaf in consensus.leaf_node_iter()} == set(draws.taxa)


def test_consensus_has_the_exact_posteriors_majority_clades(directory, toy, draws, corrected):
    exact = split_table(toy.topologies, toy.posterior)
    majority = exact.frequencies[(exact.frequencies > 0.5) & (exact.sizes > 1)]
    assert len(majority) >= 2
    consensus = dendropy.Tree.get(path=str(directory.consensus), schema="nexus")
    inner = [n for n in consensus.preorder_internal_node_iter() if n is not consensus.seed_node]
    found = [float(node.annotations.get_value("prob")) for node in inner]
    # 20,000 draws with an effective size of some thousands
    np.testing.assert_allclose(sorted(found), sorted(majority), atol=0.03)
    for node in inner:
        low, high = (float(x) for x in node.annotations.get_value("length_95%HPD"))
        assert 0 < low < node.edge.length < high


@pytest.mark.mrbayes
def test_mrbayes_summarises_the_trees(directory, toy, draws, corrected, tmp_path, require_program):
    program = require_program("mb")
    matrix = "\n".join(f"{name} ACGTACGTAC" for name in draws.taxa)
    (tmp_path / "matrix.nex").write_text(
        f"#NEXUS\nbegin data;\ndimensions ntax={len(draws.taxa)} nchar=10;\nformat datatype=dna;\n"
        f"matrix\n{matrix}\n;\nend;\n"
    )
    # with a warning, which must not keep sumt from reading the trees
    for number in (1, 2):
        for path in (directory.run_trees(number), directory.run_parameters(number)):
            text = path.read_text().replace("[effective", "[WARNING: unreliable: effective")
            (tmp_path / path.name).write_text(text)
    commands = (
        "set autoclose=yes nowarn=yes; execute matrix.nex; "
        "sumt filename=posterior nruns=2 relburnin=no burnin=0 contype=halfcompat; "
        "sump filename=posterior nruns=2 relburnin=no burnin=0; quit;"
    )
    run = subprocess.run(
        [program],
        input=commands.replace("; ", ";\n"),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
    )
    means = {
        line.split("\t")[0]: float(line.split("\t")[1])
        for line in (tmp_path / "posterior.pstat").read_text().splitlines()[1:]
    }
    columns = np.concatenate(
        [np.loadtxt(directory.run_parameters(n), skiprows=2, delimiter="\t") for n in (1, 2)]
    )
    assert means["TL"] == pytest.approx(columns[:, 2].mean(), rel=1e-5)
    statistics = tmp_path / "posterior.tstat"
    assert statistics.exists(), run.stdout[-2000:]
    # The table's second line names its columns; the bipartitions are in the order of the .parts file.
    parts = (tmp_path / "posterior.parts").read_text().splitlines()
    dots = {line.split()[0]: line.split()[1] for line in parts if re.match(r"\d+\s", line)}
    probabilities = {
        line.split()[0]: float(line.split()[2])
        for line in statistics.read_text().splitlines()
        if re.match(r"\d+\s", line)
    }
    checked = 0
    for number, probability in probabilities.items():
        stars = [i for i, symbol in enumerate(dots[number]) if symbol == "*"]
        if len(stars) == 2:
            checked += 1
            assert probability == pytest.approx(exact_cherry_probability(toy, *stars), abs=0.03)
    assert checked >= 2


def test_the_final_posterior_reads_back(tmp_path, draws, corrected):
    final = posterior_files.FinalPosterior(
        np.random.default_rng(0).normal(size=(2, 30)),
        np.random.default_rng(1).uniform(-0.5, 0.5, (2, 7, 3)),
        np.random.default_rng(2).normal(size=(2, 32)),
        np.random.default_rng(3).normal(size=(2, 9, 4)),
        ModelDensity.initial(2, np.arange(4.0)).table,
        np.random.default_rng(4).normal(size=(2, 4, 4)),
        draws.topologies,
        corrected.log_topology_probabilities,
    )
    posterior_files.save_final(tmp_path / "posterior.npz", final)
    again = posterior_files.load_final(tmp_path / "posterior.npz")
    np.testing.assert_array_equal(again.logits, final.logits)
    np.testing.assert_array_equal(again.correlations, final.correlations)
    np.testing.assert_array_equal(again.shifts, final.shifts)
    np.testing.assert_array_equal(again.slopes, final.slopes)
    np.testing.assert_array_equal(again.model_table, final.model_table)
    np.testing.assert_array_equal(again.model().shapes, final.model_shapes)
    assert again.model().num_coordinates == 4
    np.testing.assert_array_equal(again.topologies, final.topologies)
    np.testing.assert_array_equal(again.log_topology_probabilities, final.log_topology_probabilities)


def test_a_missing_or_damaged_final_posterior_is_named(tmp_path, draws, corrected):
    path = tmp_path / "posterior.npz"
    with pytest.raises(RunDirectoryError, match="has not finished"):
        posterior_files.load_final(path)
    final = posterior_files.FinalPosterior(
        np.ones((2, 30)),
        np.zeros((2, 7, 3)),
        np.zeros((2, 32)),
        np.zeros((2, 9, 0)),
        np.zeros((2, 0, 1)),
        np.zeros((2, 0, 4)),
        draws.topologies,
        corrected.log_topology_probabilities,
    )
    posterior_files.save_final(path, final)
    whole = path.read_bytes()
    middle = whole.index(b"topologies.npy") + 40  # inside the compressed data of an array
    for content in (b"", b"x", whole[:-30], whole[:50], whole[:middle] + b"\xff" * 20 + whole[middle + 20 :]):
        path.write_bytes(content)
        with pytest.raises(RunDirectoryError, match=r"posterior\.npz: expected arrays .* cannot be read"):
            posterior_files.load_final(path)
    np.savez(path, logits=np.ones(3))
    with pytest.raises(RunDirectoryError, match="cannot be read"):
        posterior_files.load_final(path)


def test_all_tree_files_say_how_reliable_they_are(directory, draws, tmp_path):
    names = ("posterior_trees", "topology_probabilities", "consensus")
    for name in names:
        text = getattr(directory, name).read_text()
        assert re.search(
            r"\n\[effective sample size \d+\.\d of 20000 draws, Pareto k-hat -?0\.\d\d\]\n", text
        ), name
        assert "WARNING" not in text
    # One draw that holds nearly all of the weight.
    log_weights = draws.log_weights.copy()
    log_weights[7] += 50
    failed = dataclasses.replace(draws, log_weights=log_weights)
    other = RunDirectory(tmp_path)
    posterior_files.write_posterior(other, failed, correction.correct(failed), 10, np.random.default_rng(2))
    for name in names:
        assert "\n[WARNING: unreliable: effective sample size 1.0 of" in getattr(other, name).read_text(), (
            name
        )
    assert len(read_tree_sample(other.topology_probabilities, draws.taxa).children) > 1
    assert len(dendropy.TreeList.get(path=str(other.posterior_trees), schema="nexus")) == 5
    assert dendropy.Tree.get(path=str(other.consensus), schema="nexus").seed_node is not None


def rows_of(path):
    header, *lines = path.read_text().splitlines()
    return [dict(zip(header.split("\t"), line.split("\t"), strict=True)) for line in lines]


def test_splits_are_those_of_the_exact_posterior(directory, toy, draws, corrected):
    exact = split_table(toy.topologies, toy.posterior)
    expected = dict(zip(exact.masks[:, 0].tolist(), exact.frequencies, strict=True))
    rows = rows_of(directory.splits)
    names = np.array(draws.taxa)
    deviations = []
    for row in rows:
        inside = np.array([symbol == "*" for symbol in row["bitmask"]])
        assert json.loads(row["taxa"]) == names[inside].tolist()
        assert 2 * inside.sum() <= len(names)
        side = ~inside if inside[-1] and inside.sum() > 1 else inside
        probability, error = float(row["probability"]), float(row["probability_se"])
        if 0.01 < probability < 0.99:
            deviations.append((probability - expected[int((1 << np.flatnonzero(side)).sum())]) / error)
        assert (
            float(row["length_hpd95_low"]) <= float(row["length_median"]) <= float(row["length_hpd95_high"])
        )
    # Rao-Blackwellised probabilities are nearer to the truth than the errors say, and none is 4 of them off.
    assert len(deviations) >= 5
    assert np.abs(deviations).max() < 4
    assert [float(row["probability"]) for row in rows] == sorted(
        (float(row["probability"]) for row in rows), reverse=True
    )
    # the pendant branch of the first taxon: log b ~ N(-3, .6), of which the density's shortest interval
    first = next(row for row in rows if json.loads(row["taxa"]) == ["A"])
    assert float(first["length_mean"]) == pytest.approx(
        np.exp(-3.0 + 0.18), abs=4 * float(first["length_mean_se"])
    )
    assert float(first["length_median"]) == pytest.approx(np.exp(-3.0), rel=0.05)


def test_credible_sets_hold_what_they_say(directory, corrected):
    rows = rows_of(directory.credible_sets)
    trprobs = read_tree_draws(directory.topology_probabilities)
    ccd = conditional_clade_distribution(trprobs.children, trprobs.weights)
    for rank, row in enumerate(rows):
        assert row["tree"] == f"tree_{rank + 1}"
        assert float(row["probability"]) == pytest.approx(trprobs.weights[rank], rel=1e-6)
        assert float(row["ccd_probability"]) == pytest.approx(np.exp(ccd.log_probabilities[rank]), rel=1e-6)
    for one in credible_sets(corrected):
        inside = [row for row in rows if float(row["credible_set"]) <= one.level]
        assert len(inside) == one.num_topologies
        assert sum(float(row["probability"]) for row in inside) >= one.level - 1e-6
        assert sum(float(row["probability"]) for row in inside[:-1]) < one.level
        assert one.probability == pytest.approx(float(inside[-1]["cumulative"]), abs=1e-6)
        assert one.ccd_probability == pytest.approx(
            sum(float(row["ccd_probability"]) for row in inside), abs=1e-5
        )


def test_single_trees_read_back_with_support_and_intervals(directory, draws, corrected):
    ccd = read_tree_draws(directory.ccd_map, draws.taxa)
    np.testing.assert_array_equal(ccd.children[0], corrected.ccd.map_topology)
    mcc = read_tree_draws(directory.mcc, draws.taxa)
    masks = {
        m.tobytes(): f for m, f in zip(corrected.ccd.splits.masks, corrected.ccd.frequencies, strict=True)
    }
    products = [np.prod([masks[m.tobytes()] for m in row]) for row in clade_masks(corrected.topologies)]
    np.testing.assert_array_equal(mcc.children[0], corrected.topologies[np.argmax(products)])
    mode = sbn_mode(draws, corrected)
    sbn = read_tree_draws(directory.sbn_map, draws.taxa)
    np.testing.assert_array_equal(sbn.children[0], mode.topology)
    assert mode.is_certain == (np.exp(draws.log_q.max()) >= 1 - np.exp(draws.log_q).sum())
    for path in (directory.ccd_map, directory.mcc, directory.sbn_map):
        tree = dendropy.Tree.get(path=str(path), schema="nexus")
        assert len(tree.internal_nodes()) == len(draws.taxa) - 2
        for node in tree.preorder_internal_node_iter():
            if node is not tree.seed_node:
                assert 0 < float(node.annotations.get_value("prob")) <= 1
                low, high = (float(x) for x in node.annotations.get_value("length_95%HPD"))
                assert 0 < low < float(node.annotations.get_value("length_median")) < high


def test_supports_are_labels_in_the_newick_file(directory, draws):
    newick = dendropy.Tree.get(path=str(directory.consensus_newick), schema="newick")
    nexus = dendropy.Tree.get(path=str(directory.consensus), schema="nexus")
    labels = [float(n.label) for n in newick.preorder_internal_node_iter() if n is not newick.seed_node]
    probabilities = [
        100 * float(n.annotations.get_value("prob"))
        for n in nexus.preorder_internal_node_iter()
        if n is not nexus.seed_node
    ]
    assert labels == pytest.approx(probabilities, rel=1e-3)
