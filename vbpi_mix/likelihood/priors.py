"""Prior densities of topologies and branch lengths.

Branch lengths are handled as their logarithms x = log b, so their prior density carries the Jacobian b =
exp(x) of the change of variable: independent b ~ Exponential(rate) make ``log p(x) = log(rate) - rate *
exp(x) + x`` and ``d log p / dx = 1 - rate * exp(x)`` on every branch.
"""

import math
from dataclasses import dataclass
from typing import Any

from array_api_compat import array_namespace
from jaxtyping import Float


def log_topology_prior(num_taxa: int) -> float:
    """Log probability ``-log (2n - 5)!!`` of every unrooted binary topology of n labelled taxa.

    Args:
        num_taxa: Number n of taxa, three or more.
    """
    if num_taxa < 3:
        raise ValueError(f"An unrooted binary topology has three or more taxa, got {num_taxa}.")
    return -math.fsum(math.log(k) for k in range(3, 2 * num_taxa - 4, 2))


@dataclass(frozen=True)
class ExponentialBranchPrior:
    """Independent exponential branch lengths, as a density of their logarithms.

    Attributes:
        rate: Rate of the exponential distribution; its inverse is the mean branch length, in expected
            substitutions per site.
    """

    rate: float = 10.0

    def __post_init__(self) -> None:
        if not (self.rate > 0 and math.isfinite(self.rate)):
            raise ValueError(f"The rate of the branch prior must be positive and finite, got {self.rate}.")

    def log_density(self, log_branch_lengths: Float[Any, "*batch edge"]) -> Float[Any, "*batch"]:
        """Log density of log branch lengths, Jacobian included, summed over the branches of each tree.

        Args:
            log_branch_lengths: Logarithms of branch lengths: a numpy array or a torch tensor.

        Returns:
            Array of the same kind, in nats.
        """
        xp = array_namespace(log_branch_lengths)
        return self.log_density_of(log_branch_lengths, xp.exp(log_branch_lengths))

    def log_density_of(
        self, log_branch_lengths: Float[Any, "*batch edge"], branch_lengths: Float[Any, "*batch edge"]
    ) -> Float[Any, "*batch"]:
        """`log_density` where the branch lengths themselves are at hand too."""
        num_edges = log_branch_lengths.shape[-1]
        return (
            num_edges * math.log(self.rate) + log_branch_lengths.sum(-1) - self.rate * branch_lengths.sum(-1)
        )

    def gradient(self, log_branch_lengths: Float[Any, "*batch edge"]) -> Float[Any, "*batch edge"]:
        """Derivative ``1 - rate * b`` of `log_density` with respect to every log branch length.

        Args:
            log_branch_lengths: Logarithms of branch lengths: a numpy array or a torch tensor.
        """
        xp = array_namespace(log_branch_lengths)
        return self.gradient_of(xp.exp(log_branch_lengths))

    def gradient_of(self, branch_lengths: Float[Any, "*batch edge"]) -> Float[Any, "*batch edge"]:
        """`gradient` where the branch lengths themselves are at hand."""
        return 1.0 - self.rate * branch_lengths
