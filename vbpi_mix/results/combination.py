"""Several independent runs of one analysis as one posterior.

Every run's importance-corrected posterior is consistent by itself. Together they are their average: a
topology has the mean of the probabilities that the runs give it, a draw of run r its weight within that run
over the number of runs, as with MrBayes' pooled samples. Each run contributes as many draws. This needs
neither equal supports nor the densities of one run's draws under another's mixture, which weights by the
balance heuristic would.

The draws keep the weights that they have under their own run's mixture. The mean weight over all of them is
then an unbiased estimate of the marginal likelihood, and where the runs agree the average of the corrected
posteriors is also what self-normalising all weights together would give. The mixture "q" of the draws is the
average of the runs' mixtures, from which they are drawn in equal parts. Component a of the draws is component
a of each run, so what is computed component by component, such as the Jensen-Shannon divergence, is the mean
over the runs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import logsumexp

from vbpi_mix.results.correction import CorrectedPosterior, CorrectionMethod
from vbpi_mix.results.draws import PosteriorDraws
from vbpi_mix.shapes import Topologies
from vbpi_mix.trees.topology import unique_topologies


@dataclass(frozen=True)
class RunPosterior:
    """What one run brings: as many draws as any other.

    Attributes:
        log_probability: Exact log probability of topologies under its mixture, in nats.
        draws: Importance draws from its mixture.
        corrected: The posterior corrected from them.
    """

    log_probability: Callable[[Topologies], np.ndarray]
    draws: PosteriorDraws
    corrected: CorrectedPosterior


def combine(runs: Sequence[RunPosterior]) -> tuple[PosteriorDraws, CorrectedPosterior]:
    """The draws of all runs, one run after the other, and the average of their posteriors.

    A single run's are returned as they are.

    Args:
        runs: One at least, of the same taxa in the same order and with as many components.
    """
    if len(runs) == 1:
        return runs[0].draws, runs[0].corrected
    draws = [run.draws for run in runs]
    drawn, index, _ = unique_topologies(np.concatenate([one.topologies for one in draws]))
    starts = np.cumsum([0, *(len(one.topologies) for one in draws)])
    each = np.array([run.log_probability(drawn) for run in runs])
    coordinates = [one.coordinates for one in draws if one.coordinates is not None]
    pooled = replace(
        draws[0],
        topologies=drawn,
        log_q=logsumexp(each, axis=0) - np.log(len(runs)),
        topology_index=np.concatenate(
            [index[start + one.topology_index] for start, one in zip(starts[:-1], draws, strict=True)]
        ),
        branch_lengths=np.concatenate([one.branch_lengths for one in draws]),
        log_weights=np.concatenate([one.log_weights for one in draws]),
        component=np.concatenate([one.component for one in draws]),
        responsibilities=np.concatenate([one.responsibilities for one in draws]),
        traces={name: np.concatenate([one.traces[name] for one in draws]) for name in draws[0].traces},
        coordinates=np.concatenate(coordinates) if coordinates else None,
    )
    topologies, log_probabilities = average_topologies(
        drawn, [(run.corrected.topologies, run.corrected.log_topology_probabilities) for run in runs]
    )
    methods = {run.corrected.method for run in runs}
    corrected = CorrectedPosterior(
        method=methods.pop() if len(methods) == 1 else CorrectionMethod.SELF_NORMALISED,
        drawn_mass=float(np.exp(logsumexp(pooled.log_q))),
        topologies=topologies,
        log_topology_probabilities=log_probabilities,
        log_draw_weights=np.concatenate([run.corrected.log_draw_weights for run in runs]) - np.log(len(runs)),
    )
    return pooled, corrected


def average_topologies(
    first: Topologies, posteriors: Sequence[tuple[np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray]:
    """Distinct topologies and log probabilities of the average of some posteriors.

    Args:
        first: Distinct topologies that are to come first; none are needed.
        posteriors: Canonical topologies [topology, internal, 2] and log probabilities [topology] of each.
    """
    stacked = np.concatenate([first, *(topologies for topologies, _ in posteriors)])
    distinct, index, _ = unique_topologies(stacked)
    log_probabilities = np.concatenate(
        [np.full(len(first), -np.inf), *(log_probabilities for _, log_probabilities in posteriors)]
    )
    probabilities = np.bincount(index, np.exp(log_probabilities), minlength=len(distinct))
    with np.errstate(divide="ignore"):
        return distinct, np.log(probabilities / len(posteriors))
