"""Trees that span the support of an alignment that comes without any: IQ-TREE's ultrafast bootstrap.

The literature builds supports from ultrafast-bootstrap trees (Minh, Nguyen & von Haeseler 2013; Zhang &
Matsen 2019), ten times 10,000 of them. Most of IQ-TREE's time then goes into the bootstrap replicates. Rare
trees come at less cost from the search itself: IQ-TREE writes all trees whose likelihood it has computed, and
of those the good ones are added to a tenth of the replicates. With six taxa or fewer there is nothing to
look for: all topologies, at most 105, are the support.
"""

import gzip
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from vbpi_mix.alignment import Alignment, write_fasta
from vbpi_mix.errors import MissingProgramError, VbpiMixError
from vbpi_mix.likelihood.base import make_likelihood
from vbpi_mix.likelihood.models import jc69
from vbpi_mix.patterns import compress
from vbpi_mix.shapes import Topologies
from vbpi_mix.trees.enumeration import all_topologies
from vbpi_mix.trees.newick import newick_texts
from vbpi_mix.trees.samples import TreeDraws, TreeSample, read_tree_draws, read_tree_sample
from vbpi_mix.trees.topology import unique_topologies

PROGRAMS = ("iqtree3", "iqtree2", "iqtree")
"""Names under which IQ-TREE is looked for on the PATH, the preferred first."""

INSTALL_IQTREE = (
    "install IQ-TREE (Debian and Ubuntu: apt-get install iqtree; conda: conda install -c bioconda iqtree; "
    "others: iqtree.github.io)"
)
"""How to get IQ-TREE, for messages."""

NUM_TREES = 1_000
"""Bootstrap trees of one run; IQ-TREE makes no fewer."""

MAX_LOG_LIKELIHOOD_LOSS = 20.0
"""Nats that a tree found by the search may be below the best one to be added to the bootstrap trees."""

FOUND_WEIGHT = 0.1
"""Weight of such a tree, where a bootstrap tree has 1: as if it were one of 10,000 instead of 1,000."""

SITES_PER_THREAD = 2_000
"""Fewest sites that a thread of IQ-TREE is worth: its threads wait for each other after every likelihood."""

MIN_LENGTH = 1e-6
"""Least branch length, in expected substitutions per site, at which the trees are compared."""

MAX_SEARCHED_TAXA = 200
"""With more taxa only the bootstrap trees are used: the file of all trees grows with the square of it."""

MAX_ENUMERATED_TAXA = 6
"""Up to so many taxa every topology belongs to the support, and no program is needed."""


def find_iqtree() -> str:
    """Path of IQ-TREE 2 or 3.

    Raises:
        MissingProgramError: Neither is on the PATH; says how to install one.
    """
    for name in PROGRAMS:
        path = shutil.which(name)
        if path is not None and (name != "iqtree" or _is_recent(_version(path))):
            return path
    raise MissingProgramError(
        "the support of this alignment is built from bootstrap trees, and IQ-TREE 2 or 3 is not on the PATH; "
        f"{INSTALL_IQTREE}, or give a file of trees with --support"
    )


def has_iqtree() -> bool:
    """Whether IQ-TREE 2 or 3 is on the PATH."""
    try:
        find_iqtree()
    except MissingProgramError:
        return False
    return True


def bootstrap_trees(alignment: Alignment, seed: int, threads: int = 1, model: str = "JC") -> TreeSample:
    """Ultrafast-bootstrap trees of an alignment, made by IQ-TREE, which must be on the PATH.

    Args:
        alignment: At least four taxa, each with data.
        seed: Seed of IQ-TREE; the same seed, version and number of threads give the same trees.
        threads: Threads that IQ-TREE may use; it gets fewer where the alignment is short.
        model: Substitution model, as IQ-TREE names it. The trees of its search are compared under JC69.

    Returns:
        The distinct topologies: of the bootstrap trees, with how often each occurs, and of the search's good
        trees, with `FOUND_WEIGHT` added for each.

    Raises:
        MissingProgramError: IQ-TREE is not on the PATH.
        VbpiMixError: IQ-TREE failed; the message ends with what it said.
    """
    program = find_iqtree()
    # IQ-TREE changes unusual characters in names, so it gets numbers.
    numbers = tuple(f"t{i}" for i in range(alignment.num_taxa))
    numbered = Alignment(numbers, alignment.states, alignment.source)
    with tempfile.TemporaryDirectory(prefix="vbpi-mix-") as folder:
        prefix = Path(folder) / "bootstrap"
        write_fasta(numbered, prefix.with_suffix(".fasta"))
        command = [program, "-s", str(prefix.with_suffix(".fasta")), "-st", "DNA", "-m", model]
        threads = max(1, min(threads, alignment.num_sites // SITES_PER_THREAD))
        command += ["-B", str(NUM_TREES), "--wbt", "-seed", str(seed), "-T", str(threads)]
        if alignment.num_taxa <= MAX_SEARCHED_TAXA:
            command += ["--treels"]
        command += ["-keep-ident", "--prefix", str(prefix), "--quiet"]
        process = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        if process.returncode != 0:
            raise VbpiMixError(_failure(process, prefix.with_suffix(".log")))
        sample = read_tree_sample(prefix.with_suffix(".ufboot"), numbers)
        if alignment.num_taxa <= MAX_SEARCHED_TAXA:
            found = read_tree_draws(prefix.with_suffix(".treels"), numbers)
            sample = _with_found(sample, _good_topologies(found, numbered))
    source = f"{Path(program).name} {_version(program)} {' '.join(command[5:-3])}"
    return TreeSample(alignment.taxa, sample.children, sample.weights, source)


def _good_topologies(found: TreeDraws, alignment: Alignment) -> Topologies:
    """Distinct topologies of the trees within `MAX_LOG_LIKELIHOOD_LOSS` of the best one, as they stand."""
    assert found.branch_lengths is not None  # IQ-TREE writes them
    likelihood = make_likelihood(compress(alignment), jc69())
    log_likelihood = likelihood.value(found.children, np.maximum(found.branch_lengths, MIN_LENGTH))
    is_good = log_likelihood >= log_likelihood.max() - MAX_LOG_LIKELIHOOD_LOSS
    return unique_topologies(found.children[is_good])[0]


def _with_found(sample: TreeSample, found: Topologies) -> TreeSample:
    """A sample with `FOUND_WEIGHT` more for each of some distinct topologies, the heaviest first."""
    children, inverse, _ = unique_topologies(np.concatenate([sample.children, found]))
    added = np.full(len(found), FOUND_WEIGHT)
    weights = np.bincount(inverse, np.concatenate([sample.weights, added]), len(children))
    order = np.argsort(-weights, kind="stable")
    return TreeSample(sample.taxa, children[order], weights[order], sample.source)


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
    is_full = "Cannot write" in reason
    cure = "make room in the folder of temporary files (TMPDIR)" if is_full else "mend the alignment"
    return (
        f"IQ-TREE failed with exit status {process.returncode} while making bootstrap trees: {reason}; "
        f"{cure}, or give a file of trees with --support"
    )


def _version(program: str) -> str:
    """Version of IQ-TREE, as it tells itself."""
    process = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"version (\S+)", process.stdout)
    return found.group(1) if found else "of unknown version"


def _is_recent(version: str) -> bool:
    """Whether a version is 2 or later: earlier ones know other options."""
    major = version.partition(".")[0]
    return major.isdigit() and int(major) >= 2
