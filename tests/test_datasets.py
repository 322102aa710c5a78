"""The bundled data are what the literature uses, what the manifest says, and what the build script makes."""

import gzip
import hashlib
import importlib.util
import json
import logging
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vbpi_mix.alignment import read_alignment
from vbpi_mix.datasets import dataset_info, dataset_names, load_dataset
from vbpi_mix.errors import AlignmentError
from vbpi_mix.patterns import compress
from vbpi_mix.sbn.support import build_support
from vbpi_mix.trees.samples import read_tree_sample

DATA = Path(__file__).resolve().parent.parent / "data"
NAMES = tuple(f"DS{i}" for i in range(1, 9))

# Taxa, sites and patterns as in the literature; patterns up to relabelling as counted by brute force.
FIGURES = {
    "DS1": (27, 1949, 934, 753),
    "DS2": (29, 2520, 1246, 1034),
    "DS3": (36, 1812, 1020, 936),
    "DS4": (41, 1137, 768, 622),
    "DS5": (50, 378, 256, 232),
    "DS6": (50, 1133, 489, 368),
    "DS7": (59, 1824, 1037, 953),
    "DS8": (64, 1008, 406, 329),
}


@pytest.fixture(scope="module")
def build():
    """The build script as a module."""
    spec = importlib.util.spec_from_file_location("data_build", DATA / "build.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["data_build"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def build_in(build, tmp_path, monkeypatch):
    """The build script, writing below a temporary folder."""
    monkeypatch.setattr(build, "DATA", tmp_path)
    monkeypatch.setattr(build, "MANIFEST", tmp_path / "manifest.json")
    return build


def _support_table(path: Path) -> tuple[list[str], list[tuple[int, int, str]]]:
    """Taxa, and rows of replicate, count and topology, of a support table."""
    first, header, *lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    assert header == "replicate\tcount\ttopology"
    marker, *taxa = first.split("\t")
    assert marker == "#taxa"
    rows = [line.split("\t") for line in lines]
    return taxa, [(int(replicate), int(count), topology) for replicate, count, topology in rows]


def test_names():
    assert dataset_names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_figures_of_the_literature(name):
    alignment, info = load_dataset(name), dataset_info(name)
    patterns = compress(alignment)
    merged = patterns.merge_relabelled()
    figures = (alignment.num_taxa, alignment.num_sites, patterns.num_patterns, merged.num_patterns)
    assert figures == FIGURES[name]
    assert (info.num_taxa, info.num_sites, info.num_patterns) == FIGURES[name][:3]
    assert list(alignment.taxa) == sorted(alignment.taxa)
    assert merged.num_sites == alignment.num_sites


@pytest.mark.parametrize("name", NAMES)
def test_files_are_as_recorded(name):
    info = dataset_info(name)
    assert hashlib.sha256(info.alignment_path.read_bytes()).hexdigest() == info.alignment_sha256
    assert hashlib.sha256(info.support_path.read_bytes()).hexdigest() == info.support_sha256


@pytest.mark.parametrize("name", NAMES)
def test_support_tables_hold_distinct_binary_topologies_of_the_taxa(name):
    info = dataset_info(name)
    taxa, rows = _support_table(info.support_path)
    assert tuple(taxa) == load_dataset(name).taxa
    assert rows == sorted(rows, key=lambda row: (row[0], -row[1], row[2]))
    assert sum(count for _, count, _ in rows) == info.num_support_trees
    assert sum(count for replicate, count, _ in rows if replicate == 1) == 10_000
    assert len({topology for _, _, topology in rows}) == len(rows) == info.num_support_topologies
    assert {replicate for replicate, _, _ in rows} == set(range(1, info.num_support_replicates + 1))
    for _, _, topology in rows:
        # n leaves, and n - 2 internal nodes: binary if the top node has three children and the others two
        assert sorted(map(int, re.findall(r"\d+", topology))) == list(range(info.num_taxa))
        assert topology.count("(") == topology.count(")") == info.num_taxa - 2


def test_info_of_a_dataset():
    info = dataset_info("ds6")
    assert (info.name, info.treebase_id, info.support_seed) == ("DS6", "M1044", 1)
    assert info.num_support_replicates == 10
    assert info.citation.startswith("Zhang N, Blackwell M (2001)")
    assert info.support_command == "iqtree2 -s DS6.fasta -m JC -B 10000 --wbt -T 1 -seed 1"
    assert info.support_program == "IQ-TREE 2.0.7"
    assert "Saccharomyces_cerevisiae" in load_dataset("Ds6").taxa


@pytest.mark.parametrize("name", ["DS9", "", "DS", "primates"])
def test_unknown_names_list_the_known_ones(name):
    with pytest.raises(AlignmentError, match=rf"one of DS1, .*DS8; came '{name}'"):
        load_dataset(name)


def test_the_files_of_a_dataset_are_in_the_alphabet_written():
    text = "".join(dataset_info(name).alignment_path.read_text() for name in NAMES)
    sequences = "".join(line for line in text.splitlines() if not line.startswith(">"))
    assert set(sequences) == set("ACGTN-?")


@pytest.mark.reference
@pytest.mark.parametrize("name", NAMES)
def test_taxa_and_topologies_are_those_of_the_reference_bootstrap(name, require_reference):
    taxa, rows = _support_table(require_reference(f"ufboot/{name}.tsv.gz"))
    assert tuple(taxa) == load_dataset(name).taxa
    reference = {(replicate, topology): count for replicate, count, topology in rows}
    ours = _support_table(dataset_info(name).support_path)[1]
    # Same program, version and seeds; the first replicate is there in full.
    assert all(reference[replicate, topology] == count for replicate, count, topology in ours)
    assert {row for row in ours if row[0] == 1} == {row for row in rows if row[0] == 1}


@pytest.mark.reference
def test_a_support_table_spans_the_support_of_all_replicates(require_reference):
    path = require_reference("ufboot/DS6.tsv.gz")
    everything, ours = read_tree_sample(path), read_tree_sample(dataset_info("DS6").support_path)
    supports = [build_support(sample.children, sample.taxa) for sample in (everything, ours)]
    assert supports[0].num_parameters == supports[1].num_parameters
    assert len(ours.children) < 0.25 * len(everything.children)


@pytest.mark.reference
@pytest.mark.parametrize("name", NAMES[:4])
def test_taxa_are_those_of_the_golden_posterior(name, require_reference):
    lines = gzip.decompress(require_reference(f"golden/{name}.tsv.gz").read_bytes()).decode().splitlines()
    newick = lines[1].split("\t")[1]
    assert sorted(re.findall(r"[^(),;]+", newick)) == list(load_dataset(name).taxa)


@pytest.mark.reference
@pytest.mark.parametrize("name", NAMES[4:])
def test_taxa_hold_those_of_the_reference_splits(name, require_reference):
    lines = (
        gzip.decompress(require_reference(f"mrbayes/{name}.splits.tsv.gz").read_bytes()).decode().splitlines()
    )
    taxa = {taxon for line in lines[1:] for taxon in line.split("\t")[2].split(",")}
    assert len(taxa) > len(load_dataset(name).taxa) / 2
    assert taxa <= set(load_dataset(name).taxa)


INSTALLED = """
import vbpi_mix.datasets as datasets
info = datasets.dataset_info("DS5")
print(info.alignment_path, info.support_path.is_file(), datasets.load_dataset("DS5").num_sites)
"""


def _run_copy(folder: Path) -> subprocess.CompletedProcess:
    """Result of the program `INSTALLED` on a copy of the package in ``folder``."""
    command = [sys.executable, "-c", INSTALLED]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)


def test_an_installed_copy_has_its_data_inside(tmp_path):
    """The layout of the wheel, as pyproject.toml describes it."""
    ignored = shutil.ignore_patterns("__pycache__", "_data")
    shutil.copytree(DATA.parent / "vbpi_mix", tmp_path / "vbpi_mix", ignore=ignored)
    without_data = _run_copy(tmp_path)
    assert "they are missing; install the package again" in without_data.stderr
    for source in ("alignments", "support"):
        shutil.copytree(DATA / source, tmp_path / "vbpi_mix" / "_data" / source)
    shutil.copy(DATA / "manifest.json", tmp_path / "vbpi_mix" / "_data")
    with_data = _run_copy(tmp_path)
    path = tmp_path / "vbpi_mix" / "_data" / "alignments" / "DS5.fasta"
    assert with_data.stdout.split() == [str(path), "True", "378"], with_data.stderr


# The build script


def test_check_accepts_the_bundled_files_and_finds_changed_ones(build_in, tmp_path, caplog):
    shutil.copytree(DATA / "alignments", tmp_path / "alignments")
    shutil.copytree(DATA / "support", tmp_path / "support")
    shutil.copy(DATA / "manifest.json", tmp_path)
    assert build_in.check(list(NAMES)) == 0
    (tmp_path / "support" / "DS2.ufboot.tsv.gz").unlink()
    with (tmp_path / "alignments" / "DS3.fasta").open("a") as file:
        file.write("A\n")
    with caplog.at_level(logging.ERROR):
        assert build_in.check(list(NAMES)) == 2
    assert "support/DS2.ufboot.tsv.gz: missing" in caplog.text
    assert "alignments/DS3.fasta: expected SHA-256" in caplog.text


def test_check_runs_from_the_command_line():
    command = [sys.executable, str(DATA / "build.py"), "--check", "--only", "DS5"]
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    assert finished.stderr.count("as recorded") == 2


SOURCE = """#NEXUS
begin data;
\tdimensions ntax=6 nchar=100;
\tformat datatype=dna missing=? gap=-;
\tmatrix
{rows}
;
end;
"""


@pytest.fixture
def source(build_in, tmp_path):
    """Folder of a made-up matrix in the place of DS6's."""
    generator = np.random.default_rng(5)
    ancestor = generator.integers(0, 4, 100)
    names = ["zebra", "Saccharomyces_cerevisiae_Z75578", "ant", "Bee", "cow", "dog"]
    rows = []
    for name in names:
        sequence = np.where(generator.random(100) < 0.3, generator.integers(0, 4, 100), ancestor)
        rows.append(f"\t{name}\t" + "".join("acgu"[state] for state in sequence[:-2]) + "-?")
    with gzip.open(tmp_path / "testHKY1044.nex.gz", "wt") as file:
        file.write(SOURCE.format(rows="\n".join(rows)))
    return tmp_path


def test_alignments_are_sorted_renamed_and_in_dna(build_in, source):
    build_in.build_alignment("DS6", source)
    path = source / "alignments" / "DS6.fasta"
    assert set("".join(path.read_text().splitlines()[1::3])) <= set("ACGT")
    assert path.read_text().count("-?\n") == 6
    ours, theirs = read_alignment(path), read_alignment(source / "testHKY1044.nex.gz")
    assert ours.taxa == ("Bee", "Saccharomyces_cerevisiae", "ant", "cow", "dog", "zebra")
    order = [3, 1, 2, 4, 5, 0]
    np.testing.assert_array_equal(ours.states, theirs.states[order])


@pytest.mark.iqtree
def test_building_twice_gives_the_same_bytes(build_in, source, require_program, monkeypatch):
    monkeypatch.setattr(build_in, "NUM_BOOTSTRAP_TREES", 1000)
    monkeypatch.setattr(build_in, "NUM_REPLICATES", {"DS6": 2})
    contents = []
    for work in ("first", "second"):
        for folder in ("alignments", "support"):
            shutil.rmtree(source / folder, ignore_errors=True)
        (source / "manifest.json").unlink(missing_ok=True)
        build_in.build("DS6", source, require_program("iqtree2", "iqtree"), source / work)
        files = [
            source / "alignments/DS6.fasta",
            source / "support/DS6.ufboot.tsv.gz",
            source / "manifest.json",
        ]
        contents.append([file.read_bytes() for file in files])
    assert contents[0] == contents[1]
    entry = json.loads(contents[0][2])["datasets"]["DS6"]
    assert (entry["alignment"]["taxa"], entry["support"]["replicates"]) == (6, 2)
    table = source / "support/DS6.ufboot.tsv.gz"
    assert sum(count for replicate, count, _ in _support_table(table)[1] if replicate == 1) == 1000
    modified = table.stat().st_mtime_ns
    build_in.build(
        "DS6", source, "no-such-program", source / "third"
    )  # the table fits the manifest: nothing to do
    assert table.stat().st_mtime_ns == modified


@pytest.mark.parametrize(
    "newick",
    [
        "(a,(b,c),(d,e));",
        "((c,b),(e,d),a);",
        "((e,d)90/0.9:0.1,((b:1,c:2)x:0.2,a:1e-05):3)root;",
        "(b,c,(a,(e,d)));",
        "(d,(e,(a,(b,c))));",
    ],
)
def test_drawings_of_one_topology_have_one_text(build, newick):
    index = {name: i for i, name in enumerate("abcde")}
    assert build.canonical_topology(newick, index) == "(0,(1,2),(3,4));"


def test_another_topology_has_another_text(build):
    index = {name: i for i, name in enumerate("abcde")}
    assert build.canonical_topology("((a,e),(b,c),d);", index) == "(0,((1,2),3),4);"


@pytest.mark.parametrize("newick", ["(a,b,c,(d,e));", "(a,(b,c));", "(a,(b,c,d,e));"])
def test_trees_that_are_not_binary_or_lack_taxa_are_refused(build, newick):
    with pytest.raises(SystemExit, match="not a binary tree of the 5 taxa"):
        build.canonical_topology(newick, {name: i for i, name in enumerate("abcde")})
