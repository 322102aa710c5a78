"""Compiled kernels for probabilities of topologies, their gradients, and the softmax tables.

Slots and parameter indices are those of `vbpi_mix.sbn._support_kernels`. A table of log-probabilities has
P + 2 entries, the last two being -inf and 0; ``log_q [parameter + 2, component]`` holds those of all
components, which are side by side in memory for the sake of mixtures with many.
"""

import numpy as np
from numba import njit

from vbpi_mix._elementary import exp, exponentials
from vbpi_mix.sbn._support_kernels import up_slot

MIN_COMPONENTS = 4
"""Fewest components for which handling all at once is faster than one by one."""


# probabilities
@njit(cache=True, nogil=True)
def _rooting_log_probabilities(log_q, children, parameter_index, root_index, below, out):
    """Log-probability of every rooted version of one topology; DESIGN: log p_e."""
    num_internal = children.shape[0]
    num_taxa = num_internal + 2
    num_edges = 2 * num_taxa - 3
    below[:] = 0.0
    for i in range(num_internal):
        left, right = children[i, 0], children[i, 1]
        slot = up_slot(num_taxa + i, num_taxa) ^ 1
        below[slot] = (
            log_q[parameter_index[2 * left, 1]]
            + below[2 * left]
            + log_q[parameter_index[2 * right, 1]]
            + below[2 * right]
        )
    for i in range(num_internal - 1, -1, -1):
        up = up_slot(num_taxa + i, num_taxa)
        for j in range(2):
            child, sibling = children[i, j], children[i, 1 - j]
            below[2 * child + 1] = (
                log_q[parameter_index[2 * sibling, 2]]
                + below[2 * sibling]
                + log_q[
                    parameter_index[up, 2 - j]
                ]  # the sister is the sibling: first child 1, second child 2
                + below[up]
            )
    for e in range(num_edges):
        out[e] = (
            log_q[root_index[e]]
            + log_q[parameter_index[2 * e, 0]]
            + below[2 * e]
            + log_q[parameter_index[2 * e + 1, 0]]
            + below[2 * e + 1]
        )


@njit(nogil=True, fastmath={"reassoc", "contract"})
def _sum_of_exponentials(values, largest):
    """Replace values by their exponentials after subtraction of the largest; returns their sum."""
    total = 0.0
    for e in range(values.shape[0]):
        values[e] = exp(values[e] - largest)
        total += values[e]
    return total


@njit(nogil=True)
def _normalise(values):
    """Replace log-probabilities by the shares of each in their sum; returns the log of the sum."""
    largest = -np.inf
    for e in range(values.shape[0]):
        largest = values[e] if values[e] > largest else largest
    if largest == -np.inf:
        values[:] = 0.0
        return -np.inf
    total = _sum_of_exponentials(values, largest)
    for e in range(values.shape[0]):
        values[e] /= total
    return largest + np.log(total)


@njit(cache=True, nogil=True)
def log_probability(
    log_q, components, generator_of_tree, children, parameter_index, root_index, below, rooting, posterior,
    out,
):  # fmt: skip
    """Log-probabilities of topologies in nats; -inf outside the support.

    Args:
        log_q: [parameter + 2, component].
        components: Components whose probabilities are wanted [denominator].
        generator_of_tree: A position in `components` for every tree, or -1 for none [tree].
        children: The topologies.
        parameter_index: Their parameters [tree, slot, 3].
        root_index: Their rootsplits' parameters [tree, edge].
        below: Scratch space [slot * lanes], see `num_lanes`.
        rooting: Scratch space [edge * lanes].
        posterior: Written: probability of each rooting given the topology, under the component at that
            position [tree, edge]; not written for trees without.
        out: Written: log q_d(tau) [tree, denominator].
    """
    num_denominators, num_components = components.shape[0], log_q.shape[1]
    num_edges = root_index.shape[1]
    is_all = num_lanes(num_denominators, num_components) > 1
    for d in range(num_denominators):
        is_all = is_all and components[d] == d
    for t in range(children.shape[0]):
        if is_all:
            rooting_rows = rooting.reshape(num_edges, num_components)
            _log_probability_of_all(
                log_q, children[t], parameter_index[t], root_index[t],
                below.reshape(2 * num_edges, num_components), rooting_rows, out[t],
            )  # fmt: skip
            d = generator_of_tree[t]
            if d >= 0:
                for e in range(num_edges):
                    posterior[t, e] = np.exp(rooting_rows[e, d] - out[t, d])
            continue
        for d in range(num_denominators):
            row = posterior[t] if d == generator_of_tree[t] else rooting[:num_edges]
            out[t, d] = rooting_posterior(
                log_q[:, components[d]], children[t], parameter_index[t], root_index[t],
                below[: 2 * num_edges], row,
            )  # fmt: skip


@njit(cache=True, nogil=True)
def num_lanes(num_denominators, num_components):
    """Components that `log_probability` handles at once: all, where there are some and all are wanted."""
    return num_components if num_denominators == num_components and num_components >= MIN_COMPONENTS else 1


@njit(nogil=True)
def _add_three(a, b, c, out):
    for d in range(out.shape[0]):
        out[d] = a[d] + b[d] + c[d]


@njit(nogil=True)
def _accumulate_two(a, b, out):
    for d in range(out.shape[0]):
        out[d] += a[d] + b[d]


@njit(nogil=True)
def _raise_to(values, largest):
    for d in range(largest.shape[0]):
        largest[d] = values[d] if values[d] > largest[d] else largest[d]


@njit(nogil=True, fastmath={"contract"})
def _accumulate_exponentials(values, largest, total):
    for d in range(total.shape[0]):
        total[d] += exp(values[d] - largest[d])


@njit(nogil=True)
def _log_probability_of_all(log_q, children, parameter_index, root_index, below, rooting, out):
    """`log_probability` of one topology under all components.

    Leaves the log-probabilities of all rootings in rooting [edge, component]; below is [slot, component].
    """
    num_internal = children.shape[0]
    num_taxa = num_internal + 2
    num_edges = 2 * num_taxa - 3
    below[:] = 0.0
    for i in range(num_internal):
        left, right = children[i, 0], children[i, 1]
        target = below[up_slot(num_taxa + i, num_taxa) ^ 1]
        _accumulate_two(log_q[parameter_index[2 * left, 1]], below[2 * left], target)
        _accumulate_two(log_q[parameter_index[2 * right, 1]], below[2 * right], target)
    for i in range(num_internal - 1, -1, -1):
        up = up_slot(num_taxa + i, num_taxa)
        for j in range(2):
            child, sibling = children[i, j], children[i, 1 - j]
            target = below[2 * child + 1]
            _accumulate_two(log_q[parameter_index[2 * sibling, 2]], below[2 * sibling], target)
            _accumulate_two(log_q[parameter_index[up, 2 - j]], below[up], target)
    largest = np.full(out.shape[0], -np.inf)
    for e in range(num_edges):
        _add_three(log_q[root_index[e]], below[2 * e], below[2 * e + 1], rooting[e])
        _accumulate_two(log_q[parameter_index[2 * e, 0]], log_q[parameter_index[2 * e + 1, 0]], rooting[e])
        _raise_to(rooting[e], largest)
    out[:] = 0.0
    for e in range(num_edges):
        _accumulate_exponentials(rooting[e], largest, out)
    for d in range(out.shape[0]):
        out[d] = largest[d] + np.log(out[d]) if largest[d] > -np.inf else -np.inf


@njit(cache=True, nogil=True)
def add_expected_counts(
    weight, children, parameter_index, root_index, posterior, parameter_parent, mass, counts, is_touched,
    touched, num_touched,
):  # fmt: skip
    """Add `weight` times the posterior expected number of uses of every parameter by one topology.

    posterior [edge] is the probability of each rooting given the topology. A PCSP is used by the rootings
    on one side of its node, so its expected count is a sum of `posterior` over a subtree (M(e): branch e
    and all below it): 1 - M(e) - M(sibling) for sister D(sibling), M(sibling) for sister U(parent), M(other
    child) for an upper slot.

    Args:
        weight: Any real number.
        children: The topology.
        parameter_index: Its parameters [slot, 3].
        root_index: Its rootsplits' parameters [edge].
        posterior: Probability of each rooting given the topology [edge].
        parameter_parent: Parent of every parameter.
        mass: Scratch space [2n - 2].
        counts: [parameter + 2], added to.
        is_touched: [parent], set to 1 where something was added.
        touched: [parent]; parents newly set are appended.
        num_touched: Length of that list so far.

    Returns:
        The new length of the list.
    """
    num_internal = children.shape[0]
    num_taxa = num_internal + 2
    num_edges = 2 * num_taxa - 3
    num_parameters = parameter_parent.shape[0]
    for e in range(num_edges):
        mass[e] = posterior[e]
    for i in range(num_internal - 1):
        mass[num_taxa + i] += mass[children[i, 0]] + mass[children[i, 1]]
    for e in range(num_edges):
        amount = weight * posterior[e]
        for j in range(3):
            index = root_index[e] if j == 0 else parameter_index[2 * e + j - 1, 0]
            if index < num_parameters:
                if counts[index] == 0.0:
                    num_touched = _touch(parameter_parent[index], is_touched, touched, num_touched)
                counts[index] += amount
    for i in range(num_internal):
        up = up_slot(num_taxa + i, num_taxa)
        above = weight * max(0.0, 1.0 - mass[children[i, 0]] - mass[children[i, 1]])
        for j in range(2):
            child, sibling = children[i, j], children[i, 1 - j]
            amount = weight * mass[sibling]
            for option in range(3):
                if option == 0:
                    index = parameter_index[2 * child, 1]
                elif option == 1:
                    index = parameter_index[2 * child, 2]
                else:
                    index = parameter_index[up, 1 + j]
                if index < num_parameters:
                    if counts[index] == 0.0:
                        num_touched = _touch(parameter_parent[index], is_touched, touched, num_touched)
                    counts[index] += above if option == 0 else amount
    return num_touched


@njit(cache=True, nogil=True, inline="always")
def _touch(parent, is_touched, touched, num_touched):
    """Append a parent to the list of touched ones, once."""
    if is_touched[parent] == 0:
        is_touched[parent] = 1
        touched[num_touched] = parent
        num_touched += 1
    return num_touched


@njit(cache=True, nogil=True)
def rooting_posterior(log_q, children, parameter_index, root_index, below, out):
    """Write the probability of each rooting given the topology to out [edge]; returns log q(tau)."""
    _rooting_log_probabilities(log_q, children, parameter_index, root_index, below, out)
    return _normalise(out)


@njit(cache=True, nogil=True)
def refresh(logits, parent_start, log_q, q):
    """Recompute every softmax of every component; the arithmetic is that of training steps, bit for bit.

    Args:
        logits: [component, parameter].
        parent_start: First parameter of every parent, and their number at the end.
        log_q: Written, [parameter + 2, component].
        q: Written, [component, parameter + 2].
    """
    size = log_q.shape[0]
    shifted = np.empty(logits.shape[1])
    for a in range(logits.shape[0]):
        for parent in range(parent_start.shape[0] - 1):
            start, stop = parent_start[parent], parent_start[parent + 1]
            largest = -np.inf
            for i in range(start, stop):
                largest = max(largest, logits[a, i])
            for i in range(start, stop):
                shifted[i] = logits[a, i] - largest
        exponentials(shifted, q[a, : size - 2])
        for parent in range(parent_start.shape[0] - 1):
            start, stop = parent_start[parent], parent_start[parent + 1]
            total = 0.0
            for i in range(start, stop):
                total += q[a, i]
            inverse, log_total = 1.0 / total, np.log(total)
            for i in range(start, stop):
                q[a, i] *= inverse
                log_q[i, a] = shifted[i] - log_total
        log_q[size - 2, a] = -np.inf
        log_q[size - 1, a] = 0.0
        q[a, size - 2] = 0.0
        q[a, size - 1] = 1.0


@njit(cache=True, nogil=True)
def expectation_step(
    log_q, weights, children, parameter_index, root_index, parameter_parent, uniform_rooting, counts
):
    """Add weighted expected counts of topologies to counts [parameter + 2]; returns sum_t w_t log q(tau_t).

    With `uniform_rooting` every rooting has probability 1 / (2n - 3), whatever log_q; otherwise topologies
    outside the support are passed over and do not enter the returned sum.
    """
    num_edges = root_index.shape[1]
    num_parents = parameter_parent[-1] + 1
    below = np.empty(2 * num_edges)
    posterior = np.empty(num_edges)
    is_touched = np.zeros(num_parents, np.uint8)
    touched = np.empty(num_parents, np.int32)
    num_touched = 0
    mass = np.empty(num_edges + 1)
    total = 0.0
    for t in range(children.shape[0]):
        if weights[t] == 0.0:
            continue
        if uniform_rooting:
            posterior[:] = 1.0 / num_edges
        else:
            log_probability_of_tree = rooting_posterior(
                log_q, children[t], parameter_index[t], root_index[t], below, posterior
            )
            if log_probability_of_tree == -np.inf:
                continue
            total += weights[t] * log_probability_of_tree
        num_touched = add_expected_counts(
            weights[t], children[t], parameter_index[t], root_index[t], posterior, parameter_parent, mass,
            counts, is_touched, touched, num_touched,
        )  # fmt: skip
    return total


# frameworks
@njit(cache=True, nogil=True)
def rooting_terms(children, parameter_index, impossible, terms, in_subtree):
    """What log-probabilities of rootings are sums of, without recursion.

    Every branch c that has a sibling adds, to the rooting on branch e,

        log q[terms[c, 0]]                       if e is neither in the subtree of c nor in its sibling's,
        log q[terms[c, 1]] + log q[terms[c, 2]]  if e is in the sibling's subtree.

    Args:
        children: Topologies [tree, internal, 2].
        parameter_index: [tree, slot, 3]; see the module docstring.
        impossible: Number of parameters, P; P + 1 is the dummy of probability 1.
        terms: Written, [tree, edge, 3].
        in_subtree: Written, [tree, edge c, edge e, 2] uint8: whether e lies in the subtree (top branch
            included) of c,
            and of c's sibling.
    """
    num_trees, num_internal = children.shape[0], children.shape[1]
    num_taxa = num_internal + 2
    num_edges = 2 * num_taxa - 3
    in_subtree[:] = 0
    terms[:] = impossible + 1
    for t in range(num_trees):
        for e in range(num_taxa):
            in_subtree[t, e, e, 0] = 1
        for i in range(num_internal - 1):
            node = num_taxa + i
            for e in range(num_edges):
                in_subtree[t, node, e, 0] = (
                    in_subtree[t, children[t, i, 0], e, 0] | in_subtree[t, children[t, i, 1], e, 0]
                )
            in_subtree[t, node, node, 0] = 1
        for i in range(num_internal):
            up = up_slot(num_taxa + i, num_taxa)
            for j in range(2):
                child, sibling = children[t, i, j], children[t, i, 1 - j]
                terms[t, child, 0] = parameter_index[t, 2 * child, 1]
                terms[t, child, 1] = parameter_index[t, 2 * child, 2]
                terms[t, child, 2] = parameter_index[t, up, 1 + j]
                for e in range(num_edges):
                    in_subtree[t, child, e, 1] = in_subtree[t, sibling, e, 0]
        # the last leaf has no sibling: mark everything as below it, so that it adds nothing
        in_subtree[t, num_taxa - 1, :, 0] = 1
