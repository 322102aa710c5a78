"""Ultrafast-bootstrap trees by piqtree, IQ-TREE as a Python extension, in a process of its own.

piqtree comes under version 2 of the GNU General Public License only, this package under version 3 or later:
so they share no process. The child reads a request from a JSON file and writes the checkpoint that IQ-TREE
returns, whose section UFBoot holds the tree of every bootstrap replicate. It calls piqtree's compiled module,
which needs none of the packages that the others of piqtree's modules import.
"""

import json
import re
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from vbpi_mix._nucleotides import MISSING, SYMBOLS
from vbpi_mix.alignment import Alignment
from vbpi_mix.errors import MissingProgramError, VbpiMixError
from vbpi_mix.trees.samples import TreeSample, read_tree_sample

NUM_TREES = 1_000
"""Bootstrap trees of one run; IQ-TREE makes no fewer."""

MODULE = "_piqtree"
"""Compiled module of piqtree."""

CHILD = f"""
import json
from pathlib import Path
from {MODULE} import __iqtree_version__, iq_build_tree
request = json.loads(Path("request.json").read_text(encoding="utf-8"))
checkpoint = iq_build_tree(*request)
Path("checkpoint.txt").write_text(checkpoint, encoding="utf-8")
Path("version.txt").write_text(__iqtree_version__, encoding="utf-8")
"""
"""Program of the child, which runs in a folder of its own."""

_SECTION = re.compile(r"^UFBoot:\n((?: .*\n)*)", re.MULTILINE)
_TREE = re.compile(r"^ \d+: .*?(\(.*;)$", re.MULTILINE)


def has_piqtree() -> bool:
    """Whether piqtree is installed; it is not imported."""
    return find_spec(MODULE) is not None


def piqtree_trees(alignment: Alignment, seed: int, model: str = "JC") -> TreeSample:
    """Ultrafast-bootstrap trees of an alignment, made by piqtree.

    Args:
        alignment: At least four taxa, each with data.
        seed: Seed of IQ-TREE, at least 1 there: 0 is taken as another number.
        model: Substitution model, as IQ-TREE names it.

    Returns:
        The distinct topologies of the bootstrap trees, with how often each occurs.

    Raises:
        MissingProgramError: piqtree is not installed.
        VbpiMixError: It failed; the message ends with what it said.
        TreeFormatError: A tree lacks taxa.
    """
    if not has_piqtree():
        raise MissingProgramError(
            "piqtree is not installed; install it with: pip install 'vbpi-mix[support]'"
        )
    # Missing data as gaps: it takes sequences with many an N for protein, and cannot be told otherwise.
    symbols = np.frombuffer((SYMBOLS[:MISSING] + "-").encode("ascii"), np.uint8)
    sequences = [symbols[row].tobytes().decode("ascii") for row in alignment.states]
    numbers = tuple(str(i) for i in range(alignment.num_taxa))  # as it labels the leaves whatever their names
    names = [f"t{number}" for number in numbers]
    request = [names, sequences, model, seed or 2**31 - 1, NUM_TREES, 1]
    with tempfile.TemporaryDirectory(prefix="vbpi-mix-") as name:
        folder = Path(name)
        (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
        process = subprocess.run(
            [sys.executable, "-c", CHILD],
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        checkpoint = folder / "checkpoint.txt"
        if process.returncode != 0 or not checkpoint.exists():
            raise VbpiMixError(_failure(process))
        trees = bootstrap_section(checkpoint.read_text(encoding="utf-8"))
        path = folder / "bootstrap.newick"
        path.write_text("\n".join(trees) + "\n", encoding="utf-8")
        sample = read_tree_sample(path, numbers)
        version = (folder / "version.txt").read_text(encoding="utf-8")
    source = f"piqtree (IQ-TREE {version}) -m {model} -B {NUM_TREES} -seed {request[3]}"
    return TreeSample(alignment.taxa, sample.children, sample.weights, source)


def bootstrap_section(checkpoint: str) -> list[str]:
    """Newick texts of the bootstrap trees in a checkpoint of IQ-TREE.

    Raises:
        VbpiMixError: There are none.
    """
    section = _SECTION.search(checkpoint)
    trees = _TREE.findall(section.group(1)) if section else []
    if not trees:
        raise VbpiMixError(
            "expected bootstrap trees in the checkpoint that piqtree returns, found none: use another "
            "release of piqtree, install IQ-TREE, or give a file of trees with --support"
        )
    return trees


def _failure(process: subprocess.CompletedProcess[str]) -> str:
    """Message about a child that failed."""
    said = (process.stdout + process.stderr).strip().splitlines()
    errors = list(dict.fromkeys(line.strip() for line in said if "ERROR" in line))
    reason = "; ".join(errors) or "; ".join(said[-1:]) or "it said nothing"
    return (
        f"piqtree failed with exit status {process.returncode} while making bootstrap trees: {reason}; mend "
        "the alignment, or give a file of trees with --support"
    )
