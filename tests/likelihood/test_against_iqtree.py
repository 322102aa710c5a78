"""Likelihoods and derivatives against IQ-TREE 2, an independent program, on the bundled data."""

import gzip
import re
import subprocess

import numpy as np
import pytest

from vbpi_mix.alignment import write_fasta
from vbpi_mix.datasets import load_dataset
from vbpi_mix.likelihood.base import make_likelihood
from vbpi_mix.likelihood.compiled import CompiledPerTreeLikelihood
from vbpi_mix.likelihood.model_names import parse_model
from vbpi_mix.likelihood.model_parameters import make_transform
from vbpi_mix.likelihood.models import discrete_gamma_rates, gtr, jc69
from vbpi_mix.trees.newick import write_newick
from vbpi_mix.trees.topology import Tree

pytestmark = pytest.mark.iqtree

EXCHANGEABILITIES = [1.2, 2.5, 0.7, 0.4, 3.1, 1.0]
FREQUENCIES = [0.15, 0.2, 0.3, 0.35]


@pytest.fixture
def iqtree(require_program, tmp_path):
    """Function of a data set, a model's name and a tree: the log-likelihood, nothing optimised."""
    program = require_program("iqtree2")

    def log_likelihood(name, model, children, lengths):
        alignment = load_dataset(name)
        if not (tmp_path / f"{name}.fasta").exists():
            write_fasta(alignment, tmp_path / f"{name}.fasta")
        (tmp_path / "tree.nwk").write_text(write_newick(Tree(alignment.taxa, children, lengths)) + "\n")
        options = ["-m", model, "-te", "tree.nwk", "-blfix", "-nt", "1", "-prec", "12", "-keep-ident"]
        subprocess.run(
            [program, "-s", f"{name}.fasta", *options, "--prefix", "run", "-redo", "-quiet"],
            cwd=tmp_path,
            check=True,
            capture_output=True,
        )
        # The report has four decimals, the checkpoint twelve significant digits.
        checkpoint = gzip.decompress((tmp_path / "run.ckp.gz").read_bytes()).decode()
        found = re.search(r"^ *0: (-\d+\.\d+) \(", checkpoint, re.MULTILINE)
        assert found is not None, checkpoint
        return float(found[1])

    return log_likelihood


@pytest.mark.parametrize("name", ["DS1", "DS4", "DS7", "DS8"])
def test_jc69(name, iqtree, draw_trees, bundled_patterns):
    patterns = bundled_patterns(name)
    children, lengths = draw_trees(patterns.num_taxa, 1, seed=1)
    expected = iqtree(name, "JC", children[0], lengths[0])
    value = make_likelihood(patterns, jc69()).value(children, lengths)[0]
    assert value == pytest.approx(expected, abs=1e-5)  # observed differences are below 1e-6 nats


@pytest.mark.parametrize("name", ["DS1", "DS8"])
@pytest.mark.parametrize("engine", ["compiled", "torch"])
def test_gtr_with_gamma_rates(name, engine, iqtree, draw_trees, bundled_patterns):
    patterns = bundled_patterns(name)
    children, lengths = draw_trees(patterns.num_taxa, 1, seed=2)
    rates, frequencies = (",".join(map(str, x)) for x in (EXCHANGEABILITIES, FREQUENCIES))
    expected = iqtree(name, f"GTR{{{rates}}}+F{{{frequencies}}}+G4{{0.5}}", children[0], lengths[0])
    model = gtr(np.array(FREQUENCIES), np.array(EXCHANGEABILITIES), discrete_gamma_rates(0.5, 4))
    value = make_likelihood(patterns, model, engine=engine).value(children, lengths)[0]
    assert value == pytest.approx(expected, abs=1e-3)  # IQ-TREE finds gamma quantiles to about six digits


MODELS = (
    "K80{2.5}",
    "HKY{2.5}+F{0.15,0.2,0.3,0.35}",
    "TN{2.5,4}+F{0.15,0.2,0.3,0.35}",
    "SYM{1.2,2.5,0.7,0.4,3.1}",
    "GTR{1.2,2.5,0.7,0.4,3.1}+F{0.15,0.2,0.3,0.35}+G4{0.5}",
    "GTR{1.2,2.5,0.7,0.4,3.1}+F{0.15,0.2,0.3,0.35}+I{0.1}+G4{0.5}",
)


@pytest.mark.parametrize("name", ["DS1", "DS4", "DS7", "DS8"])
@pytest.mark.parametrize("model", MODELS)
def test_models_by_name(name, model, iqtree, draw_trees, bundled_patterns):
    patterns = bundled_patterns(name)
    children, lengths = draw_trees(patterns.num_taxa, 1, seed=4)
    expected = iqtree(name, model, children[0], lengths[0])
    transform = make_transform(parse_model(model), patterns)
    likelihood = CompiledPerTreeLikelihood(patterns, transform.num_categories)
    value = likelihood.value(children, lengths, transform.parameters(np.empty((1, 0))))[0]
    assert value == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("name", ["DS1", "DS4", "DS7", "DS8"])
def test_gradient_by_differences_of_iqtree(name, iqtree, draw_trees, bundled_patterns):
    # Four values, at one and two steps h of 2% of a branch to either side: truncation is h^4 / 30 times the
    # fifth derivative, below 1e-4 here; rounding to seven decimals leaves 18 * 5e-8 / (12 h), at most 2e-4.
    patterns = bundled_patterns(name)
    children, lengths = draw_trees(patterns.num_taxa, 1, seed=3)
    _, gradient = make_likelihood(patterns, jc69()).value_and_gradient(children, lengths)
    pendant, internal = 0, patterns.num_taxa + 3
    for edge in (pendant, internal):
        step = 0.02 * lengths[0, edge]
        difference = 0.0
        for offset, coefficient in ((-2, 1), (-1, -8), (1, 8), (2, -1)):
            moved = lengths[0].copy()
            moved[edge] += offset * step
            difference += coefficient * iqtree(name, "JC", children[0], moved) / (12 * step)
        assert gradient[0, edge] == pytest.approx(difference, abs=1e-3, rel=0)
