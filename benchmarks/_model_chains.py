"""MrBayes' posteriors under models that are estimated: how its chains are run, and what is kept of them.

Priors are those that both programs have by default: Dirichlet(1, ...) on exchangeabilities and on estimated
frequencies (Beta(1, 1) on kappa / (1 + kappa)), Exponential(1) on the gamma shape, Uniform(0, 1) on the
probability of invariable sites, Exponential(10) on branch lengths. Empirical frequencies are given to MrBayes
as the numbers that ``vbpi-mix`` takes: its own ``fixed(empirical)`` counts missing data as a quarter of each
nucleotide, where ``vbpi-mix`` leaves them out.
"""

import fcntl
import itertools
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _mrbayes as mrbayes
import numpy as np
from _splits import LISTED_FROM, split_names

from vbpi_mix._nucleotides import SYMBOLS
from vbpi_mix.alignment import Alignment, read_alignment
from vbpi_mix.likelihood.model_names import ModelSpec, parse_model
from vbpi_mix.likelihood.model_parameters import empirical_frequencies
from vbpi_mix.patterns import compress
from vbpi_mix.results.convergence import average_standard_deviation
from vbpi_mix.trees.samples import TreeDraws, read_tree_draws
from vbpi_mix.trees.summaries import SplitTable, highest_density_interval, split_table
from vbpi_mix.trees.topology import unique_topologies

NUM_RUNS = 2
SEED = 1
BURN_IN = 0.25
CHECKPOINT_EVERY = 50_000
KEPT_FROM = 0.002
"""Least probability of the splits and topologies that are kept."""

PRIMATES = Path("/usr/share/doc/mrbayes/examples/primates.nex")
WOODMOUSE = "library(ape); data(woodmouse); write.dna(woodmouse, '{}', format = 'fasta')"
DATASETS = Path(__file__).resolve().parent.parent / "data" / "alignments"

EXCHANGEABILITIES = {
    "JC": ("nst=1", ()),
    "F81": ("nst=1", ()),
    "K80": ("nst=2", ("tratiopr=beta(1.0,1.0)",)),
    "HKY": ("nst=2", ("tratiopr=beta(1.0,1.0)",)),
    "SYM": ("nst=6", ("revmatpr=dirichlet(1,1,1,1,1,1)",)),
    "GTR": ("nst=6", ("revmatpr=dirichlet(1,1,1,1,1,1)",)),
}
"""Options of MrBayes' lset and prset for each family."""

PROPOSALS = {"revmatpr=dirichlet": ("Revmat", 4), "statefreqpr=dirichlet": ("Pi", 2)}
"""Parameter, and weight of each of its two kinds of moves, by what of prset has it sampled. The default is 1:
one move in a hundred, so that samples of the parameter depend on each other over thousands of generations."""


@dataclass(frozen=True)
class Analysis:
    """What MrBayes samples.

    Attributes:
        data: Name of an alignment: see `alignment_path`.
        model: Name of the model, as `vbpi-mix run` takes it.
        generations: Of every run; all its chains make as many.
        num_chains: Chains of each run, one of them cold.
        sample_every: Generations between samples.
    """

    data: str
    model: str
    generations: int
    num_chains: int
    sample_every: int

    @property
    def name(self) -> str:
        """Stem of its files."""
        return f"{self.data}.{self.model}"


ANALYSES = {
    one.name: one
    for one in (
        Analysis("primates", "GTR+F+G4", 1_200_000, 1, 200),
        Analysis("primates", "GTR+FO+G4", 800_000, 1, 100),
        Analysis("primates", "HKY+FO", 800_000, 1, 100),
        Analysis("woodmouse", "GTR+F+G4", 7_000_000, 1, 500),
        Analysis("DS2", "HKY+F", 600_000, 2, 50),
    )
}
"""Analyses by name: chains of these agree within minutes of a core."""


def alignment_path(data: str, work: Path) -> Path:
    """File of an alignment, made where it is R's.

    Args:
        data: ``primates`` of MrBayes' examples, ``woodmouse`` of R's package ape, or a bundled data set.
        work: Folder for files that are made.
    """
    match data:
        case "primates":
            return PRIMATES
        case "woodmouse":
            path = work / "woodmouse.fasta"
            if not path.exists():
                work.mkdir(parents=True, exist_ok=True)
                subprocess.run(["Rscript", "-e", WOODMOUSE.format(path)], check=True)
            return path
        case _:
            return DATASETS / f"{data}.fasta"


def model_commands(spec: ModelSpec, empirical: np.ndarray) -> list[str]:
    """Commands of MrBayes for a model of ours.

    Args:
        spec: The model.
        empirical: Empirical frequencies of A, C, G, T in the data.

    Raises:
        SystemExit: MrBayes has no such model, or does not estimate what it estimates.
    """
    if spec.family not in EXCHANGEABILITIES or spec.exchangeabilities not in (None, (1.0,) * 6):
        raise SystemExit(f"{spec.name}: expected a model that MrBayes has and estimates, such as GTR+F+G4")
    if spec.shape is not None or spec.invariable is not None:
        raise SystemExit(f"{spec.name}: expected nothing in braces but frequencies")
    lset, priors = EXCHANGEABILITIES[spec.family]
    rates = {(1, False): "equal", (1, True): "propinv"}.get(
        (spec.num_categories, spec.has_invariable), "invgamma" if spec.has_invariable else "gamma"
    )
    match spec.frequencies:
        case "equal":
            frequencies = "fixed(equal)"
        case "estimated":
            frequencies = "dirichlet(1,1,1,1)"
        case given:
            values = empirical if given == "empirical" else given
            frequencies = f"fixed({','.join(f'{value:.8f}' for value in values)})"
    priors = (*priors, f"statefreqpr={frequencies}")
    if spec.num_categories > 1:
        rates += f" ngammacat={spec.num_categories}"
        priors += ("shapepr=exponential(1.0)",)
    if spec.has_invariable:
        priors += ("pinvarpr=uniform(0.0,1.0)",)
    text = [f"lset {lset} rates={rates};", f"prset {' '.join(priors)} brlenspr=unconstrained:exp(10.0);"]
    for prior, (parameter, weight) in PROPOSALS.items():
        if any(one.startswith(prior) for one in priors):
            moves = " ".join(f"{move}({parameter})$prob={weight}" for move in ("Dirichlet", "Slider"))
            text.append(f"propset {moves};")
    return text


def commands(analysis: Analysis, alignment: Alignment, is_continued: bool) -> list[str]:
    """All commands of MrBayes for an analysis of ``alignment.nex``, or for the rest of it."""
    model = model_commands(parse_model(analysis.model), empirical_frequencies(compress(alignment)))
    return [
        f"set autoclose=yes nowarn=yes quitonerror=yes seed={SEED} swapseed={SEED};",
        f"set {mrbayes.CHAIN_LIKELIHOOD};",
        "execute alignment.nex;",
        *model,
        f"mcmc nruns={NUM_RUNS} nchains={analysis.num_chains} ngen={analysis.generations} "
        f"samplefreq={analysis.sample_every} printfreq={CHECKPOINT_EVERY} diagnfreq={CHECKPOINT_EVERY} "
        f"checkfreq={CHECKPOINT_EVERY} relburnin=yes burninfrac={BURN_IN} savebrlens=yes "
        f"append={'yes' if is_continued else 'no'} filename=chain;",
        "quit;",
    ]


def run_chains(analysis: Analysis, work: Path) -> dict[str, Any]:
    """Run the chains of an analysis, or what is left of them, in a folder below `work`; and sum them up."""
    alignment = read_alignment(alignment_path(analysis.data, work))
    folder = work / analysis.name
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if min(map(mrbayes.last_generation, _files(folder, "t"))) < analysis.generations:
            symbols = np.frombuffer(SYMBOLS[:15].encode() + b"?", dtype=np.uint8)
            sequences = [symbols[row].tobytes().decode() for row in alignment.states]
            matrix = mrbayes.nexus_matrix(alignment.taxa, sequences)
            (folder / "alignment.nex").write_text(matrix, encoding="utf-8")
            text = commands(analysis, alignment, (folder / "chain.ckp").exists())
            (folder / "run.nex").write_text("\n".join([*text, ""]))
            mrbayes.run([([mrbayes.program()], folder)])
    return {
        "alignment": analysis.data,
        "model": analysis.model,
        "generations": analysis.generations,
        "num_chains": analysis.num_chains,
        "sample_every": analysis.sample_every,
        "seed": SEED,
        "burn_in": BURN_IN,
        "program": mrbayes.version(),
        "commands": (folder / "run.nex").read_text().splitlines(),
        **summarise(folder, alignment.taxa, analysis.generations // analysis.sample_every + 1),
    }


def summarise(folder: Path, taxa: tuple[str, ...], num_samples: int) -> dict[str, Any]:
    """What the files ``chain.run1.t``, ``chain.run1.p`` and so on say, the runs pooled and by themselves.

    Args:
        folder: Where they are.
        taxa: Names, in the order of the alignment.
        num_samples: Samples of each run, the start among them; further ones are left out.
    """
    kept = slice(int(BURN_IN * num_samples), num_samples)
    traces = [{k: v[kept] for k, v in read_traces(path).items()} for path in _files(folder, "p")]
    draws = [read_tree_draws(path, taxa) for path in _files(folder, "t")]
    tables = [split_table(one.children[kept], branch_lengths=_lengths(one)[kept]) for one in draws]
    pooled = split_table(
        np.concatenate([one.children[kept] for one in draws]),
        branch_lengths=np.concatenate([_lengths(one)[kept] for one in draws]),
    )
    return {
        "samples_of_runs": [len(trace["LnL"]) for trace in traces],
        "asdsf": average_standard_deviation(tables),
        "parameters": {
            name: summary_of_runs([trace[name] for trace in traces])
            for name in traces[0]
            if name not in ("Gen", "LnPr")
        },
        "splits": splits_of_runs(pooled, tables),
        "lengths": lengths_of_runs(pooled, tables),
        "topologies": topologies_of_runs([one.children[kept] for one in draws]),
    }


def read_traces(path: Path) -> dict[str, np.ndarray]:
    """Columns of a ``.p`` file."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("[")]
    names = lines[0].split("\t")
    table = np.array([line.split("\t") for line in lines[1:]], dtype=np.float64)
    return {re.sub(r"\{.*\}", "", name): column for name, column in zip(names, table.T, strict=True)}


def summary_of_runs(runs: list[np.ndarray]) -> dict[str, Any]:
    """Mean, standard deviation and 95% HPD of pooled samples, and the first two of each run's."""
    pooled = np.concatenate(runs)
    return {
        "mean": float(pooled.mean()),
        "sd": float(pooled.std()),
        "hpd95": list(highest_density_interval(pooled)),
        "means_of_runs": [float(run.mean()) for run in runs],
        "sds_of_runs": [float(run.std()) for run in runs],
    }


def splits_of_runs(pooled: SplitTable, runs: list[SplitTable]) -> dict[str, dict[str, Any]]:
    """Frequencies, pooled and of each run, of the inner splits from `KEPT_FROM` on."""
    of_runs = [dict(zip(split_names(one), one.frequencies.tolist(), strict=True)) for one in runs]
    return {
        name: {"frequency": frequency, "of_runs": [one.get(name, 0.0) for one in of_runs]}
        for name, frequency in zip(split_names(pooled), pooled.frequencies.tolist(), strict=True)
        if "," in name and frequency >= KEPT_FROM
    }


def lengths_of_runs(pooled: SplitTable, runs: list[SplitTable]) -> dict[str, dict[str, Any]]:
    """Means and standard deviations of branch lengths, pendant ones included, where a tree has the split.

    Of the splits from `LISTED_FROM` on that each run has.
    """
    of_runs = [length_table(one) for one in runs]
    return {
        name: {**length, "means_of_runs": [one[name]["mean"] for one in of_runs]}
        for name, length in length_table(pooled).items()
        if length["frequency"] >= LISTED_FROM and all(name in one for one in of_runs)
    }


def length_table(table: SplitTable) -> dict[str, dict[str, float]]:
    """Frequency of every split, and mean and standard deviation of its branch's length, by name."""
    assert table.lengths is not None  # of draws with lengths
    columns = (table.frequencies.tolist(), table.lengths.mean.tolist(), table.lengths.sd.tolist())
    return {
        name: {"frequency": frequency, "mean": mean, "sd": sd}
        for name, frequency, mean, sd in zip(split_names(table), *columns, strict=True)
    }


def topologies_of_runs(runs: list[np.ndarray]) -> dict[str, Any]:
    """How many distinct topologies there are, and the probabilities of those from `KEPT_FROM` on.

    Args:
        runs: Canonical topologies of each run, int32 [tree, internal, 2].
    """
    distinct, inverse, _ = unique_topologies(np.concatenate(runs))
    ends = itertools.accumulate(len(run) for run in runs)
    parts = np.split(inverse, list(ends)[:-1])
    shares = np.array([np.bincount(part, minlength=len(distinct)) / len(part) for part in parts])
    pooled = np.bincount(inverse, minlength=len(distinct)) / len(inverse)
    order = [i for i in np.argsort(-pooled, kind="stable").tolist() if pooled[i] >= KEPT_FROM]
    return {
        "distinct": len(distinct),
        "probabilities": {
            topology_name(distinct[i]): {"probability": float(pooled[i]), "of_runs": shares[:, i].tolist()}
            for i in order
        },
    }


def topology_name(children: np.ndarray) -> str:
    """A canonical topology [internal, 2] in Newick, the taxa by their numbers."""
    clades = [str(taxon) for taxon in range(len(children) + 2)]
    for left, right in children.tolist():
        clades.append(f"({clades[left]},{clades[right]})")
    return f"({clades[-1]},{len(children) + 1})"


def _files(folder: Path, kind: str) -> list[Path]:
    return [folder / f"chain.run{run}.{kind}" for run in range(1, NUM_RUNS + 1)]


def _lengths(draws: TreeDraws) -> np.ndarray:
    assert draws.branch_lengths is not None  # savebrlens=yes
    return draws.branch_lengths
