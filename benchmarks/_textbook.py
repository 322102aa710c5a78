"""The likelihood as a textbook has it: tree objects, one tree at a time, automatic differentiation.

What the kernels of the package are compared with; not what is fast in this style, but what is usual.
"""

import math
from dataclasses import dataclass, field

import numpy as np
import torch


@dataclass
class Node:
    """A node of a tree and the branch above it.

    Attributes:
        branch: Number of the branch above; None for the root.
        taxon: Number of the taxon; None for internal nodes.
        children: The nodes below.
    """

    branch: int | None
    taxon: int | None = None
    children: list["Node"] = field(default_factory=list)


def build_tree(children: np.ndarray) -> Node:
    """Tree object of a topology [internal, 2], with three nodes below the root."""
    num_taxa = len(children) + 2
    nodes = [Node(branch=taxon, taxon=taxon) for taxon in range(num_taxa)]
    for i, pair in enumerate(children.tolist()):
        nodes.append(Node(branch=num_taxa + i, children=[nodes[child] for child in pair]))
    root = nodes[-1]
    root.branch = None
    root.children.append(nodes[num_taxa - 1])
    return root


def partial(node: Node, leaf_partials: torch.Tensor, transitions: torch.Tensor) -> torch.Tensor:
    """Probabilities of the data below a node given its state [pattern, state], by recursion."""
    if node.taxon is not None:
        return leaf_partials[node.taxon]
    result = None
    for child in node.children:
        message = partial(child, leaf_partials, transitions) @ transitions[child.branch].T
        result = message if result is None else result * message
    return result


def value_and_gradient(
    children: np.ndarray, branch_lengths: np.ndarray, leaf_partials: torch.Tensor, weights: torch.Tensor
) -> tuple[float, np.ndarray]:
    """Log-likelihood of one tree under JC69 and its gradient [edge].

    Args:
        children: Topology [internal, 2].
        branch_lengths: Branch lengths [edge].
        leaf_partials: Partials of the leaves [taxon, pattern, state], float64.
        weights: Weights of the patterns [pattern], float64.
    """
    lengths = torch.from_numpy(branch_lengths.copy()).requires_grad_()
    decay = torch.exp(-4.0 / 3.0 * lengths)[:, None, None]
    transitions = decay * torch.eye(4, dtype=torch.float64) + (1.0 - decay) / 4.0
    root = build_tree(children)
    site_likelihoods = partial(root, leaf_partials, transitions).sum(1)
    total = (weights * (torch.log(site_likelihoods) - math.log(4.0))).sum()
    (gradient,) = torch.autograd.grad(total, lengths)
    return total.item(), gradient.numpy()
