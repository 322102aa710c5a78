"""What each component of a mixture specialises in: clades and topologies that it gives more than the others.

Component a gives a topology the exact probability q_a(tau); its responsibility for the topology is that over
the sum of all components'. Its probability of a clade is the sum over the topologies that have it. Both are
of the topologies that count, the most probable `MAX_TOPOLOGIES` of the posterior, where for clades the
probabilities of every component are renormalised.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from vbpi_mix.report.clades import smaller_side
from vbpi_mix.results.posterior_files import FinalPosterior
from vbpi_mix.sbn.network import SubsplitNetworks
from vbpi_mix.trees.nexus import most_probable_first
from vbpi_mix.trees.splits import index_splits

MAX_TOPOLOGIES = 2_000
MAX_CLADES = 3
MAX_TREES = 3


@dataclass(frozen=True)
class Contrast:
    """A clade that a component gives another probability than the mixture.

    Attributes:
        taxa: Its smaller side, as the numbers of the taxa.
        own: Probability under the component.
        mixture: Mean over the components.
    """

    taxa: tuple[int, ...]
    own: float
    mixture: float


@dataclass(frozen=True)
class Favourite:
    """A topology that a component takes on.

    Attributes:
        rank: Its place in ``topologies.trprobs``, from 1.
        probability: Its posterior probability.
        responsibility: The component's responsibility for it.
    """

    rank: int
    probability: float
    responsibility: float


@dataclass(frozen=True)
class Speciality:
    """What one component specialises in.

    Attributes:
        clades: Clades whose probabilities differ most from the mixture's, the largest difference first.
        topologies: Topologies of which it bears more than its share, the most posterior mass first.
    """

    clades: tuple[Contrast, ...]
    topologies: tuple[Favourite, ...]


def specialities(networks: SubsplitNetworks, final: FinalPosterior) -> tuple[Speciality, ...]:
    """What each component of a run specialises in.

    Args:
        networks: Networks of the components, after the refit.
        final: The run's corrected posterior.
    """
    probabilities = np.exp(final.log_topology_probabilities)
    order = most_probable_first(final.topologies, probabilities)[:MAX_TOPOLOGIES]
    topologies, probabilities = final.topologies[order], probabilities[order]
    log_q = networks.log_probability_of(topologies)
    with np.errstate(divide="ignore", invalid="ignore"):
        responsibilities = np.exp(log_q - logsumexp(log_q, axis=1, keepdims=True))
        shares = np.exp(log_q - logsumexp(log_q, axis=0, keepdims=True))
    shares, responsibilities = np.nan_to_num(shares), np.nan_to_num(responsibilities)
    index = index_splits(topologies)
    by_component = np.column_stack([index.totals(share) for share in shares.T])
    mean = by_component.mean(axis=1)
    bits = np.unpackbits(index.masks.view(np.uint8), axis=1, bitorder="little")[:, : index.num_taxa]
    found = []
    for a in range(by_component.shape[1]):
        difference = by_component[:, a] - mean
        clades = [
            s
            for s in np.argsort(-np.abs(difference), kind="stable")[:MAX_CLADES]
            if abs(difference[s]) >= 0.005
        ]
        gain = probabilities * (responsibilities[:, a] - 1 / by_component.shape[1])
        trees = [t for t in np.argsort(-gain, kind="stable")[:MAX_TREES] if gain[t] > 0]
        found.append(
            Speciality(
                tuple(
                    Contrast(smaller_side(bits[s]), float(by_component[s, a]), float(mean[s])) for s in clades
                ),
                tuple(
                    Favourite(int(t) + 1, float(probabilities[t]), float(responsibilities[t, a]))
                    for t in trees
                ),
            )
        )
    return tuple(found)
