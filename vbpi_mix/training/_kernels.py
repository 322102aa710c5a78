"""Compiled parts of a training step that belong to no single network: topology gradients and the optimiser.

The optimiser is Adam (Kingma & Ba 2015) visiting only parameters that the step's trees use. A parameter's
bias correction follows its own number of updates, so that one that is seen rarely starts as quickly as one
seen always.
"""

import numpy as np
from numba import njit

from vbpi_mix.sbn._probability_kernels import add_expected_counts, refresh_parent, rooting_posterior

FIRST_DECAY = 0.9
SECOND_DECAY = 0.999
EPSILON = 1e-8
# After this many updates both bias corrections are 1 in double precision.
_CORRECTIONS = np.stack(
    [1.0 / (1.0 - FIRST_DECAY ** np.arange(1, 40_001)), 1.0 / (1.0 - SECOND_DECAY ** np.arange(1, 40_001))], 1
)


@njit(cache=True, nogil=True)
def topology_counts(
    log_q, denominators, coefficients, children, parameter_index, root_index, parameter_parent, below,
    posterior, mass, counts, is_touched, touched, num_touched,
):  # fmt: skip
    """Add sum_{t, d} coefficients[t, d] * (expected parameter counts of tree t under component d) to counts.

    The gradient of the same sum of log q_d(tau_t) with respect to the logits follows parent by parent;
    `update_topologies` takes it. Shapes: counts [component, parameter + 2]; is_touched, touched
    [component, parent]; num_touched [component].
    """
    for d in range(denominators.shape[0]):
        a = denominators[d]
        for t in range(children.shape[0]):
            if coefficients[t, d] == 0.0:
                continue
            rooting_posterior(log_q[a], children[t], parameter_index[t], root_index[t], below, posterior)
            num_touched[a] = add_expected_counts(
                coefficients[t, d], children[t], parameter_index[t], root_index[t], posterior,
                parameter_parent, mass, counts[a], is_touched[a], touched[a],
                num_touched[a],
            )  # fmt: skip


@njit(cache=True, nogil=True, inline="always")
def _moment(old, new, decay):
    return decay * old + (1.0 - decay) * new


@njit(cache=True, nogil=True)
def _corrections(num_updates):
    """Adam's factors that undo the bias of its two moments after so many updates."""
    row = min(num_updates, _CORRECTIONS.shape[0]) - 1
    return _CORRECTIONS[row, 0], _CORRECTIONS[row, 1]


@njit(cache=True, nogil=True)
def update_topologies(
    rate,
    parent_start,
    logits,
    log_q,
    q,
    counts,
    is_touched,
    touched,
    num_touched,
    moments,
    num_updates,
):
    """Step uphill along the gradient of `topology_counts`, refresh the probabilities, clear the counts.

    moments is [component, parameter, 2], num_updates [component, parent].
    """
    for a in range(logits.shape[0]):
        if num_touched[a] > 0:
            _update_network(
                rate, parent_start, logits[a], log_q[a], q[a], counts[a], is_touched[a],
                touched[a], num_touched[a], moments[a], num_updates[a],
            )  # fmt: skip
            num_touched[a] = 0


@njit(cache=True, nogil=True)
def _update_network(
    rate,
    parent_start,
    logits,
    log_q,
    q,
    counts,
    is_touched,
    touched,
    num_touched,
    moments,
    num_updates,
):
    """`update_topologies` for one component."""
    for n in range(num_touched):
        parent = touched[n]
        start, stop = parent_start[parent], parent_start[parent + 1]
        if stop - start > 1:
            total = 0.0
            for i in range(start, stop):
                total += counts[i]
            num_updates[parent] += 1
            correction1, correction2 = _corrections(num_updates[parent])
            for i in range(start, stop):
                gradient = counts[i] - q[i] * total
                first = _moment(moments[i, 0], gradient, FIRST_DECAY)
                second = _moment(moments[i, 1], gradient * gradient, SECOND_DECAY)
                moments[i, 0], moments[i, 1] = first, second
                logits[i] += rate * (first * correction1) / (np.sqrt(second * correction2) + EPSILON)
            refresh_parent(logits, parent, parent_start, log_q, q)
        for i in range(start, stop):
            counts[i] = 0.0
        is_touched[parent] = 0


@njit(cache=True, nogil=True)
def touch_all_parents(is_touched, touched, num_touched):
    """Mark every parent of every component as touched, which makes the optimiser an ordinary Adam."""
    for a in range(is_touched.shape[0]):
        for parent in range(is_touched.shape[1]):
            is_touched[a, parent] = 1
            touched[a, parent] = parent
        num_touched[a] = is_touched.shape[1]


@njit(cache=True, nogil=True)
def touch_all_rows(touched_flag, touched_list, touched_count):
    """Mark every row but the dummy of every component's branch table as touched."""
    num_rows = touched_flag.shape[1]
    count = 0
    for a in range(touched_flag.shape[0]):
        for row in range(num_rows - 1):
            touched_flag[a, row] = 1
            touched_list[count] = a * num_rows + row
            count += 1
    touched_count[0] = count


@njit(cache=True, nogil=True)
def update_branches(
    rate, table, grad, skewed, touched_flag, touched_list, touched_count, moments, num_updates
):
    """Step uphill along grad [component, feature + 1, 3] in its touched rows, and clear them.

    moments is [component, feature + 1, 3, 2], num_updates [component, feature + 1].
    """
    num_rows = table.shape[1]
    num_columns = 3 if skewed else 2
    for n in range(touched_count[0]):
        a, row = touched_list[n] // num_rows, touched_list[n] % num_rows
        num_updates[a, row] += 1
        correction1, correction2 = _corrections(num_updates[a, row])
        for column in range(num_columns):
            gradient = grad[a, row, column]
            first = _moment(moments[a, row, column, 0], gradient, FIRST_DECAY)
            second = _moment(moments[a, row, column, 1], gradient * gradient, SECOND_DECAY)
            moments[a, row, column, 0], moments[a, row, column, 1] = first, second
            table[a, row, column] += rate * (first * correction1) / (np.sqrt(second * correction2) + EPSILON)
        for column in range(3):
            grad[a, row, column] = 0.0
        touched_flag[a, row] = 0
    touched_count[0] = 0
