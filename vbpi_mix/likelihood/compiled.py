"""The compiled likelihood: the kernels with their data and workspace.

The patterns are cut into blocks. A piece of work is one tree in one block; the threads take pieces from a
board, each with workspace of its own. Every piece writes its contribution to a place of its own, and these
are added up in the order of the blocks: so the result does not depend, to the last bit, on the number of
threads.
"""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from jaxtyping import Float64

from vbpi_mix.errors import NonFiniteError
from vbpi_mix.likelihood import _general_kernel as general_kernel
from vbpi_mix.likelihood import _jc_kernel as jc_kernel
from vbpi_mix.likelihood._board import GRADIENT, HELP, VALUE
from vbpi_mix.likelihood._scaling import BAD_TOPOLOGY, PLANNED
from vbpi_mix.likelihood.base import LogLikelihoods
from vbpi_mix.likelihood.layout import aligned, leaf_rows, weight_rows
from vbpi_mix.likelihood.models import SubstitutionModel
from vbpi_mix.likelihood.workers import Workers, new_board
from vbpi_mix.patterns import SitePatterns
from vbpi_mix.shapes import BranchLengths, Topologies

SMALLEST_EXPONENT = {"float64": -960.0, "float32": -100.0}
"""Exponents of two above which products of messages are kept, a little inside the range of each dtype."""


class _CompiledLikelihood(ABC):
    """What the compiled likelihoods share: batches of trees are planned, accumulated and collected."""

    def __init__(self, patterns: SitePatterns, block: int, threads: int, dtype: str) -> None:
        self._num_taxa = patterns.num_taxa
        self._dtype = dtype
        self._tips = leaf_rows(patterns, block, dtype)
        self._weights = weight_rows(patterns, block, dtype)
        self._workers = Workers(threads)
        self._generation = 0
        self._high = np.empty(2 * self._num_taxa - 2)

    def value(
        self, children: Topologies, branch_lengths: BranchLengths, *, out: LogLikelihoods | None = None
    ) -> LogLikelihoods:
        """Log-likelihood of every tree: see `TreeLikelihood.value`."""
        log_likelihood = np.empty(children.shape[0]) if out is None else out
        self._run(children, branch_lengths, log_likelihood, None)
        return log_likelihood

    def value_and_gradient(
        self,
        children: Topologies,
        branch_lengths: BranchLengths,
        *,
        out: tuple[LogLikelihoods, BranchLengths] | None = None,
    ) -> tuple[LogLikelihoods, BranchLengths]:
        """Log-likelihood of every tree and its branch gradient: see `TreeLikelihood.value_and_gradient`."""
        if out is None:
            out = np.empty(children.shape[0]), np.empty_like(branch_lengths)
        self._run(children, branch_lengths, *out)
        return out

    def _run(
        self, children: np.ndarray, branch_lengths: np.ndarray, value: np.ndarray, gradient: np.ndarray | None
    ) -> None:
        check_shapes(self._num_taxa, children, branch_lengths, value, gradient)
        self._workers.await_finish()  # of a call that a signal has ended
        self._prepare(children, branch_lengths)
        self._workers.wake()
        self._accumulate(0, VALUE if gradient is None else GRADIENT)
        self._workers.await_finish()
        self._collect(value, self._no_gradient if gradient is None else gradient)

    def _prepare(self, children: np.ndarray, branch_lengths: np.ndarray) -> None:
        """Make buffers if the number of trees is new, and fill those that depend on the tree alone."""
        if children.shape[0] != self._num_trees:
            self._allocate(children.shape[0])
        check_plan(self._plan(children, branch_lengths), children, branch_lengths)
        self._children[:] = children

    def _allocate(self, num_trees: int) -> None:
        """Make buffers for a batch of so many trees."""
        num_edges, num_blocks = 2 * self._num_taxa - 3, self._tips.shape[0]
        self._num_trees = num_trees
        self._generation += 1
        self._children = np.empty((num_trees, self._num_taxa - 2, 2), np.int32)
        self._is_scaled = np.empty((num_trees, self._num_taxa - 2), np.bool_)
        self._log_range = np.empty((2, num_trees, num_edges))
        self._block_values = np.empty((num_blocks, num_trees))
        self._block_gradients = np.empty((num_blocks, num_trees, num_edges))
        self._no_gradient = np.empty((0, num_edges))

    def _help(self, worker: int) -> None:
        """Help with jobs until they cease."""
        self._accumulate(worker, HELP)

    @abstractmethod
    def _plan(self, children: np.ndarray, branch_lengths: np.ndarray) -> tuple[int, int, int]:
        """Fill the branch buffers; returns what the kernel's plan returns."""

    @abstractmethod
    def _accumulate(self, worker: int, mode: int) -> None:
        """Call the kernel with a worker's workspace.

        Helpers call this while the caller's thread may be allocating buffers: all that depend on the number
        of trees, and their generation, are taken at once, from one tuple.
        """

    @abstractmethod
    def _collect(self, value: np.ndarray, gradient: np.ndarray) -> None:
        """Add up the block buffers."""


class CompiledJC69Likelihood(_CompiledLikelihood):
    """Compiled likelihood under the model of Jukes and Cantor (1969); satisfies `TreeLikelihood`."""

    def __init__(self, patterns: SitePatterns, *, threads: int = 1, dtype: str = "float64") -> None:
        merged = patterns.merge_relabelled()
        super().__init__(merged, jc_kernel.BLOCK, threads, dtype)
        self._total_weight = float(merged.weights.sum())
        node_shape = (self._num_taxa - 2, jc_kernel.NODE_ROWS, jc_kernel.BLOCK)
        site_shape = (jc_kernel.SITE_ROWS, jc_kernel.BLOCK)
        self._workspaces = [
            (aligned(node_shape, dtype), aligned(site_shape, dtype)) for _ in range(self._workers.count)
        ]
        self._allocate(0)
        self._workers.serve(self._help)

    def _allocate(self, num_trees: int) -> None:
        super()._allocate(num_trees)
        self._decay = np.empty((num_trees, 2 * self._num_taxa - 3), self._dtype)
        self._spread = np.empty_like(self._decay)
        self._buffers: tuple[Any, ...] = (
            self._generation,
            (self._children, self._decay, self._spread, self._is_scaled),
            (self._block_values, self._block_gradients),
        )

    def _plan(self, children: np.ndarray, branch_lengths: np.ndarray) -> tuple[int, int, int]:
        return jc_kernel.plan(
            children,
            branch_lengths,
            SMALLEST_EXPONENT[self._dtype],
            self._decay,
            self._spread,
            self._is_scaled,
            self._log_range,
            self._high,
        )

    def _accumulate(self, worker: int, mode: int) -> None:
        generation, trees, sums = self._buffers
        arguments = (
            self._workers.board,
            generation,
            mode,
            self._tips,
            self._weights,
            *trees,
            *self._workspaces[worker],
            *sums,
        )
        jc_kernel.accumulate(*arguments)

    def _collect(self, value: np.ndarray, gradient: np.ndarray) -> None:
        jc_kernel.collect(self._total_weight, self._block_values, self._block_gradients, value, gradient)


class CompiledGeneralLikelihood(_CompiledLikelihood):
    """Compiled likelihood under any `SubstitutionModel`; satisfies `TreeLikelihood`."""

    def __init__(
        self, patterns: SitePatterns, model: SubstitutionModel, *, threads: int = 1, dtype: str = "float64"
    ) -> None:
        block = general_kernel.BLOCK
        super().__init__(patterns, block, threads, dtype)
        self._model = model
        self._eigen = model.eigen_system()
        self._root_weights = np.outer(model.category_weights, model.frequencies).astype(dtype)
        num_nodes, num_internal = 2 * self._num_taxa - 2, self._num_taxa - 2
        node_shape = (num_nodes, model.num_categories, general_kernel.NODE_ROWS, block)
        self._workspaces = [
            (
                aligned(node_shape, dtype),
                aligned((num_internal, block), dtype),
                aligned((general_kernel.SITE_ROWS, block), dtype),
            )
            for _ in range(self._workers.count)
        ]
        self._spectrum = np.empty((2, 4))
        self._allocate(0)
        self._workers.serve(self._help)

    def transition_cotangents(
        self, children: Topologies, branch_lengths: BranchLengths
    ) -> Float64[np.ndarray, "tree edge category 4 4"]:
        """Derivatives of every tree's log-likelihood with respect to all entries of all transition matrices.

        By the chain rule they give the derivative with respect to anything the matrices depend on: a
        model's parameters or rates. The root frequencies and the category weights act elsewhere too. Runs
        on one thread.

        Args:
            children: Topologies, as defined in `vbpi_mix.trees.topology`.
            branch_lengths: Expected substitutions per site.

        Returns:
            Derivatives in nats per unit of probability; not defined for trees of likelihood zero.
        """
        check_shapes(self._num_taxa, children, branch_lengths)
        self._prepare(children, branch_lengths)
        cotangents = np.zeros((*branch_lengths.shape, self._model.num_categories, 4, 4))
        self._accumulate_with_cotangents(0, GRADIENT, new_board(), cotangents)
        return cotangents

    def _allocate(self, num_trees: int) -> None:
        super()._allocate(num_trees)
        matrices = (num_trees, 2 * self._num_taxa - 3, self._model.num_categories, 4, 4)
        self._transitions = np.empty(matrices, self._dtype)
        self._derivatives = np.empty(matrices, self._dtype)
        self._buffers: tuple[Any, ...] = (
            self._generation,
            (self._children, self._root_weights, self._transitions, self._derivatives, self._is_scaled),
            (self._block_values, self._block_gradients),
            np.empty((1, *matrices[1:])),
        )

    def _plan(self, children: np.ndarray, branch_lengths: np.ndarray) -> tuple[int, int, int]:
        return general_kernel.plan(
            children,
            branch_lengths,
            SMALLEST_EXPONENT[self._dtype],
            *self._eigen,
            self._model.category_rates,
            self._transitions,
            self._derivatives,
            self._is_scaled,
            self._log_range,
            self._high,
            self._spectrum,
        )

    def _accumulate(self, worker: int, mode: int) -> None:
        self._accumulate_with_cotangents(worker, mode, self._workers.board, None)

    def _accumulate_with_cotangents(
        self, worker: int, mode: int, board: np.ndarray, cotangents: np.ndarray | None
    ) -> None:
        generation, trees, sums, no_cotangents = self._buffers
        arguments = (
            board,
            generation,
            mode,
            self._tips,
            self._weights,
            *trees,
            *self._workspaces[worker],
            *sums,
            no_cotangents if cotangents is None else cotangents,
            cotangents is not None,
        )
        general_kernel.accumulate(*arguments)

    def _collect(self, value: np.ndarray, gradient: np.ndarray) -> None:
        general_kernel.collect(self._block_values, self._block_gradients, value, gradient)


def check_shapes(
    num_taxa: int,
    children: np.ndarray,
    branch_lengths: np.ndarray,
    value: np.ndarray | None = None,
    gradient: np.ndarray | None = None,
) -> None:
    """Refuse arrays that do not fit each other or the data.

    Raises:
        ValueError: A shape or dtype is not as expected, or an array to write to is not contiguous.
    """
    num_trees = children.shape[0]
    lengths_shape = (num_trees, 2 * num_taxa - 3)
    expected = [
        ("children", children, (num_trees, num_taxa - 2, 2), np.int32),
        ("branch_lengths", branch_lengths, lengths_shape, np.float64),
    ]
    if value is not None:
        expected.append(("the array of log-likelihoods", value, (num_trees,), np.float64))
    if gradient is not None:
        expected.append(("the array of derivatives", gradient, lengths_shape, np.float64))
    for name, array, shape, dtype in expected:
        if array.shape != shape or array.dtype != dtype:
            raise ValueError(
                f"For {num_trees} trees of {num_taxa} taxa, {name} must have shape {shape} and dtype "
                f"{np.dtype(dtype)}, got {array.shape} and {array.dtype}."
            )
        if not array.flags.c_contiguous:
            raise ValueError(f"{name} must be C-contiguous: pass np.ascontiguousarray of it.")


def check_plan(fault: tuple[int, int, int], children: np.ndarray, branch_lengths: np.ndarray) -> None:
    """Say what a kernel's plan found wrong with a tree.

    Raises:
        ValueError: The array of children is no topology, or a branch length is negative.
        NonFiniteError: A branch length is not finite.
    """
    status, tree, index = fault
    if status == PLANNED:
        return
    if status == BAD_TOPOLOGY:
        raise ValueError(
            f"Tree {tree}: the children {children[tree, index].tolist()} of internal node {index} (of "
            f"{children.shape[1]}) are out of range, come after it or have another "
            "parent as well: make topologies with vbpi_mix.trees."
        )
    length = branch_lengths[tree, index]
    if np.isfinite(length):
        raise ValueError(f"Tree {tree}: the length of branch {index} is {length}; it must not be negative.")
    raise NonFiniteError(f"Tree {tree}: the length of branch {index} is {length}; it must be finite.")
