"""The commands other than ``run``: on a finished run's directory, or on data alone."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vbpi_mix.alignment import Alignment, read_alignment
from vbpi_mix.datasets import dataset_info, dataset_names, load_dataset
from vbpi_mix.errors import AlignmentError, ConfigurationError, NonFiniteError, TreeFormatError
from vbpi_mix.likelihood.base import make_likelihood
from vbpi_mix.likelihood.model_names import parse_model
from vbpi_mix.likelihood.model_parameters import make_transform
from vbpi_mix.patterns import compress
from vbpi_mix.results import analysis
from vbpi_mix.results.comparison import Agreement, compare_drawn, compare_exact, compare_splits
from vbpi_mix.results.correction import importance_resample
from vbpi_mix.results.finished_run import FinishedRuns, average_log_probability
from vbpi_mix.results.posterior_files import (
    FinalPosterior,
    resampled_nexus,
    save_final,
    write_posterior,
)
from vbpi_mix.results.result import Estimates, estimate, read_result, write_result
from vbpi_mix.results.run_directory import RunDirectory
from vbpi_mix.training.checkpoint import Checkpoint
from vbpi_mix.trees.newick import newick_texts, parse_newick, quoted
from vbpi_mix.trees.samples import read_tree_draws, read_tree_sample
from vbpi_mix.trees.summaries import split_table
from vbpi_mix.trees.topology import Tree, clade_masks


@dataclass(frozen=True)
class SampledTrees:
    """Trees resampled from a run's posterior.

    Attributes:
        nexus: NEXUS text of the trees.
        newick: Newick text of each tree.
        summary: Where they come from, as plain values.
    """

    nexus: str
    newick: list[str]
    summary: dict[str, Any]


def list_datasets() -> list[dict[str, Any]]:
    """What there is to know about each bundled data set, as plain values."""
    kept = ("name", "num_taxa", "num_sites", "num_patterns", "num_support_trees", "num_support_topologies")
    more = ("treebase_id", "support_program", "citation")
    return [{key: getattr(dataset_info(name), key) for key in kept + more} for name in dataset_names()]


def read_named_data(data: str) -> Alignment:
    """Alignment of a file or, where there is no such file, of the bundled data set of that name.

    Raises:
        AlignmentError: There is neither.
    """
    if not Path(data).exists() and data.upper() in dataset_names():
        return load_dataset(data)
    if not Path(data).exists():
        raise AlignmentError(
            f"{data}: no such file, and no bundled data set ({', '.join(dataset_names())}) of that name"
        )
    return read_alignment(data)


def log_likelihood(data: str, tree: str, with_gradient: bool, model: str = "JC") -> dict[str, Any]:
    """Log-likelihood of a tree in nats, with its derivatives if wanted, as plain values.

    Raises:
        VbpiMixError: Data or tree cannot be read or do not fit each other; or the model has free parameters.
    """
    spec = parse_model(model)
    alignment = read_named_data(data)
    one = _read_tree(tree, alignment.taxa)
    assert one.branch_lengths is not None  # the reader has seen to it
    patterns = compress(alignment)
    transform = make_transform(spec, patterns)
    if transform.num_coordinates:
        raise ConfigurationError(
            f"--model: {spec.name} has parameters to estimate ({', '.join(transform.parameter_names)}), and "
            "the likelihood is of given ones: fix them in braces, as in HKY{2.5}+F{0.3,0.2,0.15,0.35}+G4{0.5}"
        )
    likelihood = make_likelihood(patterns, transform.model())
    children, branch_lengths = one.children[None], one.branch_lengths[None]
    value = float(likelihood.value(children, branch_lengths)[0])
    if value == -np.inf:
        raise NonFiniteError(
            "the likelihood of this tree is zero: taxa that differ are joined by branches of length zero; "
            "make them positive"
        )
    if not with_gradient:
        return {"log_likelihood": value}
    _, gradient = likelihood.value_and_gradient(children, branch_lengths)
    return {
        "log_likelihood": value,
        "gradient": gradient[0].tolist(),
        "branches": [
            {"taxa": taxa, "length": length}
            for taxa, length in zip(_taxa_below(one), one.branch_lengths.tolist(), strict=True)
        ],
    }


def evaluate(
    run: Path,
    repeats: int | None,
    samples: int | None,
    per_component: bool,
    seed: int | None,
    update: bool = False,
) -> Estimates:
    """Estimates from fresh draws of a run's final mixture.

    Args:
        run: The run's directory.
        repeats: Repeats of the marginal likelihood; None: as the run.
        samples: Likelihood evaluations of a repeat; None: as the run.
        per_component: Whether every component has so many, instead of all together.
        seed: Seed of the draws; None: the run's.
        update: Whether the run's posterior files and result are to be those of these draws.
    """
    began = time.perf_counter()
    directory = RunDirectory(run)
    runs = FinishedRuns.open(directory)
    settings = {"repeats": repeats, "samples": samples}
    evaluation = runs.config.evaluation.model_copy(
        update={key: value for key, value in settings.items() if value is not None}
    )
    config = runs.config.model_copy(update={"evaluation": evaluation})
    particles = evaluation.samples if per_component else analysis.particles_per_component(config)
    generators = runs.generators(seed)
    draws, corrected = runs.draw(evaluation, particles, generators, with_undrawn=update)
    estimates = estimate(draws, corrected, particles)
    if not update:
        return estimates
    with directory.lock():
        result = read_result(directory.result)
        write_posterior(
            directory, draws, corrected, evaluation.posterior_samples, generators[0], runs.parts(draws)
        )
        if len(runs.runs) == 1:
            final = FinalPosterior.of(runs.runs[0].mixture, runs.runs[0].correlations, corrected)
            save_final(directory.final_posterior, final)
        seconds = result.seconds.model_copy(update={"evaluation": time.perf_counter() - began})
        found = {name: getattr(estimates, name) for name in Estimates.model_fields}
        write_result(directory.result, result.model_copy(update={**found, "seconds": seconds}))
    return estimates


def compare(run: Path, reference_path: Path, burn_in: float) -> dict[str, Any]:
    """Agreement of a run's posterior over topologies with a reference, as plain values.

    Returns:
        ``coverage``, ``kl`` and ``total_variation``, each for the mixture as trained (``raw``), after the
        refit (``refitted``) and corrected by importance weights (``corrected``); the latter two are None
        where the run has not finished or was not to be refitted, and ``notes`` says so. ``splits`` compares
        the corrected split probabilities.
    """
    directory = RunDirectory(run)
    directory.require_run()
    members = directory.members()
    for member in members:
        member.require_checkpoint()
    checkpoints = [Checkpoint.load(member.checkpoint) for member in members]
    checkpoint = checkpoints[0]
    trained = [one.state.mixture.networks for one in checkpoints]
    try:
        reference = read_tree_sample(reference_path, checkpoint.patterns.taxa, burn_in=burn_in)
    except ValueError as error:  # a burn-in does not apply to every format
        raise ConfigurationError(f"--burn-in: {error}") from None
    agreements: dict[str, Agreement | None] = {"raw": None, "refitted": None, "corrected": None}
    agreements["raw"] = compare_exact(reference.weights, average_log_probability(trained, reference.children))
    splits, notes = None, []
    if not all(member.final_posterior.exists() for member in members):
        notes.append("refitted and corrected: none, as the run has not finished; finish it with --resume")
    else:
        runs = FinishedRuns.open(directory)
        if checkpoint.config.evaluation.refit:
            agreements["refitted"] = compare_exact(
                reference.weights, runs.log_probability(reference.children)
            )
            if all(
                np.array_equal(run.final.logits, networks.logits)
                for run, networks in zip(runs.runs, trained, strict=True)
            ):
                notes.append("refitted: as raw, since no refit had a higher bound than the trained mixture")
        else:
            notes.append("refitted: none, as the run was not to be refitted (--no-refit)")
        topologies, log_probabilities = runs.final_topologies()
        agreements["corrected"] = compare_drawn(
            reference.children, reference.weights, topologies, log_probabilities
        )
        splits = asdict(
            compare_splits(
                split_table(reference.children, reference.weights),
                split_table(topologies, np.exp(log_probabilities)),
            )
        )
    return {
        **{
            measure: {name: a and getattr(a, measure) for name, a in agreements.items()}
            for measure in ("coverage", "kl", "total_variation")
        },
        "splits": splits,
        "notes": notes,
        "reference": str(reference_path),
        "num_topologies": len(reference.children),
    }


def sample(run: Path, num_trees: int, seed: int | None) -> SampledTrees:
    """Trees resampled from as many fresh draws of a run's final mixture as its evaluation takes."""
    runs = FinishedRuns.open(RunDirectory(run))
    generators = runs.generators(seed)
    draws, corrected = runs.draw(
        runs.config.evaluation, analysis.particles_per_component(runs.config), generators
    )
    resampled = importance_resample(
        corrected.log_draw_weights, draws.topology_index, num_trees, generators[0]
    )
    children = draws.topologies[draws.topology_index[resampled]]
    lengths = draws.branch_lengths[resampled]
    estimates = estimate(draws, corrected)
    return SampledTrees(
        nexus=resampled_nexus(draws, resampled),
        newick=list(newick_texts(children, lengths, [quoted(name) for name in draws.taxa])),
        summary={
            "taxa": list(draws.taxa),
            "num_draws": draws.num_draws,
            "ess": estimates.ess,
            "pareto_k": estimates.pareto_k,
        },
    )


def _read_tree(tree: str, taxa: tuple[str, ...]) -> Tree:
    """The tree that Newick text, or a file with one tree, holds.

    Raises:
        TreeFormatError: It cannot be read, there are more trees, or branch lengths are missing.
    """
    if tree.lstrip().startswith("("):
        one = parse_newick(tree, taxa)
        source = "the tree given"
    else:
        draws = read_tree_draws(tree, taxa)
        source = tree
        if len(draws.children) != 1:
            raise TreeFormatError(f"{tree}: expected one tree, found {len(draws.children)}; keep one of them")
        lengths = None if draws.branch_lengths is None else draws.branch_lengths[0]
        one = Tree(taxa, draws.children[0], lengths)
    if one.branch_lengths is None:
        raise TreeFormatError(
            f"{source}: expected a length on every branch, such as (A:0.1,B:0.2,...); add the branch lengths"
        )
    if one.branch_lengths.min() < 0:
        raise TreeFormatError(
            f"{source}: expected branch lengths of 0 or more, got {one.branch_lengths.min():g} above "
            f"{', '.join(_taxa_below(one)[int(one.branch_lengths.argmin())])}"
        )
    return one


def _taxa_below(tree: Tree) -> list[list[str]]:
    """Taxa that each branch cuts off: those on the side without the last taxon."""
    masks = clade_masks(tree.children[None])[0]
    return [
        [name for i, name in enumerate(tree.taxa) if int(mask[i // 64]) >> (i % 64) & 1] for mask in masks
    ]
