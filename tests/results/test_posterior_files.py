import dataclasses
import re
import subprocess

import dendropy
import numpy as np
import pytest

from vbpi_mix.errors import RunDirectoryError
from vbpi_mix.results import correction, posterior_files
from vbpi_mix.results.run_directory import RunDirectory
from vbpi_mix.trees.samples import read_tree_draws, read_tree_sample
from vbpi_mix.trees.summaries import split_table


@pytest.fixture(scope="module")
def toy(make_toy):
    return make_toy(concentration=0.02)


@pytest.fixture(scope="module")
def draws(toy):
    return toy.draw(20_000, np.random.default_rng(1))


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


def test_resampled_trees_read_back_with_the_corrected_frequencies(directory, draws, corrected):
    trees = read_tree_draws(directory.posterior_trees, draws.taxa)
    assert len(trees.children) == 1000
    drawn = {
        row.tobytes(): p for row, p in zip(draws.topologies, corrected.topology_probabilities, strict=True)
    }
    rows, counts = np.unique(trees.children.reshape(1000, -1), axis=0, return_counts=True)
    for row, count in zip(rows, counts, strict=True):
        assert abs(count - 1000 * drawn[row.tobytes()]) < 1
    # log b has standard deviation .6 in the posterior, and the draws' weights an effective size above 300
    np.testing.assert_allclose(
        np.log(trees.branch_lengths).mean(axis=0), np.linspace(-3.0, -1.5, 9), atol=4 * 0.6 / np.sqrt(300)
    )


def test_the_trees_say_that_they_are_resampled(directory):
    assert "[1000 trees, importance-resampled with replacement from 20000 weighted draws]" in (
        directory.posterior_trees.read_text()
    )


def test_topology_probabilities_read_back(directory, draws, corrected):
    sample = read_tree_sample(directory.topology_probabilities, draws.taxa)
    assert len(sample.children) == len(draws.topologies)
    probabilities = {row.tobytes(): w for row, w in zip(sample.children, sample.weights, strict=True)}
    for row, p in zip(draws.topologies, corrected.topology_probabilities, strict=True):
        assert probabilities[row.tobytes()] == pytest.approx(p, rel=1e-6)


def test_dendropy_reads_all_three(directory, draws):
    trees = dendropy.TreeList.get(path=str(directory.posterior_trees), schema="nexus")
    assert len(trees) == 1000
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
    text = directory.posterior_trees.read_text().replace("[effective", "[WARNING: unreliable: effective")
    (tmp_path / "posterior.run1.t").write_text(text)
    commands = (
        "set autoclose=yes nowarn=yes; execute matrix.nex; "
        "sumt filename=posterior.run1 nruns=1 relburnin=no burnin=0 contype=halfcompat; quit;"
    )
    run = subprocess.run(
        [program],
        input=commands.replace("; ", ";\n"),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
    )
    statistics = tmp_path / "posterior.run1.tstat"
    assert statistics.exists(), run.stdout[-2000:]
    # The table's second line names its columns; the bipartitions are in the order of the .parts file.
    parts = (tmp_path / "posterior.run1.parts").read_text().splitlines()
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
        draws.topologies,
        corrected.log_topology_probabilities,
    )
    posterior_files.save_final(tmp_path / "posterior.npz", final)
    again = posterior_files.load_final(tmp_path / "posterior.npz")
    np.testing.assert_array_equal(again.logits, final.logits)
    np.testing.assert_array_equal(again.correlations, final.correlations)
    np.testing.assert_array_equal(again.shifts, final.shifts)
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
    assert len(dendropy.TreeList.get(path=str(other.posterior_trees), schema="nexus")) == 10
    assert dendropy.Tree.get(path=str(other.consensus), schema="nexus").seed_node is not None
