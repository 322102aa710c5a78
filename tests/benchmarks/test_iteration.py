"""Iterations: the textbook's step computes what it should, and what is measured can be reported."""

import iteration
import numpy as np
import torch
from _render import draw, markdown_table
from _sections import Figure
from _textbook_step import TextbookStep, _edges
from sections import iteration as reported

from vbpi_mix.datasets import load_dataset
from vbpi_mix.likelihood.base import make_likelihood
from vbpi_mix.likelihood.models import jc69
from vbpi_mix.patterns import SitePatterns, compress
from vbpi_mix.sbn.network import SubsplitNetworks
from vbpi_mix.sbn.support import build_support
from vbpi_mix.trees.newick import parse_newick
from vbpi_mix.trees.topology import random_topologies


def newick(node, lengths, away_from=None):
    below = [newick(child, lengths, node) for child in node.neighbours if child is not away_from]
    name = f"({','.join(below)})" if below else f"t{node.taxon}"
    return f"{name};" if away_from is None else f"{name}:{lengths[away_from, node]!r}"


def test_the_textbook_computes_the_same_probabilities():
    taxa = tuple(f"t{i}" for i in range(7))
    whole = compress(load_dataset("DS1"))
    patterns = SitePatterns(taxa, whole.states[:7, :60].copy(), whole.weights[:60].copy())
    support = build_support(random_topologies(7, 4, np.random.default_rng(0)), taxa)
    torch.manual_seed(0)
    textbook = TextbookStep(support, patterns, 3)
    with torch.no_grad():
        textbook.logits += torch.randn_like(textbook.logits)
    log_q = textbook._log_parameters().detach()
    networks = SubsplitNetworks.from_logits(support, textbook.logits.detach().numpy()[None])
    np.testing.assert_allclose(log_q, networks.log_q[0, :-2], rtol=1e-12, atol=1e-14)
    for _ in range(20):
        root = textbook._sample(log_q.exp().tolist())
        edges = list(_edges(root))
        lengths = torch.rand(len(edges), dtype=torch.float64)
        text = newick(root, dict(zip(edges, lengths.tolist(), strict=True)))
        tree = parse_newick(text, taxa)
        clade = {(u, v): textbook._clade(u, v) for a, b in edges for u, v in ((a, b), (b, a))}
        np.testing.assert_allclose(
            textbook._log_topology(log_q, edges, clade),
            networks.log_probability_of(tree.children[None])[0, 0],
            rtol=1e-12,
        )
        np.testing.assert_allclose(
            textbook._log_likelihood(root, edges, lengths),
            make_likelihood(patterns, jc69()).value(tree.children[None], tree.branch_lengths[None])[0],
            rtol=1e-12,
        )
    before = textbook.logits.detach().clone(), textbook.table.detach().clone()
    assert np.isfinite(textbook())
    assert not torch.equal(before[0], textbook.logits)
    assert not torch.equal(before[1], textbook.table)


def test_iterations_are_measured_and_reported(tmp_path, monkeypatch):
    few = [
        iteration.Configuration(),
        iteration.Configuration(dtype="float32"),
        *(iteration.Configuration("s2a", components, 1) for components in (3, 50)),
    ]
    monkeypatch.setattr(iteration, "configurations", lambda dataset: few)
    monkeypatch.setattr(iteration, "BREAKDOWN_STEPS", 3)
    measured = iteration.measure("DS4", num_passes=2, seconds=0.0)
    for one in measured["configurations"]:
        parts = dict(one["breakdown_microseconds"])
        assert parts.pop("total") > 0
        assert parts.pop("the rest") is not None
        assert all(microseconds > 0 for microseconds in parts.values())
        assert len(one["milliseconds"]["medians_of_passes"]) == 2
    measured |= {"dataset": "DS1", "textbook": {"milliseconds": 200.0, "ratio_to_ours": 180.0}}
    monkeypatch.setattr(reported, "TARGETS", {reported.SINGLE: "<= 1.0 ms", "s2a.A50.S1.float64.t1": "<= 2x"})
    monkeypatch.setattr(reported, "load", lambda results, pattern: {"iteration/DS1.json": measured})
    monkeypatch.setattr(
        reported, "_ratio", lambda configurations, name, reference=reported.SINGLE: 1.5
    )  # of what was not measured
    section = reported.section(tmp_path)
    assert "180 times as long" in section.text[1]
    for part in section.parts:
        if isinstance(part, Figure):
            assert draw(part)
        else:
            assert all(len(row) == len(part.columns) for row in part.rows)
            assert markdown_table(part)


def test_nothing_is_reported_without_results(tmp_path):
    assert reported.section(tmp_path) is None
