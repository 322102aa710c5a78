"""Trees that span the support of an alignment that comes without any: IQ-TREE's ultrafast bootstrap.

The literature builds supports from ultrafast-bootstrap trees (Minh, Nguyen & von Haeseler 2013; Zhang &
Matsen 2019). One run of 10,000 trees holds nearly all of the posterior's subsplits where the data speak
clearly. With six taxa or fewer there is nothing to look for: all topologies, at most 105, are the support.
"""

import gzip
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from vbpi_mix._nucleotides import MISSING
from vbpi_mix.alignment import Alignment, write_fasta
from vbpi_mix.errors import AlignmentError, MissingProgramError, VbpiMixError
from vbpi_mix.trees.enumeration import all_topologies
from vbpi_mix.trees.newick import newick_texts
from vbpi_mix.trees.samples import TreeSample, read_tree_sample

PROGRAMS = ("iqtree3", "iqtree2")
"""Names under which IQ-TREE is looked for on the PATH, the preferred first."""

NUM_TREES = 10_000
"""Bootstrap trees of one run."""

MAX_ENUMERATED_TAXA = 6
"""Up to so many taxa every topology belongs to the support, and no program is needed."""


def find_iqtree() -> str:
    """Path of IQ-TREE 2 or 3.

    Raises:
        MissingProgramError: Neither is on the PATH; says how to install one.
    """
    for name in PROGRAMS:
        path = shutil.which(name)
        if path is not None:
            return path
    raise MissingProgramError(
        "the support of this alignment is built from bootstrap trees, and neither iqtree3 nor iqtree2 is on "
        "the PATH; install IQ-TREE (Debian and Ubuntu: apt-get install iqtree; conda: conda install -c "
        "bioconda iqtree; others: iqtree.github.io), or give a file of trees with --support"
    )


def bootstrap_trees(alignment: Alignment, seed: int, threads: int = 1) -> TreeSample:
    """Ultrafast-bootstrap trees of an alignment under JC69, made by IQ-TREE, which must be on the PATH.

    Args:
        alignment: At least four taxa, each with data.
        seed: Seed of IQ-TREE; the same seed, version and number of threads give the same trees.
        threads: Threads that IQ-TREE may use.

    Returns:
        The distinct topologies and how often each occurs.

    Raises:
        MissingProgramError: IQ-TREE is not on the PATH.
        AlignmentError: A taxon has no data: IQ-TREE does not place such taxa.
        VbpiMixError: IQ-TREE failed; the message ends with what it said.
    """
    program = find_iqtree()
    is_empty = (alignment.states == MISSING).all(axis=1)
    if is_empty.any():
        empty = [taxon for taxon, e in zip(alignment.taxa, is_empty, strict=True) if e]
        raise AlignmentError(
            f"{alignment.source}: IQ-TREE places no taxa without data: {', '.join(empty)}; remove them, or "
            "give a file of trees with --support"
        )
    # IQ-TREE changes unusual characters in names, so it gets numbers.
    numbers = tuple(f"t{i}" for i in range(alignment.num_taxa))
    numbered = Alignment(numbers, alignment.states, alignment.source)
    with tempfile.TemporaryDirectory(prefix="vbpi-mix-") as folder:
        prefix = Path(folder) / "bootstrap"
        write_fasta(numbered, prefix.with_suffix(".fasta"))
        command = [program, "-s", str(prefix.with_suffix(".fasta")), "-st", "DNA", "-m", "JC"]
        command += ["-B", str(NUM_TREES), "--wbt", "-seed", str(seed), "-T", str(threads)]
        command += ["-keep-ident", "--prefix", str(prefix), "--quiet"]
        process = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        if process.returncode != 0:
            raise VbpiMixError(_failure(process, prefix.with_suffix(".log")))
        sample = read_tree_sample(prefix.with_suffix(".ufboot"), numbers)
    source = f"{Path(program).name} {_version(program)} {' '.join(command[5:-3])}"
    return TreeSample(alignment.taxa, sample.children, sample.weights, source)


def every_topology(taxa: tuple[str, ...]) -> TreeSample:
    """All topologies of a few taxa, equally weighted."""
    children = all_topologies(len(taxa))
    return TreeSample(taxa, children, np.ones(len(children)), f"all topologies of {len(taxa)} taxa")


def support_table(sample: TreeSample) -> bytes:
    """Table of a sample, gzipped, in the form of the bundled ones: `read_tree_sample` reads it."""
    numbers = [str(i) for i in range(len(sample.taxa))]
    lines = ["\t".join(["#taxa", *sample.taxa]), "replicate\tcount\ttopology"]
    lines += [
        f"1\t{weight:.17g}\t{text}"
        for weight, text in zip(sample.weights, newick_texts(sample.children, None, numbers), strict=True)
    ]
    return gzip.compress(("\n".join(lines) + "\n").encode(), mtime=0)


def _failure(process: subprocess.CompletedProcess[str], log: Path) -> str:
    """Message about a run of IQ-TREE that failed."""
    said = process.stdout + process.stderr + (log.read_text(errors="replace") if log.exists() else "")
    errors = list(dict.fromkeys(line.strip() for line in said.splitlines() if "ERROR" in line))
    reason = "; ".join(errors) or "; ".join(said.strip().splitlines()[-3:]) or "it said nothing"
    return (
        f"IQ-TREE failed with exit status {process.returncode} while making bootstrap trees: {reason}; "
        "mend the alignment, or give a file of trees with --support"
    )


def _version(program: str) -> str:
    """Version of IQ-TREE, as it tells itself."""
    process = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"version (\S+)", process.stdout)
    return found.group(1) if found else "of unknown version"
