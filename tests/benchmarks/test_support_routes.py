"""Supports by every route: what of a posterior they cover, and what the report says of them."""

import json

import numpy as np
import pytest
import support_routes
from sections import support_routes as reported

from vbpi_mix.trees.enumeration import all_topologies
from vbpi_mix.trees.samples import TreeSample
from vbpi_mix.trees.topology import clade_masks

TAXA = tuple("abcdef")


def sample_of(children, weights):
    return TreeSample(TAXA, children, np.asarray(weights, dtype=np.float64), "made up")


def test_coverage_is_the_golden_probability_of_what_is_there():
    every = all_topologies(6)
    golden = sample_of(every[:4], [8.0, 4.0, 2.0, 2.0])
    whole = support_routes.coverage(golden, golden)
    assert (whole["coverage"], whole["coverage_of_trees"], whole["num_topologies"]) == (1.0, 1.0, 4)
    part = support_routes.coverage(sample_of(every[1:3], [1.0, 1.0]), golden)
    assert part["coverage_of_trees"] == 6 / 16
    assert part["coverage_of_trees"] <= part["coverage"] < 1.0


def test_a_spoilt_sample_lacks_the_least_probable_split_of_the_best_topology():
    every = all_topologies(6)
    weights = np.ones(len(every))
    weights[0] = 50.0
    golden = sample_of(every, weights)
    kept = support_routes.spoilt(golden, golden)
    assert 0 < len(kept.children) < len(every)
    inner = clade_masks(every[:1])[0, 6:]
    shared = [(clade_masks(kept.children) == mask).all(axis=2).any() for mask in inner]
    assert shared.count(False) == 1


@pytest.mark.reference
def test_what_is_measured_says_whether_it_was_spoilt(require_reference, monkeypatch):
    require_reference("golden/DS1.tsv.gz")
    whole, spoilt = (support_routes.measure("DS1", "bundled", spoil, False, []) for spoil in (False, True))
    assert (whole["is_spoilt"], spoilt["is_spoilt"]) == (False, True)
    assert (whole["route"], whole["source"], whole["grown"]) == ("bundled", "bundled", None)
    assert spoilt["coverage"] < 0.9 < whole["coverage"]


def test_the_section_keeps_spoilt_supports_apart(tmp_path):
    def route(name, coverage, is_spoilt=False, grown=None):
        return {
            "dataset": "DS1",
            "route": name,
            "is_spoilt": is_spoilt,
            "num_topologies": 100,
            "num_parameters": 900,
            "coverage": coverage,
            "coverage_of_trees": 0.5,
            "processor_seconds": 2.0,
            "seconds": 1.0,
            "grown": grown,
        }

    growth = {"rounds": [{"mass_outside": 0.3}], "mass_outside": 0.01}
    grown = {"num_topologies": 120, "num_parameters": 950, "coverage": 0.98, "support_growth": growth}
    folder = tmp_path / "support_routes"
    folder.mkdir()
    for name, content in (
        ("DS1.iqtree", route("iqtree", 0.999)),
        ("DS1.bundled.spoilt", route("bundled", 0.4, is_spoilt=True, grown=grown)),
    ):
        (folder / f"{name}.json").write_text(json.dumps(content))
    section = reported.section(tmp_path)
    assert section.text == [
        "Route iqtree: supports cover 99.90% of the golden posterior or more (DS1 least) over 1 data sets.",
        "A support of DS1 by route bundled, spoilt grows from 40.00% to 98.00%.",
    ]
    routes, growths = section.parts
    assert [row[1] for row in routes.rows] == ["iqtree"]
    assert growths.rows[0][1:] == ["bundled, spoilt", "1", "20", "50", "30%", "1%", "40.00%", "98.00%"]
