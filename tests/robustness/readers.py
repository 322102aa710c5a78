"""All readers of files, with whole files to begin with, and what must hold of whatever they return."""

import gzip
import io
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from Bio import AlignIO
from Bio.Align import MultipleSeqAlignment
from Bio.Seq import Seq
from Bio.SeqRecord import SeqRecord

from vbpi_mix import _cli_run, cli
from vbpi_mix._cli_config import read_config, resolve_config
from vbpi_mix._cli_settings import read_command
from vbpi_mix._nucleotides import SYMBOLS
from vbpi_mix.alignment import Alignment, read_alignment, write_fasta
from vbpi_mix.datasets import load_dataset
from vbpi_mix.errors import TreeFormatError
from vbpi_mix.patterns import compress
from vbpi_mix.report.page import page
from vbpi_mix.report.references import compare_with
from vbpi_mix.results.finished_run import FinishedRuns
from vbpi_mix.results.result import read_result
from vbpi_mix.results.run_directory import RunDirectory
from vbpi_mix.sbn.support import build_support
from vbpi_mix.training.checkpoint import Checkpoint
from vbpi_mix.trees.enumeration import all_topologies
from vbpi_mix.trees.newick import newick_texts, quoted
from vbpi_mix.trees.nexus import write_tree_samples, write_trprobs
from vbpi_mix.trees.samples import read_tree_draws, read_tree_sample
from vbpi_mix.trees.summaries import split_table
from vbpi_mix.trees.topology import canonicalise, validate

TAXA = ("A", "b_c", "D 'e'", "f|g-h", "猫", "last.one")
FORMATS = ("fasta", "phylip", "phylip-sequential", "phylip-relaxed", "nexus", "clustal")


@dataclass(frozen=True)
class Reader:
    """A reader and files that it reads.

    Attributes:
        files: Contents of whole files.
        read: Reads a file that has been put at a path; raises a VbpiMixError, or checks what it returns.
        path: Where to put the file.
    """

    files: tuple[bytes, ...]
    read: Callable[[Path], None]
    path: Path


def part_of_ds1(names: tuple[str, ...] = TAXA, num_sites: int = 150) -> Alignment:
    """Six taxa and some sites of DS1, under other names."""
    whole = load_dataset("DS1")
    return Alignment(names, whole.states[[0, 5, 9, 14, 19, 24], 400 : 400 + num_sites], "part of DS1")


def alignment_files(folder: Path) -> tuple[bytes, ...]:
    """An alignment in every format that can be read, plain and gzipped."""
    small = part_of_ds1(tuple(f"taxon_{i}" for i in range(6)), 90)
    records = [
        SeqRecord(Seq("".join(SYMBOLS[s] for s in row)), name, annotations={"molecule_type": "DNA"})
        for name, row in zip(small.taxa, small.states.tolist(), strict=True)
    ]
    texts = []
    for name in FORMATS:
        file = io.StringIO()
        AlignIO.write(MultipleSeqAlignment(records), file, name)
        texts.append(file.getvalue().encode())
    write_fasta(part_of_ds1(), folder / "own.fasta")
    texts.append((folder / "own.fasta").read_bytes())
    return (*texts, *(gzip.compress(text, mtime=0) for text in texts[:2]))


MRBAYES = """#NEXUS
[ID: 0123456789]
begin trees;
   translate
      1 A, 2 b_c, 3 D_e, 4 f|g-h, 5 last.one, 6 x;
   tree rep.1 = [&U] ((2:1.5e-02,3:2e-2):1e-3,(4:0.1,(5:0.2,6:0.1):0.1):0.3,1:0.05);
   tree rep.1000 = [&U] ((2:1.5e-02,4:2e-2):1e-3,(3:0.1,(5:0.2,6:0.1):0.1):0.3,1:0.05);
   tree rep.2000 = [&U] ((2:1.5e-02,3:2e-2):1e-3,(4:0.1,(5:0.2,6:0.1):0.1):0.3,1:0.05);
end;
"""

BEAST = """#NEXUS
Begin taxa;
\tDimensions ntax=4;
\tTaxlabels 'human' chimp_x gorilla orang;
End;
Begin trees;
\tTranslate 1 'human', 2 'chimp_x', 3 gorilla, 4 orang;
tree STATE_0 [&lnP=-12.5,posterior=-1] = [&R] (((1:0.5[&rate=1.0],2:0.5)[&height=0.5]:0.1,3:0.6):1.0,4:1.6);
tree STATE_10 [&lnP=-12.0] = [&R] (((1:0.5,3:0.5)[&height_range={0.1,0.9}]:0.1,2:0.6):1.0,4:1.6);
End;
"""

NEWICK = (
    "((a:1,'b c':2.5e-1)x:3,(c_d:4 [hi],(e:1,f:1):2):1);\n((c_d,e),(a,('b c',f)));\n"
    "(a,b_c,(c_d,(e,f)0.95:0.1)100);\n"
)

PROBABILITIES = (
    "probability\ttopology\n0.75\t((a,b),c,(d,e));\n0.2\t((a,c),b,(d,e));\n0.05\t(((a,c),b),(d,e))\n"
)


def tree_files() -> tuple[bytes, ...]:
    """Trees in every format that can be read, plain and gzipped."""
    chance = np.random.default_rng(0)
    children = all_topologies(6)[chance.integers(0, 105, 10)]
    lengths = chance.exponential(0.1, (10, 9))
    names = [quoted(name) for name in TAXA]
    table = ["#taxa\t" + "\t".join(TAXA), "replicate\tcount\ttopology"]
    numbers = [str(i) for i in range(6)]
    table += [f"{i % 3}\t{i + 1}\t{text}" for i, text in enumerate(newick_texts(children, None, numbers))]
    texts = [
        *("\n".join(newick_texts(children, kept, names)) + "\n" for kept in (lengths, None)),
        write_tree_samples(TAXA, children, lengths),
        write_trprobs(
            TAXA, np.unique(children, axis=0), chance.dirichlet(np.ones(len(np.unique(children, axis=0))))
        ),
        "\n".join(table) + "\n",
        *(MRBAYES, BEAST, NEWICK, PROBABILITIES),
    ]
    contents = [text.encode() for text in texts]
    return (*contents, *(gzip.compress(content, mtime=0) for content in contents[:3]))


def check_alignment(path: Path) -> None:
    alignment = read_alignment(path)
    assert alignment.num_taxa >= 4
    assert len(set(alignment.taxa)) == alignment.num_taxa
    assert alignment.states.shape == (alignment.num_taxa, alignment.num_sites)
    assert alignment.num_sites >= 1
    assert alignment.states.min() >= 1
    assert alignment.states.max() <= 15
    assert compress(alignment).weights.sum() == alignment.num_sites


def check_trees(path: Path) -> None:
    sample = read_tree_sample(path)
    validate(sample.children)
    assert len(sample.children) > 0
    assert np.isfinite(sample.weights).all()
    assert np.isfinite(sample.weights.sum())
    assert sample.weights.min() > 0
    for name in sample.taxa:
        name.encode()
    assert build_support(sample.children, sample.taxa).num_parameters > 0
    try:
        draws = read_tree_draws(path, sample.taxa)
    except TreeFormatError:  # lengths that are on some branches only
        return
    assert len(draws.children) >= len(sample.children)
    np.testing.assert_array_equal(canonicalise(draws.children), draws.children)
    if draws.branch_lengths is not None:
        assert np.isfinite(draws.branch_lengths).all()


def check_reference(path: Path) -> None:
    topologies = all_topologies(6)
    log_probabilities = np.full(105, -np.log(105))
    found = compare_with([path], None, TAXA, split_table(topologies), topologies, log_probabilities)
    assert 0 <= found.to_run.total_variation <= 1
    assert 0 <= found.coverage <= 1


def finish_run(folder: Path) -> RunDirectory:
    """A short finished run of two components and a model to estimate."""
    write_fasta(part_of_ds1(), folder / "data.fasta")
    arguments = ["run", folder / "data.fasta", "--out", folder / "run", "--runs", 1, "--components", 2]
    arguments += ["--model", "HKY+FO", "--iterations", 20, "--log-every", 5, "--repeats", 2, "--samples", 60]
    arguments += ["--posterior-samples", 20, "--no-grow-support", "--quiet", "--json", "--no-report"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["vbpi-mix", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_info:
            cli.main()
    assert exit_info.value.code in (None, 0)
    return RunDirectory(folder / "run")


def make_readers(folder: Path) -> dict[str, Reader]:
    """All readers, by name.

    Args:
        folder: Where to put what they read.
    """
    whole = finish_run(folder)
    shutil.copytree(whole.path, folder / "damaged")
    damaged = RunDirectory(folder / "damaged")

    def of_run(path: Path, read: Callable[[Path], object]) -> Reader:
        def read_and_restore(damaged_path: Path) -> None:
            try:
                read(damaged_path)
            finally:
                shutil.copy(whole.path / damaged_path.name, damaged_path)

        return Reader((path.read_bytes(),), read_and_restore, damaged.path / path.name)

    def check_config(path: Path) -> None:
        config = read_config(path)
        read_command(path)
        # A file that somebody gives may be incomplete, and what it lacks may follow from what it has.
        assert resolve_config({}, file=path).data == config.data

    original = Checkpoint.load(whole.checkpoint)

    def check_checkpoint(path: Path) -> None:
        found = Checkpoint.load(path)
        assert found.config == original.config
        for name, array in found.state.arrays().items():
            np.testing.assert_array_equal(array, original.state.arrays()[name])

    def check_final(path: Path) -> None:
        FinishedRuns.open(damaged)

    def check_metrics(path: Path) -> None:
        _cli_run._forget_after(damaged, 10)
        _cli_run._ms_per_iteration(damaged, original)
        _cli_run.bound_rise(_cli_run.metrics_of(damaged))
        page(damaged)

    def check_page(path: Path) -> None:
        page(damaged)

    return {
        "alignment": Reader(alignment_files(folder), check_alignment, folder / "alignment"),
        "trees": Reader(tree_files(), check_trees, folder / "trees"),
        "reference": Reader(tree_files()[:5], check_reference, folder / "reference.t"),
        "config": of_run(whole.config, check_config),
        "result": of_run(whole.result, lambda path: (read_result(path), page(damaged))),
        "checkpoint": of_run(whole.checkpoint, check_checkpoint),
        "final": of_run(whole.final_posterior, check_final),
        "metrics": of_run(whole.metrics, check_metrics),
        **{
            path.name: of_run(path, check_page)
            for path in (
                whole.splits,
                whole.credible_sets,
                whole.run_parameters(1),
                whole.ccd_map,
            )
        },
    }
