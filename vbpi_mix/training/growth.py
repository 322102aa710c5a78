"""A larger support for a mixture that is trained already: what is known is carried over, the rest is guessed.

Every logit and every row of the branch table that both supports have keeps its value. So under every parent
the old children keep their ratios, and without the new children's share every old topology would have the
probability that it had.

*New children.* In topologies weighted by their (estimated) posterior probabilities, old ones and added ones,
a new child i of parent p weighs c_i, the old children C_p together, all rootings counted alike. It gets that
ratio to the old children of the trained network too, but at most 1: log q_i - log sum_old q = log(c_i / C_p).

*New rows of the branch table.* An interchange changes the subsplits next to four branches and the split of a
fifth. The four are expected to have the lengths that they have in the topology beside it, and of the fifth
mean and standard deviation of the log length have been estimated. What the known rows of a branch lack to
that is shared among its new rows.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float64, Int32

from vbpi_mix.branches.network import BranchParameters
from vbpi_mix.sbn.em import rooting_averaged_logits
from vbpi_mix.sbn.network import SubsplitNetworks
from vbpi_mix.sbn.renumbering import renumber
from vbpi_mix.sbn.support import Support, build_support
from vbpi_mix.shapes import Topologies
from vbpi_mix.training.mixture import Mixture
from vbpi_mix.trees.samples import TreeSample

START_SHARE = 0.05
"""Least share of the added topologies in the weights that new logits are made from: a topology that is
hardly drawn is not learnt."""

MAX_SHARE = 1 - 1e-9
"""Greatest share of them: no topology that was known is given up."""


@dataclass(frozen=True)
class GrowthRound:
    """What a round of growth has done.

    Attributes:
        mass_outside: Estimated posterior probability just outside the support before it.
        num_topologies: Topologies added.
        num_parameters: Parameters of a subsplit network that the support has since, and had not before.
    """

    mass_outside: float
    num_topologies: int
    num_parameters: int


@dataclass(frozen=True)
class NearTopologies:
    """Topologies one interchange away from others, which a support lacks, the heaviest first.

    Attributes:
        children: The topologies.
        beside: For each, a topology of the support that an interchange makes it from.
        masses: Estimated posterior probabilities, in units of that of all topologies inside.
        log_length_mean: Mean of the log length of the branch that is not in the topology beside it.
        log_length_std: Its standard deviation.
    """

    children: Int32[np.ndarray, "neighbour internal 2"]
    beside: Int32[np.ndarray, "neighbour internal 2"]
    masses: Float64[np.ndarray, "neighbour"]
    log_length_mean: Float64[np.ndarray, "neighbour"]
    log_length_std: Float64[np.ndarray, "neighbour"]

    def first(self, number: int) -> "NearTopologies":
        """The heaviest of them."""
        return NearTopologies(
            self.children[:number],
            self.beside[:number],
            self.masses[:number],
            self.log_length_mean[:number],
            self.log_length_std[:number],
        )


def grown_sample(sample: TreeSample, added: NearTopologies) -> TreeSample:
    """A sample with topologies added at its end, at small weights: no larger ones than the least there is."""
    weights = np.minimum(added.masses * sample.weights.sum(), sample.weights.min())
    return TreeSample(
        sample.taxa,
        np.concatenate([sample.children, added.children]),
        np.concatenate([sample.weights, np.maximum(weights, np.finfo(np.float64).tiny)]),
        f"{sample.source}; {len(weights):,} topologies found just outside",
    )


def grown_mixture(
    mixture: Mixture,
    sample: TreeSample,
    added: NearTopologies,
    topologies: Topologies,
    probabilities: Float64[np.ndarray, "tree"],
) -> Mixture:
    """The mixture on a larger support, with all that it has learnt.

    Args:
        mixture: The trained mixture.
        sample: Trees of the larger support: those of the smaller one, and those added.
        added: The topologies added.
        topologies: Topologies of the smaller support.
        probabilities: Their posterior probabilities.
    """
    support = build_support(sample.children, sample.taxa)
    new = renumber(mixture.support, support)
    is_known = np.zeros(support.num_parameters, bool)
    is_known[new.parameter] = True
    logits = np.zeros((mixture.num_components, support.num_parameters))
    logits[:, new.parameter] = mixture.networks.logits
    targets = _target_logits(support, added, topologies, probabilities)
    logits[:, ~is_known] = _new_logits(support, logits, targets, is_known)[:, ~is_known]

    branches = mixture.branches
    rows = np.concatenate([new.split, support.num_splits + new.subsplit]) if mixture.with_psp else new.split
    num_rows = support.num_splits + (support.num_subsplits if mixture.with_psp else 0) + 1
    table = np.zeros((mixture.num_components, num_rows, 3))
    table[:, rows] = branches.table[:, :-1]
    is_set = np.zeros(num_rows, bool)
    is_set[rows], is_set[-1] = True, True
    _fill_table(table, is_set, support, added, mixture.with_psp)
    return replace(
        mixture,
        networks=SubsplitNetworks.from_logits(support, logits),
        branches=BranchParameters(table, branches.features, branches.density),
    )


def _target_logits(
    support: Support, added: NearTopologies, topologies: Topologies, probabilities: np.ndarray
) -> Float64[np.ndarray, "parameter"]:
    """Logits made from weighted topologies, the added ones at no less than `START_SHARE` in all."""
    mass = added.masses.sum()
    share = min(max(START_SHARE, mass / (1 + mass)), MAX_SHARE)
    # Tempered, as bootstrap frequencies are: their masses are rough.
    tempered = np.sqrt(added.masses)
    weights = np.concatenate([(1 - share) * probabilities, share * tempered / tempered.sum()])
    index = support.index(np.concatenate([topologies, added.children]))
    return rooting_averaged_logits(support, index, weights)


def _new_logits(
    support: Support, logits: np.ndarray, targets: np.ndarray, is_known: Bool[np.ndarray, "parameter"]
) -> Float64[np.ndarray, "component parameter"]:
    """What every logit would be if it were new: as the targets have it, against the known ones' parent."""
    parent, starts = support.tables.parameter_parent, support.parent_start[:-1]

    def log_total_of_known(values: np.ndarray) -> np.ndarray:
        """Log of the sum of exponentials over the known children of every parameter's parent."""
        total = np.logaddexp.reduceat(np.where(is_known, values, -np.inf), starts, axis=-1)
        return np.take(total, parent, axis=-1)

    total = log_total_of_known(targets)
    is_old_parent = np.isfinite(total)
    relative = np.minimum(targets - np.where(is_old_parent, total, 0.0), 0.0)
    return np.where(is_old_parent, log_total_of_known(logits) + relative, targets)


def _fill_table(
    table: Float64[np.ndarray, "component feature_and_dummy 3"],
    is_set: Bool[np.ndarray, "feature_and_dummy"],
    support: Support,
    added: NearTopologies,
    with_psp: bool,
) -> None:
    """Set the rows that are not set yet, those of the heaviest topologies first."""
    beside = support.index(added.beside, with_psp).feature_index
    for i, rows in enumerate(support.index(added.children, with_psp).feature_index):
        wanted = np.zeros((len(table), len(rows), 3))
        wanted[..., 0], wanted[..., 1] = added.log_length_mean[i], np.log(added.log_length_std[i])
        order = np.argsort(beside[i, :, 0])
        position = order[np.minimum(np.searchsorted(beside[i, order, 0], rows[:, 0]), len(order) - 1)]
        is_shared = beside[i, position, 0] == rows[:, 0]
        wanted[:, is_shared] = table[:, beside[i, position[is_shared]]].sum(axis=2)
        is_new = ~is_set[rows]
        num_new = np.maximum(is_new.sum(axis=1), 1)
        part = (wanted - table[:, rows].sum(axis=2)) / num_new[:, None]
        for k in range(rows.shape[1]):
            table[:, rows[is_new[:, k], k]] = part[:, is_new[:, k]]
        is_set[rows] = True
