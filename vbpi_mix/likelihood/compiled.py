"""The compiled likelihood: the kernels with their data and workspace.

The patterns are cut into blocks. A piece of work is one tree in one block; the threads take pieces from a
board, each with workspace of its own. Every piece writes its contribution to a place of its own, and these
are added up in the order of the blocks: so the result does not depend, to the last bit, on the number of
threads.
"""

from abc import ABC, abstractmethod
from itertools import pairwise
from typing import Any

import numpy as np

from vbpi_mix.errors import NonFiniteError
from vbpi_mix.likelihood import _general_kernel as general_kernel
from vbpi_mix.likelihood import _jc_kernel as jc_kernel
from vbpi_mix.likelihood import _model_kernel as model_kernel
from vbpi_mix.likelihood._board import GRADIENT, HELP, VALUE
from vbpi_mix.likelihood._scaling import BAD_TOPOLOGY, PLANNED
from vbpi_mix.likelihood._simd import VECTOR_BYTES
from vbpi_mix.likelihood.base import LogLikelihoods
from vbpi_mix.likelihood.layout import aligned, leaf_codes, leaf_rows, weight_rows
from vbpi_mix.likelihood.models import ModelParameters, SubstitutionModel
from vbpi_mix.likelihood.workers import Workers
from vbpi_mix.patterns import SitePatterns
from vbpi_mix.shapes import BranchLengths, Topologies

SMALLEST_EXPONENT = {"float64": -960.0, "float32": -100.0}
"""Exponents of two above which products of messages are kept, a little inside the range of each dtype."""
_BLOCKS_OF_PIECE = 8
"""Blocks of cells in a piece of work, if there are not many."""
_MOST_TREES = 32
"""Trees whose likelihoods under general models are computed at a time."""
_MAX_PIECES = 16
"""Most pieces that the alignment is cut into under general models."""


class _CompiledLikelihood(ABC):
    """What the compiled likelihoods share: batches of trees are planned, accumulated and collected."""

    def __init__(
        self, num_taxa: int, tips: np.ndarray, weights: np.ndarray, num_parts: int, threads: int, dtype: str
    ) -> None:
        self._num_taxa = num_taxa
        self._dtype = dtype
        self._tips = tips
        self._weights = weights
        self._num_parts = num_parts
        self._workers = Workers(threads)
        self._generation = 0
        self._high = np.empty(2 * self._num_taxa - 2)

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
        num_edges = 2 * self._num_taxa - 3
        self._num_trees = num_trees
        self._generation += 1
        self._children = np.empty((num_trees, self._num_taxa - 2, 2), np.int32)
        self._is_scaled = np.empty((num_trees, self._num_taxa - 2), np.bool_)
        self._log_range = np.empty((2, num_trees, num_edges))
        self._part_values = np.empty((self._num_parts, num_trees))
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
        """Add up the buffers of the parts of the alignment."""


class _OneModelLikelihood(_CompiledLikelihood):
    """A compiled likelihood under a model that it holds."""

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


class CompiledJC69Likelihood(_OneModelLikelihood):
    """Compiled likelihood under the model of Jukes and Cantor (1969); satisfies `TreeLikelihood`."""

    def __init__(self, patterns: SitePatterns, *, threads: int = 1, dtype: str = "float64") -> None:
        merged = patterns.merge_relabelled()
        tips = leaf_rows(merged, jc_kernel.BLOCK, dtype)
        weights = weight_rows(merged, jc_kernel.BLOCK, dtype)
        super().__init__(merged.num_taxa, tips, weights, len(tips), threads, dtype)
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
        self._part_gradients = np.empty((self._num_parts, *self._decay.shape))
        self._buffers: tuple[Any, ...] = (
            self._generation,
            (self._children, self._decay, self._spread, self._is_scaled),
            (self._part_values, self._part_gradients),
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
        jc_kernel.collect(self._total_weight, self._part_values, self._part_gradients, value, gradient)


class _GeneralLikelihood(_CompiledLikelihood):
    """What the compiled likelihoods under general models share: every tree has parameters of its own."""

    def __init__(self, patterns: SitePatterns, num_categories: int, threads: int, dtype: str) -> None:
        self._num_categories = num_categories
        self._width = 1 if num_categories == 1 else max(4, 1 << (num_categories - 1).bit_length())
        block = general_kernel.CELLS // self._width
        codes = leaf_codes(patterns, block)
        num_sites = max(block, VECTOR_BYTES // 8)
        weights = aligned((len(codes), num_sites), "float64")
        weights[:] = 0.0
        weights[:, :block] = weight_rows(patterns, block, "float64")
        self._blocks_of_piece = max(_BLOCKS_OF_PIECE, -(-len(codes) // _MAX_PIECES))
        num_parts = -(-len(codes) // self._blocks_of_piece)
        super().__init__(patterns.num_taxa, codes, weights, num_parts, threads, dtype)
        pair = 2 * max(self._width, VECTOR_BYTES // np.dtype(dtype).itemsize)
        rest = (patterns.num_patterns - (len(codes) - 1) * block) * self._width
        self._cells_of_last = -(-rest // pair) * pair
        self._present = np.unique(codes).astype(np.int64)
        self._bits = bits = (np.arange(general_kernel.CODES)[:, None] >> np.arange(4) & 1).astype(np.float64)
        self._leaf_partials = aligned((1, *bits.shape, self._width), dtype)
        self._leaf_partials[...] = bits[:, :, None]
        self._common = aligned((len(codes), block, 4), "float64")
        self._common[...] = bits[np.bitwise_and.reduce(codes, 1)]
        num_edges, num_internal = 2 * self._num_taxa - 3, self._num_taxa - 2
        lanes = VECTOR_BYTES // np.dtype(dtype).itemsize
        self._vectors = (max(1, self._width // lanes), lanes)
        num_nodes = num_edges + 1 + num_internal + general_kernel.SPARE_NODES
        cells = (general_kernel.CELLS,)
        self._num_cells = -(-num_edges * self._width // 4) * 4
        self._plan_work = (
            aligned((model_kernel.PLAN_ROWS, self._num_cells), "float64"),
            aligned((model_kernel.WORK,), "float64"),
        )
        self._workspaces = [
            (
                aligned((num_nodes, 4, general_kernel.ROW), dtype),
                aligned((num_internal + general_kernel.SPARE_ROWS, *cells), dtype),
                aligned((general_kernel.SITE_ROWS, num_sites), "float64"),
                aligned((num_edges + 1, self._vectors[0], 12, lanes), dtype),
            )
            for _ in range(self._workers.count)
        ]
        self._allocate(0)
        self._workers.serve(self._help)

    def _allocate(self, num_trees: int) -> None:
        super()._allocate(num_trees)
        num_categories, width = self._num_categories, self._width
        num_taxa, num_edges = self._num_taxa, 2 * self._num_taxa - 3
        phases, lanes = self._vectors
        self._parameters = ModelParameters.empty(num_trees, num_categories)
        self._by_parameters = ModelParameters.empty(num_trees, num_categories)
        self._branch_lengths = np.empty((num_trees, num_edges))
        self._spectra = (
            aligned((num_trees, 4), "float64"),
            aligned((num_trees, 4, 4), "float64"),
            aligned((num_trees, 4, 4), "float64"),
            aligned((num_trees, 4, self._num_cells), "float64"),
        )
        self._planned = (
            aligned((num_trees, num_taxa - 2, phases, 16, lanes), self._dtype),
            aligned((num_trees, num_taxa, general_kernel.CODES, 4, width), self._dtype),
            aligned((num_trees, phases, 4, lanes), self._dtype),
            self._is_scaled,
        )
        self._part_parameters = (
            aligned((self._num_parts, num_trees, 13, self._num_cells), "float64"),
            aligned((self._num_parts, num_trees, 4, width), "float64"),
            aligned((self._num_parts, num_trees, 4), "float64"),
        )
        self._buffers: tuple[Any, ...] = (
            self._generation,
            (self._children, self._parameters.frequencies, self._parameters.invariable, *self._planned),
            (self._part_values, *self._part_parameters),
        )

    def _plan(self, children: np.ndarray, branch_lengths: np.ndarray) -> tuple[int, int, int]:
        self._branch_lengths[:] = branch_lengths
        return model_kernel.plan(
            children,
            self._branch_lengths,
            *self._parameters,
            SMALLEST_EXPONENT[self._dtype],
            self._present,
            self._bits,
            *self._spectra,
            *self._planned,
            self._log_range,
            self._high,
            *self._plan_work,
        )

    def _accumulate(self, worker: int, mode: int) -> None:
        generation, trees, sums = self._buffers
        arguments = (
            self._workers.board,
            generation,
            mode,
            self._blocks_of_piece,
            self._cells_of_last,
            self._tips,
            self._leaf_partials,
            self._common,
            self._weights,
            *trees,
            *self._workspaces[worker],
            *sums,
        )
        general_kernel.accumulate(*arguments)

    def _collect(self, value: np.ndarray, gradient: np.ndarray) -> None:
        general_kernel.collect(
            self._branch_lengths,
            *self._parameters,
            *self._spectra,
            self._part_values,
            *self._part_parameters,
            self._plan_work[1],
            value,
            gradient,
            *self._by_parameters,
        )


class CompiledGeneralLikelihood(_GeneralLikelihood, _OneModelLikelihood):
    """Compiled likelihood under any `SubstitutionModel`; satisfies `TreeLikelihood`."""

    def __init__(
        self, patterns: SitePatterns, model: SubstitutionModel, *, threads: int = 1, dtype: str = "float64"
    ) -> None:
        self._model = model.parameters()
        super().__init__(patterns, self._model.category_rates.shape[1], threads, dtype)

    def _allocate(self, num_trees: int) -> None:
        super()._allocate(num_trees)
        for buffer, parameter in zip(self._parameters, self._model, strict=True):
            buffer[:] = parameter

    def value(
        self, children: Topologies, branch_lengths: BranchLengths, *, out: LogLikelihoods | None = None
    ) -> LogLikelihoods:
        """Log-likelihood of every tree: see `TreeLikelihood.value`."""
        log_likelihood = np.empty(children.shape[0]) if out is None else out
        for part in _parts(children.shape[0]):
            self._run(children[part], branch_lengths[part], log_likelihood[part], None)
        return log_likelihood


class CompiledPerTreeLikelihood(_GeneralLikelihood):
    """Compiled likelihood of trees each of which has model parameters of its own, and all derivatives.

    Trees of likelihood zero are as in `TreeLikelihood`. An object keeps workspace between calls, so one
    object serves one thread at a time.
    """

    def __init__(
        self, patterns: SitePatterns, num_categories: int, *, threads: int = 1, dtype: str = "float64"
    ) -> None:
        """Allocate, and start the helping threads.

        Args:
            patterns: Data at the leaves.
            num_categories: Number of rate categories; invariable sites are none of them.
            threads: Number of threads; the result does not depend on it.
            dtype: Precision of the partials: float64 or float32.
        """
        super().__init__(patterns, num_categories, threads, dtype)

    def value(
        self,
        children: Topologies,
        branch_lengths: BranchLengths,
        parameters: ModelParameters,
        *,
        out: LogLikelihoods | None = None,
    ) -> LogLikelihoods:
        """Log-likelihood of every tree under its own parameters.

        Args:
            children: Topologies, as defined in `vbpi_mix.trees.topology`.
            branch_lengths: Expected substitutions per site; finite, not negative.
            parameters: Of the models of the trees. Sums and mean rates are not checked.
            out: Array to write the result to; a new one if None.

        Returns:
            Log-likelihoods in nats, no constant left out.

        Raises:
            ValueError: The arrays do not fit the data or each other, an array of children is no topology, a
            length is negative or a parameter out of range. NonFiniteError: A branch length is not finite.
        """
        log_likelihood = np.empty(children.shape[0]) if out is None else out
        for part in _parts(children.shape[0]):
            own = ModelParameters(*(parameter[part] for parameter in parameters))
            self._take(len(children[part]), own)
            self._run(children[part], branch_lengths[part], log_likelihood[part], None)
        return log_likelihood

    def value_and_gradients(
        self,
        children: Topologies,
        branch_lengths: BranchLengths,
        parameters: ModelParameters,
        *,
        out: tuple[LogLikelihoods, BranchLengths, ModelParameters] | None = None,
    ) -> tuple[LogLikelihoods, BranchLengths, ModelParameters]:
        """Log-likelihood of every tree, and derivatives by its branch lengths and its model parameters.

        Derivatives by parameters are those of each number while the others stay: the rate matrix is scaled
        to one substitution per unit of time inside, but rates and probabilities are taken as they are, and
        what makes them sum to one is left to the chain rule of the caller.

        Args:
            children: Topologies, as defined in `vbpi_mix.trees.topology`.
            branch_lengths: Expected substitutions per site; finite, not negative.
            parameters: Of the models of the trees. Sums and mean rates are not checked.
            out: Arrays to write the results to; new ones if None.

        Returns:
            Log-likelihoods in nats, derivatives by branch lengths, derivatives by parameters. That by
            `invariable` is zero where there are no invariable sites.

        Raises:
            ValueError: As for `value`. NonFiniteError: A branch length is not finite.
        """
        num_trees = children.shape[0]
        if out is None:
            by_parameters = ModelParameters.empty(num_trees, self._num_categories)
            out = np.empty(num_trees), np.empty_like(branch_lengths), by_parameters
        log_likelihood, by_length, by_parameters = out
        self._take(num_trees, parameters)
        self._run(children, branch_lengths, log_likelihood, by_length)
        for result, buffer in zip(by_parameters, self._by_parameters, strict=True):
            result[:] = buffer
        return out

    def _take(self, num_trees: int, parameters: ModelParameters) -> None:
        """Copy the parameters into the buffers that the helpers know."""
        self._workers.await_finish()
        if num_trees != self._num_trees:
            self._allocate(num_trees)
        for name, buffer, given in zip(parameters._fields, self._parameters, parameters, strict=True):
            if given.shape != buffer.shape:
                raise ValueError(
                    f"For {num_trees} trees and {self._num_categories} categories, {name} must have shape "
                    f"{buffer.shape}, got {given.shape}."
                )
            buffer[:] = given


def _parts(num_trees: int) -> list[slice]:
    """Parts of a batch of trees whose transition matrices fit into the caches together."""
    count = max(1, -(-num_trees // _MOST_TREES))
    ends = [num_trees * k // count for k in range(count + 1)]
    return [slice(start, stop) for start, stop in pairwise(ends)]


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
    if status == model_kernel.BAD_MODEL:
        name = ModelParameters._fields[index]
        bound = "not be negative" if name in ("category_rates", "invariable") else "be positive"
        raise ValueError(f"Tree {tree}: {name} must {bound} and be finite, got other numbers.")
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
