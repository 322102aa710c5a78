"""Damaged files of every kind: whatever is in them, a reader returns something valid or says what is wrong.

A longer campaign takes as many times more files as the environment variable VBPI_MIX_FUZZ says:
``VBPI_MIX_FUZZ=50 pytest tests/robustness/test_fuzzing.py``.
"""

import os
import random
import time

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from robustness.mutation import mutated
from robustness.readers import make_readers

from vbpi_mix.errors import VbpiMixError

TIMES = int(os.environ.get("VBPI_MIX_FUZZ", "1"))
MOST_SECONDS = 20.0
"""Processor time that reading a small file may take."""

NUM_FILES = {
    "alignment": 250,
    "trees": 250,
    "reference": 60,
    "config": 60,
    "result": 12,
    "checkpoint": 60,
    "final": 60,
    "metrics": 6,
    "splits.tsv": 6,
    "credible_sets.tsv": 6,
    "posterior.run1.p": 6,
    "ccd_map.tre": 6,
}
"""Damaged files that each reader gets; those with few write the page of a run."""


@pytest.fixture(scope="module")
def readers(tmp_path_factory):
    found = make_readers(tmp_path_factory.mktemp("fuzz"))
    assert found.keys() == NUM_FILES.keys()
    return found


@pytest.mark.parametrize("name", NUM_FILES)
def test_whole_files_are_read(name, readers):
    reader = readers[name]
    for content in reader.files:
        reader.path.write_bytes(content)
        reader.read(reader.path)


@pytest.mark.timeout(600 * TIMES)
@pytest.mark.parametrize("name", NUM_FILES)
def test_damaged_files_are_read_or_refused(name, readers):
    reader = readers[name]
    pool = [content for one in readers.values() for content in one.files]
    outcomes = []

    @settings(max_examples=TIMES * NUM_FILES[name], deadline=None, derandomize=True, database=None,
              phases=[Phase.generate])  # fmt: skip
    @given(seed=st.integers(0, 2**64))
    def read_or_refuse(seed):
        chance = random.Random(seed)
        reader.path.write_bytes(mutated(chance.choice(reader.files), pool, chance))
        began = time.process_time()
        try:
            reader.read(reader.path)
            outcomes.append(True)
        except VbpiMixError:
            outcomes.append(False)
        assert time.process_time() - began < MOST_SECONDS

    read_or_refuse()
    if TIMES > 1:
        print(f"{name}: {len(outcomes):,} files, of which {sum(outcomes):,} were read")
    assert not all(outcomes) or name == "metrics"  # lines that are damaged are left out
