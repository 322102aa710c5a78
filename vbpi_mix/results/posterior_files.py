"""Files that other programs read: the corrected posterior as trees, topologies and a consensus.

The topologies, and the consensus with its split probabilities, come from all weighted draws. The trees are
resampled from them in proportion to their weights, as the file says in a comment, so that programs that
expect a Markov chain's equally weighted sample can use them: MrBayes' ``sumt``, TreeAnnotator, DendroPy, R.
The consensus takes its branch lengths from those trees.
"""

import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int, Int32

from vbpi_mix.errors import RunDirectoryError
from vbpi_mix.results.correction import CorrectedPosterior, importance_resample
from vbpi_mix.results.correlations import Correlations
from vbpi_mix.results.diagnostics import Reliability
from vbpi_mix.results.draws import PosteriorDraws
from vbpi_mix.results.run_directory import RunDirectory, atomic_write, write_text
from vbpi_mix.training.mixture import Mixture
from vbpi_mix.trees.nexus import write_consensus, write_tree_samples, write_trprobs
from vbpi_mix.trees.summaries import LengthSummary, SplitTable, consensus_of_splits, split_table


@dataclass(frozen=True)
class FinalPosterior:
    """What ``posterior.npz`` holds: the mixture after the refit, and the corrected posterior over topologies.

    Attributes:
        logits: Logits of the subsplit networks after the refit; the checkpoint has those before.
        correlations: Correlations of branch lengths (`vbpi_mix.results.correlations`); zeros without a refit.
        shifts: Shifts of the noise of branches; likewise.
        topologies: Distinct canonical topologies.
        log_topology_probabilities: Log of their corrected probabilities, in nats.
    """

    logits: Float64[np.ndarray, "component parameter"]
    correlations: Float64[np.ndarray, "component tripartition 3"]
    shifts: Float64[np.ndarray, "component parameter_and_two"]
    topologies: Int32[np.ndarray, "unique internal 2"]
    log_topology_probabilities: Float64[np.ndarray, "unique"]

    @classmethod
    def of(
        cls, mixture: Mixture, correlations: Correlations, corrected: CorrectedPosterior
    ) -> "FinalPosterior":
        """The arrays of a refitted mixture and of what was corrected with it."""
        return cls(
            mixture.networks.logits,
            correlations.values,
            correlations.shifts,
            corrected.topologies,
            corrected.log_topology_probabilities,
        )


def write_posterior(
    directory: RunDirectory,
    draws: PosteriorDraws,
    corrected: CorrectedPosterior,
    num_trees: int,
    generator: np.random.Generator,
) -> None:
    """Write ``posterior.run1.t``, ``posterior.trprobs`` and ``consensus.con.tre``, each whole or not at all.

    Args:
        directory: The run's directory.
        draws: Importance draws.
        corrected: The posterior corrected from them.
        num_trees: Trees to resample into ``posterior.run1.t``.
        generator: Source of the resampling's random numbers.
    """
    resampled = importance_resample(corrected.log_draw_weights, draws.topology_index, num_trees, generator)
    write_text(directory.posterior_trees, resampled_nexus(draws, resampled))
    reliability = str(Reliability.of(draws))
    trprobs = write_trprobs(draws.taxa, corrected.topologies, corrected.topology_probabilities)
    write_text(directory.topology_probabilities, _with_comment(trprobs, reliability))
    splits = split_table(corrected.topologies, corrected.topology_probabilities)
    sampled = split_table(
        draws.topologies[draws.topology_index[resampled]], branch_lengths=draws.branch_lengths[resampled]
    )
    consensus = consensus_of_splits(draws.taxa, _with_lengths(splits, sampled))
    write_text(directory.consensus, _with_comment(write_consensus(consensus), reliability))


def _with_lengths(table: SplitTable, sampled: SplitTable) -> SplitTable:
    """A table with the branch lengths of another, NaN for splits that the other does not hold."""
    assert sampled.lengths is not None
    row_of = {mask.tobytes(): row for row, mask in enumerate(sampled.masks)}
    row = np.array([row_of.get(mask.tobytes(), -1) for mask in table.masks])
    lengths = LengthSummary(
        mean=np.where(row < 0, np.nan, sampled.lengths.mean[row]),
        sd=np.where(row < 0, np.nan, sampled.lengths.sd[row]),
        interval=np.where(row[:, None] < 0, np.nan, sampled.lengths.interval[row]),
    )
    return replace(table, lengths=lengths)


def resampled_nexus(draws: PosteriorDraws, index: Int[np.ndarray, "resampled"]) -> str:
    """NEXUS text of resampled draws, given by their indices; comments say what they are and how reliable.

    Branch lengths have 9 significant digits.
    """
    text = write_tree_samples(
        draws.taxa, draws.topologies[draws.topology_index[index]], draws.branch_lengths[index]
    )
    note = f"{len(index)} trees, importance-resampled with replacement from {draws.num_draws} weighted draws"
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
