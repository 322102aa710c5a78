"""Makes the bundled data sets DS1..DS8: alignments, support trees and the manifest that describes both.

Usage::

    python data/build.py                  make what is missing, then write the manifest
    python data/build.py --only DS1 DS4   the same for some data sets
    python data/build.py --check          compare every bundled file with the manifest; exit 1 on a difference

Alignments come from Debian's package ``beast2-mcmc-examples`` (``apt-get install beast2-mcmc-examples``),
whose files ``testHKY<n>.nex.gz`` hold the TreeBASE matrices M<n>. Taxa are sorted by name and U is written as
T; gaps and missing symbols are kept.

Support trees are ultrafast bootstrap trees of IQ-TREE 2 (``apt-get install iqtree``), stored as their
distinct unrooted topologies with counts. Where one replicate of the bootstrap leaves out subsplits that
matter, further ones add the topologies that extend the support. A table that exists and is in the manifest is
left alone, and so are IQ-TREE's files in the work folder, so an interrupted build continues where it stopped.
The work folder can be deleted at any time.

With the same version of IQ-TREE on the same kind of processor, building twice gives identical bytes: one
thread, a recorded seed, no time stamps.
"""

import argparse
import gzip
import hashlib
import json
import logging
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vbpi_mix.alignment import read_alignment
from vbpi_mix.patterns import compress
from vbpi_mix.sbn.support import build_support
from vbpi_mix.trees.samples import read_tree_draws

DATA = Path(__file__).resolve().parent
MANIFEST = DATA / "manifest.json"
DEBIAN_FOLDER = Path("/usr/share/doc/beast2-mcmc/examples/benchmark/mrbayes")
WORK_FOLDER = DATA.parent / "build" / "data"
NUM_BOOTSTRAP_TREES = 10_000
NUM_REPLICATES = {"DS5": 10, "DS6": 10, "DS8": 10}
"""Replicates of the bootstrap, by data set; one elsewhere. Replicate r has the seed r."""
FASTA_WIDTH = 80

log = logging.getLogger("build")


@dataclass(frozen=True)
class Source:
    """Where a data set comes from.

    Attributes:
        matrix: Number of the TreeBASE matrix, without its ``M``.
        citation: The study, as the literature on Bayesian phylogenetic inference cites it.
        renamed: Taxa whose name in the matrix differs from the literature's.
    """

    matrix: int
    citation: str
    renamed: tuple[tuple[str, str], ...] = ()


SOURCES = {
    "DS1": Source(
        336,
        "Hedges SB, Moberg KD, Maxson LR (1990). Tetrapod phylogeny inferred from 18S and 28S ribosomal RNA "
        "sequences and a review of the evidence for amniote relationships. Mol Biol Evol 7:607-633.",
    ),
    "DS2": Source(
        501,
        "Garey JR, Near TJ, Nonnemacher MR, Nadler SA (1996). Molecular evidence for Acanthocephala as a "
        "subtaxon of Rotifera. J Mol Evol 43:287-292.",
    ),
    "DS3": Source(
        1510,
        "Yang Z, Yoder AD (2003). Comparison of likelihood and Bayesian methods for estimating divergence "
        "times using multiple gene loci and calibration points, with application to a radiation of "
        "cute-looking mouse lemur species. Syst Biol 52:705-716.",
    ),
    "DS4": Source(
        1366,
        "Henk DA, Weir A, Blackwell M (2003). Laboulbeniopsis termitarius, an ectoparasite of termites newly "
        "recognized as a member of the Laboulbeniomycetes. Mycologia 95:561-564.",
    ),
    "DS5": Source(
        3475,
        "Lakner C, van der Mark P, Huelsenbeck JP, Larget B, Ronquist F (2008). Efficiency of Markov chain "
        "Monte Carlo tree proposals in Bayesian phylogenetics. Syst Biol 57:86-103.",
    ),
    "DS6": Source(
        1044,
        "Zhang N, Blackwell M (2001). Molecular phylogeny of dogwood anthracnose fungus (Discula "
        "destructiva) and the Diaporthales. Mycologia 93:355-365.",
        renamed=(("Saccharomyces_cerevisiae_Z75578", "Saccharomyces_cerevisiae"),),
    ),
    "DS7": Source(
        1809,
        "Yoder AD, Yang Z (2004). Divergence dates for Malagasy lemurs estimated from multiple gene loci: "
        "geological and evolutionary context. Mol Ecol 13:757-773.",
    ),
    "DS8": Source(
        755,
        "Rossman AY, McKemy JM, Pardo-Schultheiss RA, Schroers H-J (2001). Molecular studies of the "
        "Bionectriaceae using large subunit rDNA sequences. Mycologia 93:100-110.",
    ),
}


def alignment_path(name: str) -> Path:
    """Path of a data set's alignment."""
    return DATA / "alignments" / f"{name}.fasta"


def support_path(name: str) -> Path:
    """Path of a data set's table of support trees."""
    return DATA / "support" / f"{name}.ufboot.tsv.gz"


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_matrix(path: Path) -> dict[str, str]:
    """Sequences by taxon of a sequential NEXUS matrix with one line a taxon."""
    text = gzip.decompress(path.read_bytes()).decode("ascii")
    match = re.search(r"ntax=(\d+)\s+nchar=(\d+);.*?\bmatrix\b(.*?);", text, re.DOTALL | re.IGNORECASE)
    if match is None:
        raise SystemExit(f"{path}: expected a NEXUS data block with ntax, nchar and a matrix")
    num_taxa, num_sites = int(match[1]), int(match[2])
    rows = dict(line.split() for line in match[3].splitlines() if line.strip())
    if len(rows) != num_taxa or any(len(sequence) != num_sites for sequence in rows.values()):
        raise SystemExit(f"{path}: expected {num_taxa} sequences of {num_sites} sites")
    return rows


def build_alignment(name: str, folder: Path) -> None:
    """Write a data set's alignment from the TreeBASE matrix in ``folder``."""
    source = SOURCES[name]
    matrix_path = folder / f"testHKY{source.matrix}.nex.gz"
    if not matrix_path.exists():
        raise SystemExit(
            f"{matrix_path} is missing: apt-get install beast2-mcmc-examples, or name its folder: --source"
        )
    names = dict(source.renamed)
    rows = {names.get(taxon, taxon): sequence for taxon, sequence in read_matrix(matrix_path).items()}
    lines = []
    for taxon in sorted(rows):
        sequence = rows[taxon].upper().replace("U", "T")
        lines.append(f">{taxon}")
        lines.extend(sequence[i : i + FASTA_WIDTH] for i in range(0, len(sequence), FASTA_WIDTH))
    path = alignment_path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(("\n".join(lines) + "\n").encode("ascii"))
    log.info("%s: wrote %s", name, path)


def iqtree_arguments(name: str, seed: int) -> list[str]:
    """Arguments of IQ-TREE that make a data set's bootstrap trees, run in the folder of its alignment."""
    arguments = f"-s {name}.fasta -m JC -B {NUM_BOOTSTRAP_TREES} --wbt -T 1 -seed {seed}"
    return shlex.split(arguments)


def parse_newick(newick: str, leaf_index: dict[str, int]) -> list:
    """Nested lists of leaf indices of a Newick tree; branch lengths and support values are dropped."""
    tokens = re.findall(r"[(),;]|[^(),;]+", newick.strip())
    stack: list[list] = [[]]
    previous = ""
    for token in tokens:
        if token == "(":
            stack.append([])
        elif token == ")":
            node = stack.pop()
            stack[-1].append(node)
        elif token not in ",;" and previous != ")":
            stack[-1].append(leaf_index[token.split(":")[0]])
        previous = token
    return stack[0][0]


def canonical_topology(newick: str, leaf_index: dict[str, int]) -> str:
    """Text of an unrooted binary topology that any two drawings of it share.

    The tree hangs from leaf 0, which is written first; the children of every node are ordered by their
    smallest leaf.
    """
    neighbours: list[list[int]] = [[] for _ in leaf_index]

    def join(node: int, other: int) -> None:
        neighbours[node].append(other)
        neighbours[other].append(node)

    def add(subtree: list | int) -> int:
        if isinstance(subtree, int):
            return subtree
        ends = [add(child) for child in subtree]
        neighbours.append([])
        for end in ends:
            join(len(neighbours) - 1, end)
        return len(neighbours) - 1

    tree = parse_newick(newick, leaf_index)
    if len(tree) == 2:  # a rooted drawing: its root is no node of the unrooted tree
        join(add(tree[0]), add(tree[1]))
    else:
        add(tree)
    num_taxa = len(leaf_index)
    degrees = [len(n) for n in neighbours]
    if degrees[:num_taxa] != [1] * num_taxa or degrees[num_taxa:] != [3] * (num_taxa - 2):
        raise SystemExit(f"not a binary tree of the {num_taxa} taxa: {newick}")

    def write(node: int, parent: int) -> tuple[int, str]:
        if node < num_taxa:
            return node, str(node)
        below = sorted(write(child, node) for child in neighbours[node] if child != parent)
        return below[0][0], "(" + ",".join(text for _, text in below) + ")"

    return "(0," + write(neighbours[0][0], 0)[1][1:] + ";"


def run_iqtree(name: str, seed: int, iqtree: str, folder: Path) -> Path:
    """Path of a data set's bootstrap trees in the work folder, made by IQ-TREE unless they are there."""
    folder = folder / f"seed{seed}"
    trees = folder / f"{name}.fasta.ufboot"
    if (folder / f"{name}.finished").exists():
        return trees
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(alignment_path(name), folder / f"{name}.fasta")
    command = [iqtree, *iqtree_arguments(name, seed), "-redo", "-quiet"]
    log.info("%s: %s (minutes)", name, shlex.join(command))
    subprocess.run(command, cwd=folder, check=True)
    (folder / f"{name}.finished").touch()
    return trees


def bootstrap_counts(trees_path: Path, taxa: list[str]) -> Counter[str]:
    """How often each topology occurs among IQ-TREE's bootstrap trees."""
    leaf_index = {taxon: index for index, taxon in enumerate(taxa)}
    newicks = Counter(trees_path.read_text(encoding="ascii").split())
    if newicks.total() != NUM_BOOTSTRAP_TREES:
        raise SystemExit(
            f"{trees_path}: expected {NUM_BOOTSTRAP_TREES} trees, found {newicks.total()}; "
            f"delete {trees_path.parent}"
        )
    counts: Counter[str] = Counter()
    for newick, count in newicks.items():
        counts[canonical_topology(newick, leaf_index)] += count
    return counts


def table_of(taxa: list[str], rows: list[tuple[int, int, str]]) -> bytes:
    """Table of (replicate, count, topology), gzipped."""
    lines = ["\t".join(["#taxa", *taxa]), "replicate\tcount\ttopology"]
    lines += ["\t".join(map(str, row)) for row in rows]
    return gzip.compress(("\n".join(lines) + "\n").encode("ascii"), 9, mtime=0)


def spanning_rows(taxa: list[str], replicates: list[Counter[str]]) -> list[tuple[int, int, str]]:
    """Rows (replicate, count, topology) that span the support of all replicates.

    All topologies of the first replicate, the most frequent first; then, replicate after replicate, those
    with a parent-child subsplit pair that no row before has.
    """
    first, seen = len(replicates[0]), set()
    rows = []
    for number, counts in enumerate(replicates, 1):
        for topology, count in sorted(counts.items(), key=lambda kv: (-kv[1], kv[0])):
            if topology not in seen:
                seen.add(topology)
                rows.append((number, count, topology))
    if len(rows) == first:
        return rows
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "all.tsv.gz"
        path.write_bytes(table_of(taxa, rows))
        children = read_tree_draws(path).children
    index = build_support(children, tuple(sorted(taxa))).index(children, with_psp=False)
    parameters = index.parameter_index.reshape(len(rows), -1)
    is_held = np.zeros(parameters.max() + 1, bool)
    is_held[parameters[:first]] = True
    kept = rows[:first]
    for row, own in zip(rows[first:], parameters[first:], strict=True):
        if not is_held[own].all():
            is_held[own] = True
            kept.append(row)
    return kept


def write_support(name: str, replicates: list[Counter[str]]) -> None:
    """Write a data set's table of support trees from the topologies and counts of every replicate."""
    rows = spanning_rows(read_taxa(name), replicates)
    path = support_path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(table_of(read_taxa(name), rows))
    log.info("%s: wrote %s, %d distinct topologies", name, path, len(rows))


def read_taxa(name: str) -> list[str]:
    """Names of a data set's taxa, in the order of its alignment."""
    fasta = alignment_path(name).read_text(encoding="ascii")
    return [line[1:] for line in fasta.splitlines() if line.startswith(">")]


def iqtree_version(iqtree: str) -> str:
    """Name and version of an IQ-TREE program."""
    output = subprocess.run([iqtree, "--version"], check=True, capture_output=True, text=True).stdout
    match = re.search(r"IQ-TREE .*?version (\S+)", output)
    if match is None:
        raise SystemExit(f"{iqtree}: expected IQ-TREE, its --version says {output[:80]!r}")
    return f"IQ-TREE {match[1]}"


def read_manifest() -> dict[str, dict]:
    """Entries of the manifest by data set; empty where there is no manifest yet."""
    return json.loads(MANIFEST.read_text(encoding="utf-8"))["datasets"] if MANIFEST.exists() else {}


def write_manifest(entries: dict[str, dict]) -> None:
    """Write the manifest, its data sets in the order of their numbers."""
    content = {"datasets": {name: entries[name] for name in SOURCES if name in entries}}
    MANIFEST.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def describe(name: str, program: str) -> dict:
    """Entry of the manifest about a data set's files."""
    alignment = read_alignment(alignment_path(name))
    lines = gzip.decompress(support_path(name).read_bytes()).decode("ascii").splitlines()[2:]
    return {
        "treebase_id": f"M{SOURCES[name].matrix}",
        "citation": SOURCES[name].citation,
        "alignment": {
            "file": alignment_path(name).relative_to(DATA).as_posix(),
            "sha256": sha256(alignment_path(name)),
            "taxa": alignment.num_taxa,
            "sites": alignment.num_sites,
            "patterns": compress(alignment).num_patterns,
        },
        "support": {
            "file": support_path(name).relative_to(DATA).as_posix(),
            "sha256": sha256(support_path(name)),
            "trees": sum(int(line.split("\t")[1]) for line in lines),
            "topologies": len(lines),
            "program": program,
            "command": shlex.join(["iqtree2", *iqtree_arguments(name, 1)]),
            "seed": 1,
            "replicates": NUM_REPLICATES.get(name, 1),
        },
    }


def build(name: str, source: Path, iqtree: str, work: Path) -> None:
    """Make a data set's alignment and, unless the manifest has one that fits, its support; record both."""
    build_alignment(name, source)
    entries = read_manifest()
    recorded = entries.get(name)
    is_current = (
        recorded is not None
        and support_path(name).exists()
        and recorded["support"]["sha256"] == sha256(support_path(name))
        and recorded["alignment"]["sha256"] == sha256(alignment_path(name))
    )
    if is_current:
        program = recorded["support"]["program"]
    else:
        program = iqtree_version(iqtree)
        seeds = range(1, NUM_REPLICATES.get(name, 1) + 1)
        taxa = read_taxa(name)
        write_support(name, [bootstrap_counts(run_iqtree(name, seed, iqtree, work), taxa) for seed in seeds])
    write_manifest(entries | {name: describe(name, program)})


def check(names: list[str]) -> int:
    """Number of bundled files that are missing or are not what the manifest says."""
    entries = read_manifest()
    num_wrong = 0
    for name in names:
        for part in ("alignment", "support"):
            recorded = entries.get(name, {}).get(part)
            if recorded is None:
                log.error("%s: the manifest has no %s", name, part)
            elif not (DATA / recorded["file"]).exists():
                log.error("%s: missing", recorded["file"])
            elif sha256(DATA / recorded["file"]) != recorded["sha256"]:
                log.error("%s: expected SHA-256 %s", recorded["file"], recorded["sha256"])
            else:
                log.info("%s: as recorded", recorded["file"])
                continue
            num_wrong += 1
    return num_wrong


def main() -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Make or check the bundled data sets DS1..DS8.")
    parser.add_argument(
        "--only", nargs="+", choices=list(SOURCES), default=list(SOURCES), help="these data sets"
    )
    parser.add_argument(
        "--check", action="store_true", help="compare the files with the manifest and make nothing"
    )
    parser.add_argument("--source", type=Path, default=DEBIAN_FOLDER, help="folder of testHKY<n>.nex.gz")
    parser.add_argument("--work", type=Path, default=WORK_FOLDER, help="folder for IQ-TREE's files")
    parser.add_argument("--iqtree", default="iqtree2", help="IQ-TREE program")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if options.check:
        return 1 if check(options.only) else 0
    for name in options.only:
        build(name, options.source, options.iqtree, options.work)
    return 0


if __name__ == "__main__":
    sys.exit(main())
