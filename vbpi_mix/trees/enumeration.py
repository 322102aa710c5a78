"""How many unrooted binary topologies there are, and all of them where that is possible."""

import math

import numpy as np

from vbpi_mix.shapes import Topologies
from vbpi_mix.trees.topology import topologies_from_choices

MAX_ENUMERATED_TAXA = 9
"""Largest number of taxa whose topologies are enumerated: 135,135 of 9 taxa, 2,027,025 of 10."""


def num_topologies(num_taxa: int) -> int:
    """Number of unrooted binary topologies, (2n-5)!! = 1 * 3 * 5 * ... * (2n-5)."""
    _check(num_taxa)
    return math.prod(range(2 * num_taxa - 5, 0, -2))


def log_num_topologies(num_taxa: int) -> float:
    """Natural logarithm of (2n-5)!! = (2n-4)! / (2^(n-2) (n-2)!)."""
    _check(num_taxa)
    return math.lgamma(2 * num_taxa - 3) - (num_taxa - 2) * math.log(2) - math.lgamma(num_taxa - 1)


def all_topologies(num_taxa: int) -> Topologies:
    """All unrooted binary topologies, canonical, each once, [(2n-5)!!, internal, 2].

    Raises:
        ValueError: for fewer than 3 or more than 9 taxa.
    """
    _check(num_taxa)
    if num_taxa > MAX_ENUMERATED_TAXA:
        raise ValueError(f"expected at most {MAX_ENUMERATED_TAXA} taxa to enumerate, got {num_taxa}")
    sizes = tuple(range(3, 2 * num_taxa - 4, 2))
    choices = np.indices(sizes, np.int64).reshape(len(sizes), num_topologies(num_taxa))
    return topologies_from_choices(choices.T)


def _check(num_taxa: int) -> None:
    if num_taxa < 3:
        raise ValueError(f"expected at least 3 taxa, got {num_taxa}")
