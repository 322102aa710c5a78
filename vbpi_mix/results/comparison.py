"""Agreement of an approximate posterior over topologies with a reference posterior.

With reference probabilities p and approximate ones q (each normalised over all topologies):

- *coverage*: reference mass on topologies that q gives positive probability;
- *KL divergence*, sum p log(p / q) over the covered topologies only, with p renormalised there: without the
  renormalisation it could be negative, and without the restriction it would be infinite for a single
  missing tree;
- *total variation*, (1/2) sum ``|p - q|`` over the union of both supports: what q holds outside the reference
  counts in full.

A trained mixture gives exact probabilities for the reference's topologies, and what it holds elsewhere is
the rest of 1. Importance-corrected probabilities live on the drawn topologies only.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int, Int32

from vbpi_mix.trees.summaries import SplitTable


@dataclass(frozen=True)
class Agreement:
    """How an approximate posterior over topologies agrees with a reference.

    Attributes:
        coverage: Reference probability of the topologies that have positive approximate probability.
        kl: KL(reference || approximation) in nats over the covered topologies, the reference renormalised
            there; None where nothing is covered.
        total_variation: Total variation distance over the union of both supports, between 0 and 1.
    """

    coverage: float
    kl: float | None
    total_variation: float


@dataclass(frozen=True)
class SplitAgreement:
    """Absolute differences of split probabilities, over the splits that either posterior gives enough.

    Attributes:
        maximum: Largest difference.
        mean: Mean difference.
        num_splits: Number of splits compared.
    """

    maximum: float
    mean: float
    num_splits: int


def agreement(
    reference: Float64[np.ndarray, "topology"], log_q: Float64[np.ndarray, "topology"], mass_elsewhere: float
) -> Agreement:
    """Agreement of q with a reference, from their values on the reference's topologies.

    Args:
        reference: Reference weights of distinct topologies, non-negative; normalised here.
        log_q: Log of the approximate probabilities of the same topologies; minus infinity outside q's
            support.
        mass_elsewhere: Probability under q of all other topologies.

    Raises:
        ValueError: The reference has no mass, or a negative weight.
    """
    if np.any(reference < 0) or not reference.sum() > 0:
        raise ValueError(
            "expected non-negative reference weights with a positive sum, "
            f"got a least weight of {reference.min():g} and a sum of {reference.sum():g}"
        )
    p = reference / reference.sum()
    is_covered = np.isfinite(log_q) & (p > 0)
    coverage = float(p[is_covered].sum())
    covered = p[is_covered] / coverage if coverage > 0 else p[is_covered]
    return Agreement(
        coverage=min(coverage, 1.0),
        kl=float(np.sum(covered * (np.log(covered) - log_q[is_covered]))) if coverage > 0 else None,
        total_variation=float(0.5 * (np.abs(p - np.exp(log_q)).sum() + mass_elsewhere)),
    )


def compare_exact(
    reference: Float64[np.ndarray, "topology"], log_q: Float64[np.ndarray, "topology"]
) -> Agreement:
    """Agreement of a network or mixture with a reference, from its exact log probabilities.

    Args:
        reference: Reference weights of distinct topologies.
        log_q: Exact log q(tau) of the same topologies; minus infinity outside the support. q is normalised
            over all topologies, so what it holds elsewhere is what these leave of 1.
    """
    return agreement(reference, log_q, mass_elsewhere=max(0.0, 1.0 - float(np.exp(log_q).sum())))


def compare_drawn(
    reference_topologies: Int32[np.ndarray, "topology internal 2"],
    reference: Float64[np.ndarray, "topology"],
    topologies: Int32[np.ndarray, "unique internal 2"],
    log_probabilities: Float64[np.ndarray, "unique"],
) -> Agreement:
    """Agreement of probabilities on a finite set of topologies (corrected, or a sample's) with a reference.

    Args:
        reference_topologies: Distinct canonical topologies.
        reference: Their reference weights.
        topologies: Distinct canonical topologies of the same taxa in the same order.
        log_probabilities: Log of their approximate probabilities, which sum to 1.
    """
    position = match_topologies(reference_topologies, topologies)
    is_found = position >= 0
    log_q = np.where(is_found, log_probabilities[position], -np.inf)
    is_elsewhere = np.ones(len(topologies), dtype=bool)
    is_elsewhere[position[is_found]] = False
    return agreement(reference, log_q, mass_elsewhere=float(np.exp(log_probabilities[is_elsewhere]).sum()))


def match_topologies(
    wanted: Int32[np.ndarray, "topology internal 2"], among: Int32[np.ndarray, "unique internal 2"]
) -> Int[np.ndarray, "topology"]:
    """Position of each wanted canonical topology among some distinct ones; -1 where it is not there."""
    position = {row.tobytes(): i for i, row in enumerate(among)}
    return np.array([position.get(row.tobytes(), -1) for row in wanted], dtype=np.int64)


def compare_splits(reference: SplitTable, approximation: SplitTable, minimum: float = 0.1) -> SplitAgreement:
    """Absolute differences between the probabilities of nontrivial splits.

    Args:
        reference: Splits of the reference.
        approximation: Splits of the approximation, for the same taxa in the same order.
        minimum: Splits are compared where either probability is at least this (0.1 is MrBayes' habit for its
            average standard deviation of split frequencies).
    """
    p_of, q_of = inner_splits(reference), inner_splits(approximation)
    pairs = [(p_of.get(mask, 0.0), q_of.get(mask, 0.0)) for mask in p_of.keys() | q_of.keys()]
    differences = [abs(p - q) for p, q in pairs if max(p, q) >= minimum]
    if not differences:
        return SplitAgreement(maximum=0.0, mean=0.0, num_splits=0)
    return SplitAgreement(max(differences), math.fsum(differences) / len(differences), len(differences))


def inner_splits(table: SplitTable) -> dict[bytes, float]:
    """Frequencies of the splits that cut off more than one taxon."""
    return {
        mask.tobytes(): float(frequency)
        for mask, size, frequency in zip(table.masks, table.sizes, table.frequencies, strict=True)
        if size > 1
    }
