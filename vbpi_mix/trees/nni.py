"""Nearest-neighbour interchanges of a tree with branch lengths.

An interchange exchanges two of the four subtrees around an inner branch. Every branch keeps its length: the
inner branch, and those that the subtrees hang from.
"""

import numpy as np
from jaxtyping import Float64, Int32, Int64

from vbpi_mix.shapes import BranchLengths, Topologies
from vbpi_mix.trees import _nni_kernels as kernels


def neighbour_trees(
    children: Int32[np.ndarray, "internal 2"], branch_lengths: Float64[np.ndarray, " edge"]
) -> tuple[Topologies, BranchLengths]:
    """The 2(n-3) trees one interchange away: topologies in the order of `nni_neighbours`, and lengths."""
    num_neighbours = 2 * (len(children) - 1)
    neighbours = np.empty((num_neighbours, *children.shape), np.int32)
    lengths = np.empty((num_neighbours, len(branch_lengths)))
    kernels.fill_neighbour_trees(children, branch_lengths, neighbours, lengths)
    return neighbours, lengths


def interchange(
    children: Int32[np.ndarray, "internal 2"],
    branch_lengths: Float64[np.ndarray, " edge"],
    chosen: Int64[np.ndarray, " chosen"],
) -> tuple[Int32[np.ndarray, "internal 2"], Float64[np.ndarray, " edge"]]:
    """The canonical tree after several interchanges at once.

    Args:
        children: Topology.
        branch_lengths: Its branch lengths.
        chosen: Positions among `neighbour_trees`, the most wanted first: one whose inner branch has a node in
            common with that of an earlier one is left out.
    """
    result, lengths = np.empty_like(children), np.empty_like(branch_lengths)
    kernels.interchange(children, branch_lengths, chosen, result, lengths)
    return result, lengths
