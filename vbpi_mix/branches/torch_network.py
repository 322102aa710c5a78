"""Branch-length networks of the torch engine: what a network must offer, and the parameter table as one.

A `BranchNetwork` draws log branch lengths and gives their log densities under any components; anything
differentiable may stand behind it. `TableNetwork` holds the table of `vbpi_mix.branches.network` and is the
same model as the compiled engine's, on any device.

Gradients. An objective's cotangents come in two kinds for each log density: on its derivative through the
branch lengths (the path) and on its direct derivative in the parameters. `accumulate_gradients` evaluates the
density once, at branch lengths cut off from their graph, and differentiates it twice: in the branch lengths,
which gives what is pushed through the draw, and in the parameters.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vbpi_mix.branches import densities
from vbpi_mix.branches.network import BranchDensity, BranchFeatures, BranchParameters


@dataclass(frozen=True)
class TreeBatch:
    """Topologies of a batch, in the forms that branch-length networks read, all on one device.

    Attributes:
        children: topology arrays as in `vbpi_mix.trees.topology`, for networks that work on the tree itself.
        feature_index: rows of each branch's split and PSPs, for networks that are tables of the support.
    """

    children: Int[Tensor, "tree internal 2"]
    feature_index: Int[Tensor, "tree edge 3"]


@runtime_checkable
class BranchNetwork(Protocol):
    """Distribution of log branch lengths given a topology, for each component of a mixture."""

    def draw(
        self,
        trees: TreeBatch,
        component_of_tree: Int[Tensor, " tree"],
        noise: Float[Tensor, "tree edge"],
    ) -> Float[Tensor, "tree edge"]:
        """Log branch lengths that each tree's component makes from standard normal noise, differentiably."""

    def log_density(
        self,
        trees: TreeBatch,
        log_lengths: Float[Tensor, "tree edge"],
        components: Int[Tensor, " denominator"],
    ) -> Float[Tensor, "tree denominator"]:
        """Log density of the log branch lengths under these components, in nats, summed over branches."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Parameters to be trained, as `torch.nn.Module` gives them."""


@dataclass(frozen=True)
class BranchValues:
    """Parameters of every branch's density; the lognormal has no skew."""

    loc: Float[Tensor, "*batch edge"]
    log_scale: Float[Tensor, "*batch edge"]
    skew: Float[Tensor, "*batch edge"] | None


class TableNetwork(nn.Module):
    """Branch parameters as sums of three rows of a table; see `vbpi_mix.branches.network`.

    Attributes:
        features: model that the features were numbered for.
        density: family of the log branch lengths.
        table: trained rows, [component, feature, 3], without the dummy.
    """

    table: nn.Parameter

    def __init__(self, parameters: BranchParameters) -> None:
        super().__init__()
        self.features: BranchFeatures = parameters.features
        self.density: BranchDensity = parameters.density
        self.table = nn.Parameter(torch.tensor(parameters.table[:, :-1]))

    def to_parameters(self) -> BranchParameters:
        """Copy of the table, dummy row included, for the compiled engine."""
        rows = nn.functional.pad(self.table.detach(), (0, 0, 0, 1)).to("cpu", torch.float64)
        return BranchParameters(rows.numpy().copy(), self.features, self.density)

    def forward(
        self,
        components: Int[Tensor, "*batch tree"],
        feature_index: Int[Tensor, "tree edge 3"],
    ) -> BranchValues:
        """Location, log scale and skew [*batch, tree, edge] of every branch, for one component a tree."""
        padded = nn.functional.pad(self.table, (0, 0, 0, 1))
        # [*batch, tree, 1, 1] with [tree, edge, 3] picks [*batch, tree, edge, 3 rows, 3 columns].
        sums = padded[components[..., None, None].long(), feature_index.long()].sum(-2)
        loc, log_scale, skew = sums.unbind(-1)
        return BranchValues(loc, log_scale, None if self.density is BranchDensity.LOGNORMAL else skew)

    def draw(
        self,
        trees: TreeBatch,
        component_of_tree: Int[Tensor, " tree"],
        noise: Float[Tensor, "tree edge"],
    ) -> Float[Tensor, "tree edge"]:
        """See `BranchNetwork.draw`."""
        values = self(component_of_tree, trees.feature_index)
        return densities.transform(noise, values.loc, values.log_scale, values.skew)

    def log_density(
        self,
        trees: TreeBatch,
        log_lengths: Float[Tensor, "tree edge"],
        components: Int[Tensor, " denominator"],
    ) -> Float[Tensor, "tree denominator"]:
        """See `BranchNetwork.log_density`."""
        num_trees = log_lengths.shape[0]
        values = self(components[:, None].expand(-1, num_trees), trees.feature_index)
        terms = densities.log_density(log_lengths, values.loc, values.log_scale, values.skew)
        return terms.sum(-1).T


@dataclass(frozen=True)
class Draw:
    """Log branch lengths of a batch, their densities, and the graphs that lead back to the parameters.

    Attributes:
        log_lengths: [tree, edge], attached to the parameters through the draw.
        cut: the same numbers, a leaf of the graph of ``log_density``.
        log_density: [tree, denominator] in nats, of ``cut``.
    """

    log_lengths: Float[Tensor, "tree edge"]
    cut: Float[Tensor, "tree edge"]
    log_density: Float[Tensor, "tree denominator"]


def draw_with_density(
    network: BranchNetwork,
    trees: TreeBatch,
    component_of_tree: Int[Tensor, " tree"],
    noise: Float[Tensor, "tree edge"],
    denominators: Int[Tensor, " denominator"],
) -> Draw:
    """Draw log branch lengths and evaluate their densities, ready for `accumulate_gradients`."""
    log_lengths = network.draw(trees, component_of_tree, noise)
    cut = log_lengths.detach().requires_grad_()
    return Draw(log_lengths, cut, network.log_density(trees, cut, denominators))


def accumulate_gradients(
    network: BranchNetwork,
    draw: Draw,
    d_path: Float[Tensor, "tree denominator"],
    d_score: Float[Tensor, "tree denominator"],
    d_log_lengths: Float[Tensor, "tree edge"],
) -> Float[Tensor, "tree edge"]:
    """Add the gradient of an objective to ``grad`` of the network's parameters; its graph is used up.

    Args:
        network: what made the draw.
        draw: from `draw_with_density`.
        d_path: cotangents of the log densities as functions of the log branch lengths.
        d_score: cotangents of the log densities as functions of their parameters.
        d_log_lengths: cotangents of the log branch lengths from elsewhere (likelihood, prior).

    Returns:
        The whole cotangent of the log branch lengths: d_log_lengths and the densities' path.
    """
    path = torch.autograd.grad(draw.log_density, draw.cut, d_path, retain_graph=True)[0]
    total = d_log_lengths + path
    parameters = list(network.parameters())
    torch.autograd.backward([draw.log_density, draw.log_lengths], [d_score, total], inputs=parameters)
    return total
