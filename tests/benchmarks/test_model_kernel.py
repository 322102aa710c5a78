"""Times of estimated models' kernels: what is compared with what."""

import json

import model_kernel
import numpy as np
import pytest
from _simulate import random_trees
from sections import model_kernel as section

from vbpi_mix.datasets import load_dataset
from vbpi_mix.patterns import SitePatterns, compress


@pytest.fixture(scope="module")
def patterns():
    """A few site patterns of DS1."""
    whole = compress(load_dataset("DS1"))
    return SitePatterns(whole.taxa, np.ascontiguousarray(whole.states[:, :40]), whole.weights[:40])


def test_every_model_is_called_with_and_without_the_way_from_its_coordinates(patterns):
    children, lengths = random_trees(patterns.num_taxa, 2, seed=1)
    calls = model_kernel.contestants(patterns, children, lengths, "float64")
    assert len(calls) == 1 + 2 * len(model_kernel.MODELS)
    for name in model_kernel.MODELS:
        whole, alone = calls[f"{name} float64"](), calls[f"{name} float64, kernel alone"]()
        np.testing.assert_array_equal(whole[0], alone[0])
        np.testing.assert_array_equal(whole[1], alone[1])
        assert np.ptp(whole[2], axis=0).min() > 0  # each tree has a model of its own


def test_the_section_has_the_worst_of_the_data_sets(tmp_path):
    folder = tmp_path / "model_kernel"
    folder.mkdir()
    for dataset, factor in (("DS1", 2.0), ("primates", 2.5)):
        times = {f"JC {dtype}": {"median": 1.0} for dtype in section.DTYPES}
        for name in model_kernel.MODELS:
            for dtype in section.DTYPES:
                times[f"{name} {dtype}"] = {"median": factor}
                times[f"{name} {dtype}, kernel alone"] = {"median": 0.5 * factor}
        ratios = {name: dict.fromkeys(section.DTYPES, factor) for name in model_kernel.MODELS}
        sizes = {"num_patterns": 9, "num_merged_patterns": 8, "num_trees": 10}
        content = {"dataset": dataset, "milliseconds": times, "times_jc": ratios, **sizes}
        (folder / f"{dataset}.json").write_text(json.dumps(content))
    found = section.section(tmp_path)
    assert found.text[0] == (
        "GTR+F: value and all gradients cost at most 2.50 (float64) and 2.50 (float32) times those of JC69 "
        "over 2 data sets; target 2.2: **missed**."
    )
    assert found.text[1].endswith("target 8.0: met.")
    assert found.parts[0].rows[1][:4] == ["primates", "9 (8)", "1.00", "2.50 (2.50; 1.25)"]
    assert section.section(tmp_path / "nowhere") is None
