"""The benchmark of stopping: what it records is the program's, and false stops are told from right ones."""

import json

import pytest
import stopping
from sections import stopping as reported


def analysis(converged, maximum, budget=None, wall=20.0):
    names = ("training", "pareto_k", "ess", "asdsf")
    return {
        "dataset": "DS1",
        "seed": 0,
        "budget": budget,
        "options": [],
        "wall_seconds": wall,
        "rounds": 1,
        "splits": {"maximum": maximum, "mean": maximum / 3, "num_splits": 9},
        "result": {
            "converged": converged,
            "iterations": 3000,
            "criteria": [{"name": name, "value": 0.5} for name in names],
        },
    }


def test_a_false_stop_is_a_yes_far_from_the_reference():
    assert reported.is_false_stop(analysis(True, 0.051))
    assert not reported.is_false_stop(analysis(True, 0.049))
    assert not reported.is_false_stop(analysis(False, 0.5))


def test_the_section_counts_them(tmp_path):
    assert reported.section(tmp_path) is None
    runs = {
        "DS1.seed0": analysis(True, 0.2),
        "DS1.seed2": analysis(True, 0.01),
        "DS1.seed4": analysis(False, 0.2),
        "DS1.seed0.30s": analysis(True, 0.01, budget="30s", wall=31.0),
        "DS1.seed2.1m": analysis(True, 0.01, budget="1m", wall=59.0),
    }
    (tmp_path / "stopping").mkdir()
    for name, run in runs.items():
        (tmp_path / "stopping" / f"{name}.json").write_text(json.dumps(run))
    section = reported.section(tmp_path)
    assert "Of 3 analyses with a reference 2 ended with the verdict yes, 1 of these" in section.text[0]
    assert section.text[1].startswith("1 of 2 analyses with a budget")
    assert len(section.parts[0].rows) == 5
    assert section.sources == [
        f"stopping/{name}.json" for name in sorted(runs, key=lambda name: f"{name}.json")
    ]


@pytest.mark.reference
def test_an_analysis_is_set_beside_the_reference(require_reference):
    require_reference("golden/DS1.tsv.gz")
    options = ["--iterations", "200", "--repeats", "4", "--posterior-samples", "50", "--no-report"]
    measured = stopping.measure("DS1", 3, None, options)
    assert [run["seed"] for run in measured["result"]["runs"]] == [3, 4]
    assert 0 < measured["splits"]["mean"] < measured["splits"]["maximum"] < 0.5
    assert measured["rounds"] == 1
    assert "$OUT" in json.dumps(measured["result"]["provenance"])
