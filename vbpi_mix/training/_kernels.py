"""Compiled halves of a training step: trees with their densities, then gradients and optimisers.

The optimiser is Adam (Kingma & Ba 2015) visiting only parameters that the step's trees use. A parameter's
bias correction follows its own number of updates, so that one that is seen rarely starts as quickly as one
seen always.

Denominators are in increasing order. Where every component is one of enough, branch lengths are handled for
all components at once (``is_all``), in the scratch space of `AllComponents`; else one by one.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from vbpi_mix._elementary import exponentials
from vbpi_mix.branches import _all_kernels as all_branches
from vbpi_mix.branches import _kernels as branches
from vbpi_mix.sbn._probability_kernels import add_expected_counts, log_probability, rooting_posterior
from vbpi_mix.sbn._sampling_kernels import sample_topologies
from vbpi_mix.sbn._support_kernels import index_topologies

FIRST_DECAY = 0.9
SECOND_DECAY = 0.999
EPSILON = 1e-8
# After this many updates both bias corrections are 1 in double precision.
_CORRECTIONS = np.stack(
    [1.0 / (1.0 - FIRST_DECAY ** np.arange(1, 40_001)), 1.0 / (1.0 - SECOND_DECAY ** np.arange(1, 40_001))], 1
)


class AllComponents(NamedTuple):
    """Scratch space of `vbpi_mix.branches._all_kernels`; see there. Of no trees where it is not used."""

    first_of_row: np.ndarray
    next_triple: np.ndarray
    triple_of_edge: np.ndarray
    triples: np.ndarray
    start: np.ndarray
    edges: np.ndarray
    num_triples: np.ndarray
    sums: np.ndarray
    hazards: np.ndarray

    @classmethod
    def empty(cls, num_trees: int, num_edges: int, num_rows: int, num_components: int) -> "AllComponents":
        """Allocate; memory that a batch does not need is not touched."""
        size = num_trees * num_edges
        return cls(
            np.full(num_rows, -1, np.int32),
            np.empty(size, np.int32),
            np.empty(size, np.int32),
            np.empty((size, 3), np.int32),
            np.empty(size + 1, np.int32),
            np.empty(size, np.int32),
            np.zeros(1, np.int64),
            np.empty((size, all_branches.NUM_SUMS, num_components)),
            np.empty((size, 2, num_components)),
        )


@njit(cache=True, nogil=True)
def draw_topologies(
    tables, with_psp, q, log_q, component_of_tree, denominators, generator_of_tree, uniforms,
    children, parameter_index, root_index, feature_index, split, tripartition, node_work, below, rooting,
    posterior, log_topology,
):  # fmt: skip
    """Draw topologies, look them up, and evaluate their log-probabilities."""
    sample_topologies(tables, q, component_of_tree, uniforms, children, split, tripartition, node_work)
    index_topologies(
        tables, children, split, tripartition, with_psp, parameter_index, root_index, feature_index
    )
    log_probability(
        log_q, denominators, generator_of_tree, children, parameter_index, root_index, below, rooting,
        posterior, log_topology,
    )  # fmt: skip


@njit(cache=True, nogil=True)
def draw_branches(
    table, skewed, is_all, feature_index, component_of_tree, denominators, noise, work, scratch,
    log_lengths, branch_lengths, log_branches,
):  # fmt: skip
    """Draw branch lengths and evaluate their log densities; table is [feature + 1, 3, component]."""
    by_component = table.transpose(2, 0, 1)
    branches.draw(by_component, feature_index, component_of_tree, noise, skewed, work, log_lengths)
    if is_all:
        scratch.num_triples[0] = all_branches.number_triples(
            feature_index, scratch.first_of_row, scratch.next_triple, scratch.triple_of_edge, scratch.triples,
            scratch.start, scratch.edges,
        )  # fmt: skip
        all_branches.sum_features(table, scratch.triples, scratch.num_triples[0], skewed, scratch.sums)
        all_branches.log_density(
            scratch.sums, scratch.num_triples[0], scratch.start, scratch.edges, log_lengths, skewed,
            scratch.hazards, log_branches,
        )  # fmt: skip
    else:
        branches.log_density(
            by_component, feature_index, log_lengths, denominators, skewed, work, log_branches
        )
    for t in range(log_lengths.shape[0]):
        exponentials(log_lengths[t], branch_lengths[t])


@njit(cache=True, nogil=True)
def draw_particles(
    tables, with_psp, q, log_q, table, skewed, is_all, component_of_tree, denominators, generator_of_tree,
    uniforms, noise, children, parameter_index, root_index, feature_index, split, tripartition, node_work,
    below, rooting, posterior, branch_work, scratch, log_lengths, branch_lengths, log_topology, log_branches,
):  # fmt: skip
    """`draw_topologies` and `draw_branches` in one call."""
    draw_topologies(
        tables, with_psp, q, log_q, component_of_tree, denominators, generator_of_tree, uniforms,
        children, parameter_index, root_index, feature_index, split, tripartition, node_work, below, rooting,
        posterior, log_topology,
    )  # fmt: skip
    draw_branches(
        table, skewed, is_all, feature_index, component_of_tree, denominators, noise, branch_work, scratch,
        log_lengths, branch_lengths, log_branches,
    )  # fmt: skip


@njit(cache=True, nogil=True, inline="always")
def _moment(old, new, decay):
    return decay * old + (1.0 - decay) * new


@njit(cache=True, nogil=True)
def _corrections(num_updates):
    """Adam's factors that undo the bias of its two moments after so many updates."""
    row = min(num_updates, _CORRECTIONS.shape[0]) - 1
    return _CORRECTIONS[row, 0], _CORRECTIONS[row, 1]


class TopologyScratch(NamedTuple):
    """Scratch space of `ascend_topologies`.

    Attributes:
        counts: Expected parameter counts, zero between calls [parameter + 2].
        is_touched: Zero between calls [parent] uint8.
        touched: Parents in the order of first touch [parent] int32.
        mass: [edge + 1].
        work: Of the children of touched parents, side by side: gradient, first and second moment, their
            corrections, logit, exponential [7, parameter].
    """

    counts: np.ndarray
    is_touched: np.ndarray
    touched: np.ndarray
    mass: np.ndarray
    work: np.ndarray

    @classmethod
    def empty(cls, num_edges: int, num_parents: int, num_parameters: int) -> "TopologyScratch":
        """Allocate."""
        return cls(
            np.zeros(num_parameters + 2),
            np.zeros(num_parents, np.uint8),
            np.empty(num_parents, np.int32),
            np.empty(num_edges + 1),
            np.empty((7, num_parameters)),
        )


@njit(cache=True, nogil=True)
def ascend_topologies(
    rate, is_lazy, d_topology, denominators, generator_of_tree, posterior, children, parameter_index,
    root_index, parent_start, parameter_parent, logits, log_q, q, moments, num_updates, below, rooting,
    scratch,
):  # fmt: skip
    """Step uphill along the gradient of sum_{t, d} d_topology[t, d] * log q_d(tau_t); refresh probabilities.

    By Fisher's identity the gradient follows, parent by parent, from expected parameter counts. The posterior
    of rootings [tree, edge] is that under each tree's generator; below and rooting are as for
    `log_probability`.
    """
    num_edges, num_components = root_index.shape[1], logits.shape[0]
    d = 0
    for a in range(num_components):
        is_denominator = d < denominators.shape[0] and denominators[d] == a
        if not is_denominator and is_lazy:
            continue
        num_touched = 0
        if is_denominator:
            for t in range(children.shape[0]):
                if d_topology[t, d] == 0.0:
                    continue
                own = posterior[t]
                if d != generator_of_tree[t]:
                    own = rooting[:num_edges]
                    rooting_posterior(
                        log_q[:, a], children[t], parameter_index[t], root_index[t], below[: 2 * num_edges],
                        own,
                    )  # fmt: skip
                num_touched = add_expected_counts(
                    d_topology[t, d], children[t], parameter_index[t], root_index[t], own,
                    parameter_parent, scratch.mass, scratch.counts, scratch.is_touched, scratch.touched,
                    num_touched,
                )  # fmt: skip
            d += 1
        if not is_lazy:
            num_touched = parent_start.shape[0] - 1
            for parent in range(num_touched):
                scratch.touched[parent] = parent
        _update_network(
            rate, parent_start, logits[a], log_q[:, a], q[a], moments[a], num_updates[a], num_touched, scratch
        )


@njit(cache=True, nogil=True)
def _update_network(rate, parent_start, logits, log_q, q, moments, num_updates, num_touched, scratch):
    """One component's step: Adam on the children of touched parents, their softmax; clears the counts.

    The arithmetic is done on contiguous copies, so that it vectorises whatever the sizes of families.
    Unsigned, an index needs no test for counting from the end.
    """
    counts, touched, work = scratch.counts, scratch.touched, scratch.work
    one = np.uint64(1)
    num_parents = 0
    size = np.uint64(0)
    for n in range(num_touched):
        parent = np.uint64(touched[n])
        scratch.is_touched[parent] = 0
        start, stop = np.uint64(parent_start[parent]), np.uint64(parent_start[parent + one])
        if stop - start > one:
            touched[num_parents] = parent
            num_parents += 1
            num_updates[parent] += 1
            correction1, correction2 = _corrections(num_updates[parent])
            total = 0.0
            for i in range(start, stop):
                total += counts[i]
            for i in range(start, stop):
                work[0, size] = counts[i] - q[i] * total
                work[1, size], work[2, size] = moments[i, 0], moments[i, 1]
                work[3, size], work[4, size] = correction1, correction2
                work[5, size] = logits[i]
                size += one
        for i in range(start, stop):
            counts[i] = 0.0
    _adam(rate, np.int64(size), work)
    size = np.uint64(0)
    for n in range(num_parents):
        parent = np.uint64(touched[n])
        start, stop = np.uint64(parent_start[parent]), np.uint64(parent_start[parent + one])
        largest = -np.inf
        for j in range(size, size + stop - start):
            largest = work[5, j] if work[5, j] > largest else largest
        for i in range(start, stop):
            moments[i, 0], moments[i, 1] = work[1, size], work[2, size]
            logits[i] = work[5, size]
            work[5, size] -= largest
            size += one
    exponentials(work[5, : np.int64(size)], work[6, : np.int64(size)])
    size = np.uint64(0)
    for n in range(num_parents):
        parent = np.uint64(touched[n])
        start, stop = np.uint64(parent_start[parent]), np.uint64(parent_start[parent + one])
        total = 0.0
        for j in range(size, size + stop - start):
            total += work[6, j]
        inverse, log_total = 1.0 / total, np.log(total)
        for i in range(start, stop):
            q[i] = work[6, size] * inverse
            log_q[i] = work[5, size] - log_total
            size += one


@njit(cache=True, nogil=True, error_model="numpy")
def _adam(rate, size, work):
    """Adam on vectors of a size; the rows of work are those of `TopologyScratch`."""
    for j in range(size):
        gradient = work[0, j]
        first = _moment(work[1, j], gradient, FIRST_DECAY)
        second = _moment(work[2, j], gradient * gradient, SECOND_DECAY)
        work[1, j] = first
        work[2, j] = second
        work[5, j] += rate * (first * work[3, j]) / (np.sqrt(second * work[4, j]) + EPSILON)


class BranchScratch(NamedTuple):
    """Scratch space of `ascend_branches`: of the kernels that go one by one, then of those for all.

    Attributes:
        grad: Zero between calls [denominator, feature + 1, 3].
        is_touched: Zero between calls [denominator, feature + 1] uint8.
        touched: Rows, as denominator * (num_features + 1) + feature [denominator * feature] int64.
        num_touched: Length of that list, zero between calls [1].
        slopes: Gradients in the parameters of triples [triple, 3, component].
        flags: Whether there is one [triple, component] uint8.
        position_of_row: -1 between calls [feature + 1] int32.
        rows: Rows used [3 * triple] int32.
        row_start: Where the triples of each row start [3 * triple + 1] int32.
        row_triple: Triples, row by row [3 * triple] int32.
        work: Of one row: gradient in three columns, whether there is one, both corrections [6, component].
    """

    grad: np.ndarray
    is_touched: np.ndarray
    touched: np.ndarray
    num_touched: np.ndarray
    slopes: np.ndarray
    flags: np.ndarray
    position_of_row: np.ndarray
    rows: np.ndarray
    row_start: np.ndarray
    row_triple: np.ndarray
    work: np.ndarray

    @classmethod
    def empty(cls, is_all: bool, size: int, num_rows: int, num_denominators: int) -> "BranchScratch":
        """Allocate for batches of `size` branches in all; memory that is not needed is not touched."""
        one_by_one, at_once = (0, num_denominators) if is_all else (num_denominators, 0)
        size = size if is_all else 0
        return cls(
            np.zeros((one_by_one, num_rows, 3)),
            np.zeros((one_by_one, num_rows), np.uint8),
            np.empty(one_by_one * num_rows, np.int64),
            np.zeros(1, np.int64),
            np.empty((size, 3, at_once)),
            np.empty((size, at_once), np.uint8),
            np.full(num_rows, -1, np.int32),
            np.empty(3 * size, np.int32),
            np.empty(3 * size + 1, np.int32),
            np.empty(3 * size, np.int32),
            np.empty((6, at_once)),
        )


@njit(cache=True, nogil=True)
def ascend_branches(
    rate, is_lazy, table, skewed, is_all, feature_index, log_lengths, denominators, generator_of_tree,
    d_path, d_score, d_log_lengths, moments, num_updates, branch_work, all_components, scratch,
):  # fmt: skip
    """Step uphill along the gradient described at `vbpi_mix.branches._kernels.backward`.

    moments is [feature + 1, 3, 2, component], num_updates [feature + 1, component].
    """
    if is_all:
        all_branches.backward(
            all_components.sums, all_components.num_triples[0], all_components.start, all_components.edges,
            log_lengths, all_components.hazards, generator_of_tree, skewed, d_path, d_score, d_log_lengths,
            scratch.slopes, scratch.flags,
        )  # fmt: skip
        _update_all(
            rate, is_lazy, table, skewed, all_components.triples, all_components.num_triples[0], moments,
            num_updates, scratch,
        )  # fmt: skip
    else:
        branches.backward(
            table.transpose(2, 0, 1), feature_index, log_lengths, generator_of_tree, denominators, skewed,
            d_path, d_score, d_log_lengths, branch_work, scratch.grad, scratch.is_touched, scratch.touched,
            scratch.num_touched,
        )  # fmt: skip
        _update_one_by_one(rate, is_lazy, table, skewed, denominators, moments, num_updates, scratch)


@njit(cache=True, nogil=True)
def _update_one_by_one(rate, is_lazy, table, skewed, denominators, moments, num_updates, scratch):
    """Adam on the touched rows of denominators; on all rows of all components if not lazy."""
    num_rows, _, num_components = table.shape
    if is_lazy:
        for n in range(scratch.num_touched[0]):
            d, row = scratch.touched[n] // num_rows, scratch.touched[n] % num_rows
            _update_row(rate, denominators[d], row, d, table, skewed, scratch.grad, moments, num_updates)
    else:
        d = 0
        for a in range(num_components):
            is_denominator = d < denominators.shape[0] and denominators[d] == a
            for row in range(num_rows - 1):
                _update_row(
                    rate, a, row, d if is_denominator else -1, table, skewed, scratch.grad, moments,
                    num_updates,
                )  # fmt: skip
            d += is_denominator
    for n in range(scratch.num_touched[0]):
        d, row = scratch.touched[n] // num_rows, scratch.touched[n] % num_rows
        scratch.is_touched[d, row] = 0
        for column in range(3):
            scratch.grad[d, row, column] = 0.0
    scratch.num_touched[0] = 0


@njit(cache=True, nogil=True)
def _update_row(rate, a, row, d, table, skewed, grad, moments, num_updates):
    """Adam on component a's parameters of one feature; with d < 0 the gradient is zero."""
    num_updates[row, a] += 1
    correction1, correction2 = _corrections(num_updates[row, a])
    for column in range(3 if skewed else 2):
        gradient = grad[d, row, column] if d >= 0 else 0.0
        first = _moment(moments[row, column, 0, a], gradient, FIRST_DECAY)
        second = _moment(moments[row, column, 1, a], gradient * gradient, SECOND_DECAY)
        moments[row, column, 0, a], moments[row, column, 1, a] = first, second
        table[row, column, a] += rate * (first * correction1) / (np.sqrt(second * correction2) + EPSILON)


@njit(cache=True, nogil=True)
def _update_all(rate, is_lazy, table, skewed, triples, num_triples, moments, num_updates, scratch):
    """Adam on all components' parameters of the features that the triples use, or of all if not lazy."""
    dummy, work = table.shape[0] - 1, scratch.work
    num_rows = all_branches.triples_of_rows(
        triples, num_triples, dummy, scratch.position_of_row, scratch.rows, scratch.row_start,
        scratch.row_triple,
    )  # fmt: skip
    if is_lazy:
        for n in range(num_rows):
            work[:4] = 0.0
            for m in range(scratch.row_start[n], scratch.row_start[n + 1]):
                _add_triple(scratch.slopes[scratch.row_triple[m]], scratch.flags[scratch.row_triple[m]], work)
            row = scratch.rows[n]
            _update_all_of_row(rate, table[row], skewed, moments[row], num_updates[row], work)
        return
    for n in range(num_rows):
        scratch.position_of_row[scratch.rows[n]] = n
    for row in range(dummy):
        work[:4] = 0.0
        n = scratch.position_of_row[row]
        if n >= 0:
            for m in range(scratch.row_start[n], scratch.row_start[n + 1]):
                _add_triple(scratch.slopes[scratch.row_triple[m]], scratch.flags[scratch.row_triple[m]], work)
        work[3] = 1.0
        _update_all_of_row(rate, table[row], skewed, moments[row], num_updates[row], work)
        scratch.position_of_row[row] = -1


@njit(nogil=True)
def _add_triple(slope, flags, work):
    for d in range(flags.shape[0]):
        work[0, d] += slope[0, d]
        work[1, d] += slope[1, d]
        work[2, d] += slope[2, d]
    for d in range(flags.shape[0]):
        work[3, d] += flags[d]


@njit(nogil=True)
def _update_all_of_row(rate, row, skewed, moments, num_updates, work):
    # Neighbours have mostly as many updates: the look-up is for those that differ.
    last = 1
    correction1, correction2 = _corrections(last)
    for d in range(num_updates.shape[0]):
        num_updates[d] += work[3, d] > 0.0
        if num_updates[d] > 0 and num_updates[d] != last:
            last = num_updates[d]
            correction1, correction2 = _corrections(last)
        work[4, d], work[5, d] = correction1, correction2
    for column in range(3 if skewed else 2):
        _adam_where_touched(rate, row[column], moments[column], work[column], work[3:])


@njit(nogil=True, error_model="numpy")
def _adam_where_touched(rate, values, moments, gradients, work):
    """Adam on vectors where work[0] is positive; work[1] and work[2] are the corrections."""
    for d in range(values.shape[0]):
        is_touched = work[0, d] > 0.0
        first = _moment(moments[0, d], gradients[d], FIRST_DECAY)
        second = _moment(moments[1, d], gradients[d] * gradients[d], SECOND_DECAY)
        step = rate * (first * work[1, d]) / (np.sqrt(second * work[2, d]) + EPSILON)
        moments[0, d] = first if is_touched else moments[0, d]
        moments[1, d] = second if is_touched else moments[1, d]
        values[d] += step if is_touched else 0.0


@njit(cache=True, nogil=True)
def ascend(
    topology_rate, branch_rate, is_lazy, d_topology, d_path, d_score, d_log_lengths, denominators,
    generator_of_tree, posterior, children, parameter_index, root_index, feature_index, log_lengths,
    parent_start, parameter_parent, logits, log_q, q, topology_moments, topology_updates, below, rooting,
    topology_scratch, table, skewed, is_all, branch_moments, branch_updates, branch_work, all_components,
    branch_scratch,
):  # fmt: skip
    """`ascend_topologies` and `ascend_branches` in one call."""
    ascend_topologies(
        topology_rate, is_lazy, d_topology, denominators, generator_of_tree, posterior, children,
        parameter_index, root_index, parent_start, parameter_parent, logits, log_q, q, topology_moments,
        topology_updates, below, rooting, topology_scratch,
    )  # fmt: skip
    ascend_branches(
        branch_rate, is_lazy, table, skewed, is_all, feature_index, log_lengths, denominators,
        generator_of_tree, d_path, d_score, d_log_lengths, branch_moments, branch_updates, branch_work,
        all_components, branch_scratch,
    )  # fmt: skip
