"""The Python interface: README's example, and every question a posterior answers."""

import re
from pathlib import Path

import numpy as np
import pytest

import vbpi_mix
from vbpi_mix.errors import ConfigurationError
from vbpi_mix.trees.enumeration import all_topologies
from vbpi_mix.trees.samples import TreeSample, read_tree_draws

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def namespace():
    """What README's example leaves behind, run as it is printed but for fewer draws."""
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    quick = example.replace("seed=1,", 'seed=1, evaluation={"repeats": 10},')
    assert quick != example
    names = {}
    exec(compile(quick, "README.md", "exec"), names)
    return names


def test_readme_example_finds_the_evidence_of_ds1(namespace):
    estimates = namespace["posterior"].evaluate()
    # -7108.40 after long runs and in the literature; 2,000 steps come within a fraction of a nat
    assert abs(estimates.marginal_log_likelihood.pooled + 7108.40) < 0.2
    assert len(namespace["sample"].children) == 1000


def test_second_example_of_the_docs_runs(namespace, capsys):
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "api.md").read_text(), re.S)
    exec(compile(examples[1], "api.md", "exec"), {"vbpi_mix": vbpi_mix, "sample": namespace["sample"]})
    assert "Homo_sapiens" in capsys.readouterr().out


def test_posterior_answers(namespace, tmp_path):
    posterior = namespace["posterior"]
    topologies = posterior.topologies()
    assert topologies.weights.sum() == pytest.approx(1.0)
    assert (np.diff(topologies.weights) <= 0).all()
    assert np.isfinite(posterior.log_probability(topologies.children)).all()
    against_itself = posterior.compare(topologies)
    assert against_itself["corrected"].total_variation == pytest.approx(0.0, abs=1e-12)
    assert 0.0 < against_itself["mixture"].total_variation < 0.6
    posterior.write(tmp_path / "files", num_trees=50)
    assert len(read_tree_draws(tmp_path / "files" / "posterior.run1.t", posterior.taxa).children) == 25
    again = posterior.sample(20, seed=3)
    np.testing.assert_array_equal(again.branch_lengths, posterior.sample(20, seed=3).branch_lengths)


def test_agrees_with_the_golden_posterior(namespace, require_reference):
    posterior = namespace["posterior"]
    golden = vbpi_mix.read_tree_sample(require_reference("golden/DS1.tsv.gz"), posterior.taxa)
    agreement = posterior.compare(golden)
    assert agreement["mixture"].coverage > 0.999
    # full runs reach 0.02; a fifth of the steps and a tenth of the draws come this close
    assert agreement["corrected"].total_variation < 0.15


def test_trees_of_other_taxa_are_refused(namespace):
    alignment = vbpi_mix.load_dataset("DS1")
    trees = vbpi_mix.dataset_trees("DS1")
    shuffled = TreeSample(trees.taxa[::-1], trees.children, trees.weights, "shuffled")
    with pytest.raises(ConfigurationError, match=r"read_tree_sample\(path, alignment.taxa\)"):
        vbpi_mix.fit(alignment, shuffled)
    with pytest.raises(ConfigurationError, match=r"read_tree_sample\(path, alignment.taxa\)"):
        namespace["posterior"].compare(shuffled)


def test_every_public_name_is_there():
    for name in vbpi_mix.__all__:
        assert getattr(vbpi_mix, name) is not None
    assert set(vbpi_mix.__all__) <= set(dir(vbpi_mix))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = vbpi_mix.nonsense


@pytest.mark.parametrize("num_taxa", [4, 5])
def test_growth_finds_what_one_topology_lacks(num_taxa):
    rng = np.random.default_rng(num_taxa)
    states = (1 << rng.integers(0, 4, (num_taxa, 12))).astype(np.uint8)  # noise: no topology stands out
    alignment = vbpi_mix.Alignment(tuple("abcde"[:num_taxa]), states, "noise")
    one = TreeSample(alignment.taxa, all_topologies(num_taxa)[:1], np.ones(1), "one")
    settings = {"optimisation": {"iterations": 300}, "evaluation": {"repeats": 5}}
    fixed = vbpi_mix.fit(alignment, one, **settings)
    assert len(fixed.topologies().children) == 1
    grown = vbpi_mix.fit(alignment, one, growth={"enabled": True}, **settings).topologies()
    # Every neighbour of the one topology is there, and of the rest what is one further interchange away.
    assert len(grown.children) == {4: 3, 5: 15}[num_taxa]
    assert grown.weights.max() < 0.9
