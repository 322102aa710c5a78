"""Files that other programs read: the corrected posterior as trees, topologies, single trees and tables.

All but the ``.t`` and ``.p`` files come from all weighted draws. Those two are resampled from them in
proportion to their weights, as the files say in a comment, so that programs that expect Markov chains'
equally weighted samples can use them: MrBayes' ``sumt`` and ``sump``, Tracer, TreeAnnotator, DendroPy, R.
There is one of each for every independent run. Of a single run there are two, from two halves of the draws:
they share no draw, so that the difference between them, such as MrBayes' average standard deviation of split
frequencies, shows the error of the sampling. Between runs it shows that of training too.
"""

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int, Int32

from vbpi_mix.errors import RunDirectoryError
from vbpi_mix.results.correction import CorrectedPosterior, importance_resample
from vbpi_mix.results.correlations import Correlations
from vbpi_mix.results.diagnostics import Reliability
from vbpi_mix.results.draws import PosteriorDraws
from vbpi_mix.results.posterior_summary import (
    credible_sets,
    halves,
    maximum_clade_credibility,
    sbn_mode,
    summarise_splits,
    topology_order,
)
from vbpi_mix.results.run_directory import RunDirectory, atomic_write, write_text
from vbpi_mix.results.tables import credible_lines, parameter_lines, split_lines
from vbpi_mix.training.mixture import Mixture
from vbpi_mix.training.model_density import ModelDensity
from vbpi_mix.trees.nexus import write_consensus, write_consensus_newick, write_tree_samples, write_trprobs
from vbpi_mix.trees.summaries import annotated_topology, consensus_of_splits

_CCD_MAP = "most probable topology of the conditional clade distribution of the posterior"
_MCC = "maximum clade credibility: of the posterior's topologies the largest product of split probabilities"
_SBN_MAP = {
    True: "most probable topology of the mixture of subsplit Bayesian networks",
    False: "most probable topology drawn of the mixture of subsplit Bayesian networks; others may be more so",
}


@dataclass(frozen=True)
class FinalPosterior:
    """What ``posterior.npz`` holds: the mixture after the refit, and the corrected posterior over topologies.

    Attributes:
        logits: Logits of the subsplit networks after the refit; the checkpoint has those before.
        correlations: Correlations of branch lengths (`vbpi_mix.results.correlations`); zeros without a refit.
        shifts: Shifts of the noise of branches; likewise.
        slopes: Slopes of the noise of branches in that of a model to estimate; likewise.
        model_table: Density of a model to estimate, after the refit (`vbpi_mix.training.model_density`);
            of no coordinates where there is nothing to estimate.
        model_shapes: Shapes of its coordinates, likewise; of none where they are normal.
        topologies: Distinct canonical topologies.
        log_topology_probabilities: Log of their corrected probabilities, in nats.
    """

    logits: Float64[np.ndarray, "component parameter"]
    correlations: Float64[np.ndarray, "component tripartition 3"]
    shifts: Float64[np.ndarray, "component parameter_and_two"]
    slopes: Float64[np.ndarray, "component split coordinate"]
    model_table: Float64[np.ndarray, "component coordinate coordinate_and_one"]
    model_shapes: Float64[np.ndarray, "component skewed 4"]
    topologies: Int32[np.ndarray, "unique internal 2"]
    log_topology_probabilities: Float64[np.ndarray, "unique"]

    @classmethod
    def of(
        cls, mixture: Mixture, correlations: Correlations, corrected: CorrectedPosterior
    ) -> "FinalPosterior":
        """The arrays of a refitted mixture and of what was corrected with it."""
        model = mixture.model
        return cls(
            mixture.networks.logits,
            correlations.values,
            correlations.shifts,
            correlations.slopes,
            np.empty((mixture.num_components, 0, 1)) if model is None else model.table,
            np.empty((mixture.num_components, 0, 4))
            if model is None or model.shapes is None
            else model.shapes,
            corrected.topologies,
            corrected.log_topology_probabilities,
        )

    def model(self) -> ModelDensity | None:
        """Density of a model to estimate; None where there is nothing to estimate."""
        if self.model_table.shape[1] == 0:
            return None
        return ModelDensity(self.model_table, self.model_shapes if self.model_shapes.shape[1] else None)


def write_posterior(
    directory: RunDirectory,
    draws: PosteriorDraws,
    corrected: CorrectedPosterior,
    num_trees: int,
    generator: np.random.Generator,
    runs: Sequence[Int[np.ndarray, "_"]] | None = None,
) -> None:
    """Write the files of trees and the tables that describe a posterior, each whole or not at all.

    Args:
        directory: The run's directory.
        draws: Importance draws, two of them at least.
        corrected: The posterior corrected from them.
        num_trees: Trees to resample into ``posterior.run1.t``, ``posterior.run2.t`` and so on together,
            rounded up to as many in each.
        generator: Source of the resampling's random numbers.
        runs: Indices of the draws of each independent run; None: they are of one.
    """
    taxa, reliability = draws.taxa, str(Reliability.of(draws))
    parts = halves(draws.component) if runs is None else runs
    kind = "half" if runs is None else "run"
    _write_parts(directory, draws, corrected, parts, kind, -(-num_trees // len(parts)), generator)
    order, splits = topology_order(corrected), summarise_splits(draws, corrected)
    probabilities = corrected.topology_probabilities
    trprobs = write_trprobs(taxa, corrected.topologies, probabilities)
    write_text(directory.topology_probabilities, _with_comment(trprobs, reliability))
    consensus = consensus_of_splits(taxa, splits.table)
    write_text(directory.consensus, _with_comment(write_consensus(consensus), reliability))
    write_text(directory.consensus_newick, write_consensus_newick(consensus) + "\n")
    mode = sbn_mode(draws, corrected)
    trees = (
        (directory.ccd_map, "ccd_map", corrected.ccd.map_topology, _CCD_MAP),
        (directory.mcc, "mcc", maximum_clade_credibility(corrected, order), _MCC),
        (directory.sbn_map, "sbn_map", mode.topology, _SBN_MAP[mode.is_certain]),
    )
    for path, name, topology, note in trees:
        text = write_consensus(annotated_topology(taxa, splits.table, topology), name)
        write_text(path, _with_comment(text, note, reliability))
    write_text(directory.splits, split_lines(taxa, splits))
    write_text(directory.credible_sets, credible_lines(corrected, order, credible_sets(corrected, order)))


def _write_parts(
    directory: RunDirectory,
    draws: PosteriorDraws,
    corrected: CorrectedPosterior,
    parts: Sequence[np.ndarray],
    kind: str,
    num_trees: int,
    generator: np.random.Generator,
) -> None:
    """Write trees and parameters resampled from each part of the draws, as many from each."""
    reliability = str(Reliability.of(draws))
    for number, part in enumerate(parts, start=1):
        resampled = part[
            importance_resample(
                corrected.log_draw_weights[part], draws.topology_index[part], num_trees, generator
            )
        ]
        note = (
            f"{num_trees} trees, importance-resampled with replacement from {len(part)} of "
            f"{draws.num_draws} weighted draws ({kind} {number} of {len(parts)})"
        )
        write_text(directory.run_trees(number), resampled_nexus(draws, resampled, note))
        columns = {name: values[resampled] for name, values in draws.traces.items()}
        known = [name for name in ("LnL", "LnPr") if name in columns]
        traces: dict[str, np.ndarray] = {name: columns.pop(name) for name in known}
        traces["TL"] = draws.branch_lengths[resampled].sum(axis=1)
        traces |= columns
        write_text(directory.run_parameters(number), parameter_lines(f"{note}; {reliability}", traces))


def resampled_nexus(
    draws: PosteriorDraws, index: Int[np.ndarray, "resampled"], note: str | None = None
) -> str:
    """NEXUS text of resampled draws, given by their indices; comments say what they are and how reliable.

    Branch lengths have 9 significant digits.

    Args:
        draws: Importance draws.
        index: Which of them.
        note: What the trees are; by default, resampled from all draws.
    """
    text = write_tree_samples(
        draws.taxa, draws.topologies[draws.topology_index[index]], draws.branch_lengths[index]
    )
    if note is None:
        note = (
            f"{len(index)} trees, importance-resampled with replacement from {draws.num_draws} weighted draws"
        )
    return _with_comment(text, note, str(Reliability.of(draws)))


def _with_comment(nexus: str, *comments: str) -> str:
    """NEXUS text with comments before the trees."""
    lines = "".join(f"[{comment}]\n" for comment in comments)
    return nexus.replace("begin trees;", f"{lines}begin trees;", 1)


def save_final(path: Path, final: FinalPosterior) -> None:
    """Write ``posterior.npz``, whole or not at all."""
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            logits=final.logits,
            correlations=final.correlations,
            shifts=final.shifts,
            slopes=final.slopes,
            model_table=final.model_table,
            model_shapes=final.model_shapes,
            topologies=final.topologies,
            log_topology_probabilities=final.log_topology_probabilities,
        )


def load_final(path: Path) -> FinalPosterior:
    """Read ``posterior.npz``.

    Raises:
        RunDirectoryError: It is missing or damaged.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
            return FinalPosterior(
                content["logits"],
                content["correlations"],
                content["shifts"],
                content["slopes"],
                content["model_table"],
                content["model_shapes"],
                content["topologies"],
                content["log_topology_probabilities"],
            )
    except FileNotFoundError:
        raise RunDirectoryError(
            f"{path}: missing, so the run has not finished; finish it with --resume"
        ) from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise RunDirectoryError(
            f"{path}: expected arrays of logits and topologies, but it cannot be read ({error}); delete "
            "result.json beside it and finish the run again with --resume"
        ) from None
