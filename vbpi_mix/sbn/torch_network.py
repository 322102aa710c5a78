"""Log-probabilities of topologies in torch, differentiable with respect to the logits, on any device.

The same function as `vbpi_mix.sbn.network.SubsplitNetworks.log_probability`, arranged for an array
framework: in place of two passes over each tree, the log-probability of every rooting is a product of a
matrix of zeros and ones with gathered log-probabilities, for all trees and components at once. That costs
O(n^2) a tree.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from vbpi_mix.sbn._probability_kernels import rooting_terms
from vbpi_mix.sbn.support import Support, TopologyIndex

LOG_ZERO = -1e30
"""Stands for -inf where sums with zero coefficients must stay finite."""


@dataclass(frozen=True)
class RootingTerms:
    """Topologies, looked up in a support and laid out for `log_probability`.

    Attributes:
        at_root: Parameters used by the rooting on each branch and by no other: rootsplit and both sides'
            subsplits.
        elsewhere: Parameters that a branch adds to other rootings; see
            `vbpi_mix.sbn._probability_kernels.rooting_terms`.
        is_outside: 1 where rooting e lies neither below branch c nor below its sibling [tree, e, c].
        is_below_sibling: 1 where rooting e lies below the sibling of c [tree, e, c].
    """

    at_root: Int[torch.Tensor, "tree edge 3"]
    elsewhere: Int[torch.Tensor, "tree edge 3"]
    is_outside: Float[torch.Tensor, "tree edge edge"]
    is_below_sibling: Float[torch.Tensor, "tree edge edge"]

    @classmethod
    def of(cls, index: TopologyIndex, support: Support, like: torch.Tensor) -> "RootingTerms":
        """Lay out topologies on the device and in the precision of the tensor `like`."""
        num_trees, num_edges = index.root_index.shape
        terms = np.empty((num_trees, num_edges, 3), np.int32)
        in_subtree = np.empty((num_trees, num_edges, num_edges, 2), np.uint8)
        rooting_terms(index.children, index.parameter_index, support.num_parameters, terms, in_subtree)
        at_root = np.stack(
            [index.root_index, index.parameter_index[:, 0::2, 0], index.parameter_index[:, 1::2, 0]], -1
        )
        below = torch.from_numpy(in_subtree).to(like).transpose(1, 2)
        return cls(
            torch.from_numpy(at_root).to(like.device, torch.int64),
            torch.from_numpy(terms).to(like.device, torch.int64),
            1.0 - below[..., 0] - below[..., 1],
            below[..., 1],
        )


def log_parameters(
    logits: Float[torch.Tensor, "component parameter"], parameter_parent: Int[torch.Tensor, "parameter"]
) -> Float[torch.Tensor, "component parameter_and_two"]:
    """Log-probability of every parameter given its parent; the two last entries are `LOG_ZERO` and 0.

    Args:
        logits: Unnormalised log-probabilities.
        parameter_parent: Parent of every parameter.
    """
    num_components, num_parents = logits.shape[0], int(parameter_parent[-1]) + 1
    parent = parameter_parent.expand_as(logits)
    largest = torch.full((num_components, num_parents), -torch.inf, dtype=logits.dtype, device=logits.device)
    largest = largest.scatter_reduce(1, parent, logits.detach(), "amax")
    shifted = logits - largest.gather(1, parent)
    total = torch.zeros_like(largest).scatter_add(1, parent, shifted.exp())
    log_q = shifted - total.log().gather(1, parent)
    ends = logits.new_tensor([LOG_ZERO, 0.0]).expand(num_components, 2)
    return torch.cat([log_q, ends], dim=1)


def log_probability(
    log_q: Float[torch.Tensor, "denominator parameter_and_two"], terms: RootingTerms
) -> Float[torch.Tensor, "tree denominator"]:
    """log q_d(tau) in nats; -inf outside the support. Gradients flow to `log_q`."""

    def gather(index: torch.Tensor) -> torch.Tensor:
        return log_q.t()[index]  # [tree, edge, denominator]

    rooting = (
        gather(terms.at_root[..., 0]) + gather(terms.at_root[..., 1]) + gather(terms.at_root[..., 2])
        + terms.is_outside @ gather(terms.elsewhere[..., 0])
        + terms.is_below_sibling @ (gather(terms.elsewhere[..., 1]) + gather(terms.elsewhere[..., 2]))
    )  # fmt: skip
    total = torch.logsumexp(rooting, dim=1)
    return torch.where(total < 0.5 * LOG_ZERO, -torch.inf, total)
