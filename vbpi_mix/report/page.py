"""The page of a run: everything that its directory holds, as one HTML file that needs nothing else."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from vbpi_mix.datasets import dataset_info
from vbpi_mix.errors import ConfigurationError, RunDirectoryError
from vbpi_mix.likelihood.model_names import parse_model
from vbpi_mix.report import words
from vbpi_mix.report.charts import Line, density, line_chart, scatter_chart
from vbpi_mix.report.clades import CladeTable, clade_table
from vbpi_mix.report.data_summary import summarise_data
from vbpi_mix.report.methods import methods, prior_rows
from vbpi_mix.report.references import ReferenceComparison, compare_with
from vbpi_mix.report.run_files import (
    PosteriorSplits,
    Training,
    read_credible_sets,
    read_splits,
    read_traces,
    read_trainings,
)
from vbpi_mix.report.specialities import Speciality, specialities
from vbpi_mix.report.tree_figure import tree_picture
from vbpi_mix.results.combination import average_topologies
from vbpi_mix.results.posterior_files import load_final
from vbpi_mix.results.result import read_result
from vbpi_mix.results.run_directory import RunDirectory, write_new_text, write_text
from vbpi_mix.sbn.network import SubsplitNetworks
from vbpi_mix.shapes import Topologies
from vbpi_mix.training.checkpoint import Checkpoint
from vbpi_mix.trees.samples import read_tree_draws
from vbpi_mix.trees.splits import find_masks
from vbpi_mix.trees.summaries import (
    ConsensusTree,
    annotated_topology,
    consensus_of_splits,
    highest_density_interval,
)

TEMPLATES = Path(__file__).resolve().parent / "templates"

TRACES = {
    "LnL": "log-likelihood, in nats",
    "LnPr": "log prior density, in nats",
    "TL": "tree length, in expected substitutions per site",
    "kappa": "transitions over transversions",
    "alpha": "shape of the gamma distribution of rates",
    "pinvar": "probability of invariable sites",
}
"""Meaning of columns of ``.p`` files."""

FILES = {
    "result.json": "what the run found, and with what",
    "consensus.con.tre": "majority-rule consensus tree, for FigTree",
    "consensus.nwk": "the same in Newick, with supports as node labels, for iTOL",
    "ccd_map.tre": "most probable tree of the conditional clade distribution",
    "mcc.tre": "maximum clade credibility tree",
    "sbn_map.tre": "most probable topology of the mixture",
    "splits.tsv": "splits with probabilities, branch lengths and errors",
    "credible_sets.tsv": "topologies of the 50, 90, 95 and 99% credible sets",
    "topologies.trprobs": "topologies with posterior probabilities",
    "posterior.run1.t": "trees of the first half of the draws, or of the first run, for MrBayes' sumt",
    "posterior.run2.t": "trees of the second",
    "posterior.run1.p": "likelihoods, priors and parameters of the first, for MrBayes' sump and Tracer",
    "posterior.run2.p": "the same of the second",
    "posterior.npz": "networks and topology probabilities, for numpy",
    "support.trees.tsv.gz": "trees that the support was built from, for --support",
    "config.toml": "the whole configuration, for --config",
    "metrics.jsonl": "training progress",
    "checkpoint.pt": "state of training",
}
"""Files of a run, in the order of the page."""

CRITERIA = {"pareto_k": "Pareto k-hat", "ess": "effective sample size", "asdsf": "ASDSF"}
"""Criteria of a verdict whose names are not plain words."""

_OPTION = re.compile(r"(?<!\w)(--[a-z][a-z-]*)")
"""Options of the command line, which are not to be broken at their hyphens."""

MAX_SPECIALITIES = 12
"""Components whose specialities are listed."""


@dataclass(frozen=True)
class Parameter:
    """A column of the ``.p`` files.

    Attributes:
        name: Its name there.
        meaning: What it is; empty where the name says it.
        mean: Posterior mean.
        sd: Posterior standard deviation.
        interval: Ends of the 95% highest-density interval.
        drawing: A small density, as SVG.
    """

    name: str
    meaning: str
    mean: float
    sd: float
    interval: tuple[float, float]
    drawing: str


@dataclass(frozen=True)
class Component:
    """A component of the mixture.

    Attributes:
        name: Its number, from 1, after the run's name where there are several runs.
        weight_share: Share of the importance weight on its draws.
        ess: Effective sample size of these.
        topology_entropy: Entropy of its topologies, in nats.
        speciality: What it specialises in; None where it is one of too many to list.
    """

    name: str
    weight_share: float
    ess: float
    topology_entropy: float
    speciality: Speciality | None


def write_report(
    directory: RunDirectory,
    references: Sequence[Path] = (),
    burn_in: float | None = None,
    out: Path | None = None,
) -> Path:
    """Write the page of a finished run, ``report.html`` in its directory or another new file.

    Args:
        directory: The run.
        references: Files of the user's trees to compare the posterior with; they count alike.
        burn_in: Share of the trees of each to leave out; None: a quarter, where trees are not weighted.
        out: Another file to write, which must be new.

    Returns:
        The file written.

    Raises:
        VbpiMixError: The run has not finished, a file cannot be read or written.
    """
    text = page(directory, references, burn_in)
    if out is None:
        write_text(directory.report, text)
        return directory.report
    write_new_text(out, text)
    return out


def page(directory: RunDirectory, references: Sequence[Path] = (), burn_in: float | None = None) -> str:
    """The page of a finished run as HTML; the arguments are those of `write_report`."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup, escape

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "fixed": words.fixed,
        "significant": words.significant,
        "percent": words.percent,
        "duration": words.duration,
        "size": words.size,
        "criterion": lambda name: CRITERIA.get(name, name.replace("_", " ")),
        "options": lambda text: Markup(_OPTION.sub(r'<code class="option">\1</code>', str(escape(text)))),
        "drawing": Markup,  # pictures escape what is in them (`vbpi_mix.report.svg`)
    }
    return environment.get_template("report.html").render(_content(directory, references, burn_in))


def _content(directory: RunDirectory, references: Sequence[Path], burn_in: float | None) -> dict[str, Any]:
    """What the template shows."""
    directory.require_run()
    result = read_result(directory.result).model_dump(mode="json")
    runs = directory.members()
    runs[0].require_checkpoint()
    checkpoint = Checkpoint.load(runs[0].checkpoint)
    config, data = checkpoint.config, summarise_data(checkpoint.patterns)
    splits = read_splits(directory.splits)
    clades = clade_table(splits)
    comparison = _compared(runs, references, burn_in, splits)
    return {
        "title": config.data.dataset or Path(result["provenance"]["data"]).name,
        "citation": dataset_info(config.data.dataset).citation if config.data.dataset else None,
        "result": result,
        "config": config,
        "support": _short(result["provenance"]["support"]),
        "verdict": words.verdict_of(result),
        "criteria": result.get("criteria") or [],
        "data": data,
        "taxa": splits.taxa,
        "model": parse_model(config.data.model).name,
        "priors": prior_rows(config),
        "methods": methods(result, config, data),
        "trees": _trees(directory, splits, clades),
        "clades": clades,
        "cumulative": _cumulative_chart(read_credible_sets(directory.credible_sets)),
        "runs": result.get("runs") or [],
        "parameters": _parameters(read_traces(directory), result),
        "components": _components(runs) if config.mixture.components > 1 else [],
        "training": _training_charts(read_trainings(directory), result),
        "comparison": comparison,
        "scatter": None if comparison is None else _scatter(comparison, splits.taxa),
        "diagnostics": words.diagnostics_of(result),
        "files": _files(directory),
        "command": shlex.join(["vbpi-mix", *result["provenance"]["command"][1:]]),
    }


def _short(source: str) -> str:
    """Where trees come from; of a path its last part."""
    return Path(source).name if source.startswith("/") else source


def _compared(
    runs: Sequence[RunDirectory], references: Sequence[Path], burn_in: float | None, splits: PosteriorSplits
) -> ReferenceComparison | None:
    """The posterior against the user's trees, where there are some."""
    if not references:
        return None
    try:
        return compare_with(references, burn_in, splits.taxa, splits.table, *_topologies(runs))
    except ValueError as error:  # a burn-in does not apply to every format
        raise ConfigurationError(f"--burn-in: {error}") from None


def _topologies(runs: Sequence[RunDirectory]) -> tuple[Topologies, Float64[np.ndarray, "unique"]]:
    """Topologies and log probabilities of a posterior: the average of those of several runs."""
    finals = [load_final(run.final_posterior) for run in runs]
    if len(finals) == 1:
        return finals[0].topologies, finals[0].log_topology_probabilities
    return average_topologies(
        finals[0].topologies[:0], [(f.topologies, f.log_topology_probabilities) for f in finals]
    )


def _trees(directory: RunDirectory, splits: PosteriorSplits, clades: CladeTable) -> list[dict[str, str]]:
    """Pictures of the single trees that stand for the posterior."""
    consensus = consensus_of_splits(splits.taxa, splits.table)
    drawn = read_tree_draws(directory.ccd_map, splits.taxa)
    ccd_map = annotated_topology(splits.taxa, splits.table, drawn.children[0])
    return [
        {
            "name": name,
            "drawing": tree_picture(tree, f"{name}, {len(splits.taxa)} taxa", _linker(tree, splits, clades)),
        }
        for name, tree in (
            ("Majority-rule consensus tree", consensus),
            ("Most probable tree of the conditional clade distribution", ccd_map),
        )
    ]


def _linker(tree: ConsensusTree, splits: PosteriorSplits, clades: CladeTable) -> Any:
    """Function from a branch of a tree to the anchor of its clade's row, or None."""
    num_nodes, num_taxa = len(tree.parents), len(tree.taxa)
    below = np.zeros((num_nodes, num_taxa), bool)
    below[np.arange(num_taxa), np.arange(num_taxa)] = True
    for node, parent in enumerate(tree.parents[:-1]):  # children come before parents
        below[parent] |= below[node]
    packed = np.packbits(below, axis=1, bitorder="little")
    padded = np.zeros((num_nodes, 8 * splits.table.masks.shape[1]), np.uint8)
    padded[:, : packed.shape[1]] = packed
    rows = find_masks(splits.table.masks, padded.view(np.uint64)).tolist()

    def link(branch: int) -> str | None:
        number = clades.number_of.get(rows[branch])
        return None if number is None else f"#clade-{number}"

    return link


def _cumulative_chart(probabilities: Float64[np.ndarray, "topology"]) -> str:
    """Cumulated probability of the topologies, most probable first."""
    cumulated = np.concatenate([[0.0], np.cumsum(probabilities)])
    line = Line("posterior", np.arange(len(cumulated), dtype=np.float64), cumulated)
    return line_chart(
        "Cumulated posterior probability of the topologies, most probable first",
        [line],
        "topologies, most probable first",
        "cumulated probability",
        (0.0, 1.0),
    )


def _parameters(
    traces: dict[str, Float64[np.ndarray, "resampled"]], result: dict[str, Any]
) -> list[Parameter]:
    """Summaries of the columns of ``.p`` files; those that ``result.json`` has are from there."""
    known: dict[str, dict[str, Any]] = dict(result.get("model") or {})
    if "tree_length" in result:
        known["TL"] = result["tree_length"]
    found = []
    for name, values in traces.items():
        if name in known:
            mean, sd, (low, high) = known[name]["mean"], known[name]["sd"], known[name]["hpd95"]
        else:
            mean, sd = float(values.mean()), float(values.std())
            low, high = highest_density_interval(values)
        drawing = density(f"Posterior density of {name}", values, (low, high))
        found.append(Parameter(name, TRACES.get(name, ""), mean, sd, (low, high), drawing))
    return found


def _components(runs: Sequence[RunDirectory]) -> list[Component]:
    """Components of the mixtures of all runs."""
    found = []
    for run in runs:
        balance, final = read_result(run.result).components, load_final(run.final_posterior)
        support = Checkpoint.load(run.checkpoint).state.mixture.support
        known = specialities(SubsplitNetworks.from_logits(support, final.logits), final)
        if len(balance.ess) != len(final.logits):
            raise RunDirectoryError(
                f"{run.result}: expected {len(final.logits)} components, as in {run.final_posterior.name}, "
                f"got {len(balance.ess)}; run the analysis again"
            )
        prefix = f"{run.path.name}, " if len(runs) > 1 else ""
        columns = zip(balance.weight_share, balance.ess, balance.topology_entropy, strict=True)
        for number, (share, ess, entropy) in enumerate(columns, start=1):
            speciality = known[number - 1] if number <= MAX_SPECIALITIES else None
            found.append(Component(f"{prefix}{number}", share, ess, entropy, speciality))
    return found


def _training_charts(trainings: Sequence[Training], result: dict[str, Any]) -> list[dict[str, str]]:
    """The bound over all of training, and at full temperature."""
    charts = []
    if trainings:
        lines = [Line(one.name, one.iterations, one.bounds) for one in trainings]
        charts.append(
            {
                "caption": "The bound over the whole of training; at first, and at the beginning of every "
                "further round, of a tempered posterior.",
                "drawing": line_chart("Bound over training", lines, "iteration", "bound / nats"),
            }
        )
    full = []
    for one in trainings:
        tempered = np.flatnonzero(one.inverse_temperatures < 1.0)
        start = tempered[-1] + 1 if len(tempered) else 0
        if start < len(one.iterations):
            full.append(Line(one.name, one.iterations[start:], one.bounds[start:]))
    if full:
        charts.append(
            {
                "caption": "The same since the posterior was last tempered: flat at the end is what "
                "one hopes for.",
                "drawing": line_chart(
                    "Bound at full temperature",
                    full,
                    "iteration",
                    "bound / nats",
                    rule=("log marginal likelihood", result["marginal_log_likelihood"]["mean"]),
                ),
            }
        )
    return charts


def _scatter(comparison: ReferenceComparison, taxa: Sequence[str]) -> str:
    """Split frequencies of the reference against those of the run."""
    titles = [
        f"{', '.join(taxa[i] for i in members)}: {x:.3f} and {y:.3f}"
        for members, x, y in zip(comparison.taxa, comparison.reference, comparison.run, strict=True)
    ]
    return scatter_chart(
        "Split frequencies in the reference against probabilities in this run",
        comparison.reference,
        comparison.run,
        "frequency in the reference",
        "probability in this run",
        titles,
    )


def _files(directory: RunDirectory) -> list[tuple[str, str, int | None]]:
    """Files of the run that there are, with what they are and their size; the page's own is not known."""
    found: list[tuple[str, str, int | None]] = [("report.html", "this page", None)]
    for name, what in FILES.items():
        path = directory.path / name
        if path.exists():
            found.append((name, what, path.stat().st_size))
    runs = [run for run in directory.members() if run != directory]
    return found + [(f"{run.path.name}/", "one of the runs that are combined here", None) for run in runs]
