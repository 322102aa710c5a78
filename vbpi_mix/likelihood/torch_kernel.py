"""The likelihood in torch: any device, batches of trees of different topologies, any `SubstitutionModel`.

The internal nodes are visited in the order of their numbers, which is a post-order in every topology; the
i-th internal nodes of all trees are handled at once, their children's partials being gathered by number. So
n - 2 steps serve the whole batch. Notation as in `_general_kernel`: messages ``m[x] = sum_y P[x, y] L[y]``
go up, and the backward pass is a hand-written pre-order: D, the derivative with respect to the partial L of
a node, gives each child ``U = D * m_sibling``, the derivative ``G[x, y] = sum_patterns U[x] L[y]`` with
respect to its transition matrix, and its own ``D[y] = sum_x U[x] P[x, y]``.

Every partial is divided, pattern by pattern, by the power of two that brings its largest entry over states
and categories into [1/2, 1); the logarithms are added at the end. In the backward pass D is multiplied by
the same factor.
"""

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int

from vbpi_mix.errors import NonFiniteError
from vbpi_mix.likelihood.base import LogLikelihoods
from vbpi_mix.likelihood.models import SubstitutionModel
from vbpi_mix.patterns import SitePatterns
from vbpi_mix.shapes import BranchLengths, Topologies
from vbpi_mix.trees.topology import validate


def log_likelihood(
    children: Int[torch.Tensor, "tree internal 2"],
    transitions: Float[torch.Tensor, "tree edge category 4 4"],
    root_weights: Float[torch.Tensor, "category 4"],
    leaf_partials: Float[torch.Tensor, "taxon pattern 4"],
    pattern_weights: Float[torch.Tensor, "pattern"],
) -> Float64[torch.Tensor, "tree"]:
    """Log-likelihood of every tree in nats; gradients flow to `transitions` and `root_weights`.

    A tree of likelihood zero has the value minus infinity and no gradient (zeros).

    Args:
        children: Topologies, as defined in `vbpi_mix.trees.topology`.
        transitions: Transition matrix of every branch in every category, from the state at the branch's
            upper end.
        root_weights: Weight of the category times frequency of the state at the root.
        leaf_partials: One for the states that a datum allows, zero for the others.
        pattern_weights: Number of sites that show each pattern.

    Returns:
        Float64 whatever the dtype of the other arguments, which must be one and the same.
    """
    return _PrunedLogLikelihood.apply(children, transitions, root_weights, leaf_partials, pattern_weights)


def transition_matrices(
    branch_lengths: Float[torch.Tensor, "tree edge"],
    rates: Float[torch.Tensor, "category"],
    values: Float[torch.Tensor, "4"],
    right: Float[torch.Tensor, "4 4"],
    left: Float[torch.Tensor, "4 4"],
) -> Float[torch.Tensor, "tree edge category 4 4"]:
    """Transition matrices ``I + right diag(expm1(values rate t)) left``, differentiable in all arguments.

    Args:
        branch_lengths: Expected substitutions per site.
        rates: Rate of each category.
        values: Eigenvalues of the rate matrix.
        right: Its right eigenvectors, as columns.
        left: The inverse of `right`.
    """
    change = torch.expm1(branch_lengths[..., None, None] * rates[:, None] * values)
    identity = torch.eye(4, dtype=branch_lengths.dtype, device=branch_lengths.device)
    return identity + (right * change[..., None, :]) @ left


class _PrunedLogLikelihood(torch.autograd.Function):
    """Felsenstein's pruning with a hand-written backward pass; the derivation is in the module's docstring.

    Messages and partials are laid out [node, tree, category, pattern, state].
    """

    @staticmethod
    def forward(
        ctx: Any,
        children: torch.Tensor,
        transitions: torch.Tensor,
        root_weights: torch.Tensor,
        leaf_partials: torch.Tensor,
        pattern_weights: torch.Tensor,
    ) -> torch.Tensor:
        num_trees, num_internal, _ = children.shape
        num_taxa, num_patterns, _ = leaf_partials.shape
        num_categories = transitions.shape[2]
        trees = torch.arange(num_trees, device=children.device)
        shape = (2 * num_taxa - 2, num_trees, num_categories, num_patterns, 4)
        partials = leaf_partials.new_empty(shape)
        messages = leaf_partials.new_empty(shape)
        factors = leaf_partials.new_empty((num_internal, num_trees, num_patterns))
        exponents = torch.zeros((num_trees, num_patterns), dtype=torch.float64, device=children.device)
        partials[:num_taxa] = leaf_partials[:, None, None]
        smallest_exponent = round(math.log2(torch.finfo(partials.dtype).tiny)) + 2
        upward = transitions.transpose(-1, -2)
        for leaf in range(num_taxa):
            messages[leaf] = partials[leaf] @ upward[:, leaf]
        for i in range(num_internal):
            node = num_taxa + i
            product = messages[children[:, i, 0], trees] * messages[children[:, i, 1], trees]
            exponent = torch.frexp(product.amax((1, 3))).exponent.clamp(min=smallest_exponent)
            factors[i] = torch.ldexp(torch.ones_like(factors[i]), -exponent)
            exponents += exponent
            partials[node] = product * factors[i][:, None, :, None]
            if i < num_internal - 1:
                messages[node] = partials[node] @ upward[:, node]
        likelihoods = torch.einsum("cx,tcsx->ts", root_weights, partials[-1] * messages[num_taxa - 1])
        logs = torch.log(likelihoods.to(torch.float64)) + exponents * math.log(2.0)
        log_likelihoods = logs @ pattern_weights.to(torch.float64)
        ctx.save_for_backward(
            children, transitions, root_weights, pattern_weights, partials, messages, factors, likelihoods
        )
        return log_likelihoods

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *cotangents: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        children, transitions, root_weights, pattern_weights, partials, messages, factors, likelihoods = (
            ctx.saved_tensors
        )
        num_trees, num_internal, _ = children.shape
        num_taxa = num_internal + 2
        trees = torch.arange(num_trees, device=children.device)
        is_possible = (likelihoods > 0).all(1, keepdim=True)
        scale = torch.where(is_possible, cotangents[0][:, None].to(likelihoods.dtype), 0.0)
        site = scale * pattern_weights / torch.where(is_possible, likelihoods, 1.0)
        root = site[:, None, :, None] * root_weights[:, None, :]
        top, last = partials[-1], messages[num_taxa - 1]
        d_root_weights = torch.einsum("ts,tcsx,tcsx->cx", site, top, last)
        d_transitions = torch.zeros_like(transitions)
        d_transitions[:, num_taxa - 1] = (root * top).transpose(-1, -2) @ partials[num_taxa - 1]
        outer = torch.empty_like(messages)
        outer[-1] = root * last
        for i in range(num_internal - 1, -1, -1):
            scaled = outer[num_taxa + i] * factors[i][:, None, :, None]
            first, second = children[:, i, 0], children[:, i, 1]
            for child, sibling in ((first, second), (second, first)):
                d_message = scaled * messages[sibling, trees]
                d_transitions[trees, child] = d_message.transpose(-1, -2) @ partials[child, trees]
                outer[child, trees] = d_message @ transitions[trees, child]
        return None, d_transitions, d_root_weights, None, None


class TorchLikelihood:
    """Likelihood in torch on one device; satisfies `TreeLikelihood`."""

    def __init__(
        self, patterns: SitePatterns, model: SubstitutionModel, *, dtype: str = "float64", device: str = "cpu"
    ) -> None:
        merged = patterns.merge_relabelled() if model.is_jc69 else patterns
        self._dtype = {"float64": torch.float64, "float32": torch.float32}[dtype]
        self._device = torch.device(device)
        self._num_taxa = patterns.num_taxa
        bits = merged.states[:, :, None] >> np.arange(4, dtype=np.uint8) & 1
        self._leaf_partials = self._tensor(bits)
        self._pattern_weights = self._tensor(merged.weights)
        self._root_weights = self._tensor(np.outer(model.category_weights, model.frequencies))
        self._rates = self._float64(model.category_rates)
        self._eigen = tuple(self._float64(part) for part in model.eigen_system())

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.tensor(array, dtype=self._dtype, device=self._device)

    def _float64(self, array: np.ndarray) -> torch.Tensor:
        return torch.tensor(array, dtype=torch.float64, device=self._device)

    def log_likelihood(
        self, children: Int[torch.Tensor, "tree internal 2"], branch_lengths: Float[torch.Tensor, "tree edge"]
    ) -> Float64[torch.Tensor, "tree"]:
        """Log-likelihood of every tree in nats, differentiable in the branch lengths; nothing is checked.

        Args:
            children: Topologies, as defined in `vbpi_mix.trees.topology`, on the device of this object.
            branch_lengths: Expected substitutions per site, on the device of this object; finite, not
                negative.
        """
        transitions = transition_matrices(branch_lengths.to(torch.float64), self._rates, *self._eigen)
        return log_likelihood(
            children.long(),
            transitions.clamp(min=0.0).to(self._dtype),
            self._root_weights,
            self._leaf_partials,
            self._pattern_weights,
        )

    def value(
        self, children: Topologies, branch_lengths: BranchLengths, *, out: LogLikelihoods | None = None
    ) -> LogLikelihoods:
        """Log-likelihood of every tree: see `TreeLikelihood.value`."""
        self._check(children, branch_lengths)
        with torch.no_grad():
            values = self.log_likelihood(
                torch.tensor(children, device=self._device), self._float64(branch_lengths)
            )
        return _written(values, out)

    def value_and_gradient(
        self,
        children: Topologies,
        branch_lengths: BranchLengths,
        *,
        out: tuple[LogLikelihoods, BranchLengths] | None = None,
    ) -> tuple[LogLikelihoods, BranchLengths]:
        """Log-likelihood of every tree and its branch gradient: see `TreeLikelihood.value_and_gradient`."""
        self._check(children, branch_lengths)
        lengths = self._float64(branch_lengths).requires_grad_()
        values = self.log_likelihood(torch.tensor(children, device=self._device), lengths)
        (gradient,) = torch.autograd.grad(values.sum(), lengths)
        buffers = (None, None) if out is None else out
        return _written(values.detach(), buffers[0]), _written(gradient, buffers[1])

    def _check(self, children: np.ndarray, branch_lengths: np.ndarray) -> None:
        shape = (children.shape[0], self._num_taxa - 2, 2)
        if children.shape != shape or branch_lengths.shape != (shape[0], 2 * self._num_taxa - 3):
            raise ValueError(
                f"For trees of {self._num_taxa} taxa, children must have shape {shape} and branch_lengths "
                f"{(shape[0], 2 * self._num_taxa - 3)}, got {children.shape} and {branch_lengths.shape}."
            )
        validate(children)
        if not np.isfinite(branch_lengths).all():
            raise NonFiniteError("All branch lengths must be finite.")
        if (branch_lengths < 0).any():
            raise ValueError(f"Branch lengths must not be negative, the smallest is {branch_lengths.min()}.")


def _written(tensor: torch.Tensor, out: np.ndarray | None) -> np.ndarray:
    """The tensor as a numpy array: in `out`, unless that is None."""
    array = tensor.cpu().numpy()
    if out is None:
        return array
    out[:] = array
    return out
