"""Compiled kernels of correlated branch noise; the mathematics is in `vbpi_mix.results.correlations`.

Shapes: ``tripartition [tree, internal]`` numbers the tripartition of every internal node; ``around [tree,
internal, 3]`` holds the branches around every node, in the order of the tripartition's clades;
``correlations [component, tripartition, 3]`` and ``precision [component, tripartition, 7]`` are those of
`Correlations`. ``parameter_index [tree, slot, 3]`` is that of `vbpi_mix.sbn._support_kernels`, and
``shifts [component, parameter + 2]`` the shift that every PCSP gives the branch above it.
"""

import math

import numpy as np
from numba import njit

from vbpi_mix.branches._kernels import standardise


@njit(cache=True, nogil=True)
def branches_around(
    children: np.ndarray,
    split: np.ndarray,
    tripartition: np.ndarray,
    tripartitions: np.ndarray,
    out: np.ndarray,
) -> None:
    """Write the branches around every internal node to out [tree, internal, 3]."""
    num_trees, num_internal = tripartition.shape
    num_taxa = num_internal + 2
    top = 2 * num_taxa - 3
    for t in range(num_trees):
        for i in range(num_internal):
            node = num_taxa + i
            left, right = children[t, i, 0], children[t, i, 1]
            for k in range(3):
                clade = tripartitions[tripartition[t, i], k]
                if clade == 2 * split[t, left]:
                    out[t, i, k] = left
                elif clade == 2 * split[t, right]:
                    out[t, i, k] = right
                else:
                    out[t, i, k] = num_taxa - 1 if node == top else node


@njit(cache=True, nogil=True)
def correlate(
    component_of_tree: np.ndarray,
    tripartition: np.ndarray,
    around: np.ndarray,
    correlations: np.ndarray,
    noise: np.ndarray,
) -> None:
    """Turn independent standard normal noise [tree, edge] into correlated noise, in place.

    From the top node down: of the three branches around a node the upper one has its noise already, and the
    other two are drawn given it.
    """
    num_trees, num_internal = tripartition.shape
    num_taxa = num_internal + 2
    for t in range(num_trees):
        for i in range(num_internal - 1, -1, -1):
            upper = num_taxa - 1 if i == num_internal - 1 else num_taxa + i
            own = correlations[component_of_tree[t], tripartition[t, i]]
            k = 0
            while around[t, i, k] != upper:
                k += 1
            a, b = (k + 1) % 3, (k + 2) % 3
            # own[k] belongs to the pair of branches other than k.
            to_a, to_b, between = own[b], own[a], own[k]
            scale_a = math.sqrt(1.0 - to_a * to_a)
            shared = (between - to_a * to_b) / scale_a
            scale_b = math.sqrt(max(0.0, 1.0 - to_b * to_b - shared * shared))
            x, first, second = noise[t, upper], noise[t, around[t, i, a]], noise[t, around[t, i, b]]
            noise[t, around[t, i, a]] = to_a * x + scale_a * first
            noise[t, around[t, i, b]] = to_b * x + shared * first + scale_b * second


@njit(nogil=True)
def _add_shifts(
    children: np.ndarray, parameter_index: np.ndarray, shifts: np.ndarray, sign: float, noise: np.ndarray
) -> None:
    """Add sign times the shifts [parameter + 2] of one tree's PCSPs to noise [edge].

    A PCSP shifts the branch that parts its focal clade and sister from the rest.
    """
    num_internal = children.shape[0]
    num_taxa = num_internal + 2
    top = 2 * num_taxa - 3
    for i in range(num_internal):
        node = num_taxa + i
        upper = num_taxa - 1 if node == top else node
        for j in range(2):
            child, sibling = children[i, j], children[i, 1 - j]
            noise[upper] += sign * shifts[parameter_index[2 * child, 1]]
            noise[sibling] += sign * shifts[parameter_index[2 * child, 2]]
            if node != top:
                noise[sibling] += sign * shifts[parameter_index[2 * node + 1, 1 + j]]


@njit(cache=True, nogil=True)
def add_shifts(
    component_of_tree: np.ndarray,
    children: np.ndarray,
    parameter_index: np.ndarray,
    shifts: np.ndarray,
    noise: np.ndarray,
) -> None:
    """Add the shifts [component, parameter + 2] of every tree's PCSPs to noise [tree, edge]."""
    for t in range(noise.shape[0]):
        _add_shifts(children[t], parameter_index[t], shifts[component_of_tree[t]], 1.0, noise[t])


@njit(cache=True, nogil=True)
def add_by_pcsp(
    children: np.ndarray, parameter_index: np.ndarray, values: np.ndarray, out: np.ndarray
) -> None:
    """Add values [tree, edge] to out [parameter + 2], at the PCSPs that shift the branch.

    The transpose of `add_shifts`.
    """
    num_internal = children.shape[1]
    num_taxa = num_internal + 2
    top = 2 * num_taxa - 3
    for t in range(children.shape[0]):
        for i in range(num_internal):
            node = num_taxa + i
            upper = num_taxa - 1 if node == top else node
            for j in range(2):
                child, sibling = children[t, i, j], children[t, i, 1 - j]
                out[parameter_index[t, 2 * child, 1]] += values[t, upper]
                out[parameter_index[t, 2 * child, 2]] += values[t, sibling]
                if node != top:
                    out[parameter_index[t, 2 * node + 1, 1 + j]] += values[t, sibling]


@njit(cache=True, nogil=True)
def log_ratio(
    params: np.ndarray,
    feature_index: np.ndarray,
    log_lengths: np.ndarray,
    skewed: bool,
    tripartition: np.ndarray,
    around: np.ndarray,
    children: np.ndarray,
    parameter_index: np.ndarray,
    shifts: np.ndarray,
    of_model: np.ndarray,
    precision: np.ndarray,
    work: np.ndarray,
    out: np.ndarray,
) -> None:
    """Write the log ratio of dependent to independent density of every tree to out [tree, component].

    ``of_model`` is the mean noise that the model's noise makes [component, tree, edge]; of no component where
    the model has none. ``work`` is scratch space of `vbpi_mix.branches._kernels.make_work`.
    """
    noise = np.empty(log_lengths.shape[1])
    for component in range(params.shape[0]):
        for t in range(log_lengths.shape[0]):
            standardise(params[component], feature_index[t], log_lengths[t], skewed, work, noise)
            total = 0.0
            for e in range(noise.shape[0]):
                total -= noise[e] * noise[e]
            _add_shifts(children[t], parameter_index[t], shifts[component], -1.0, noise)
            if of_model.shape[0] > 0:
                noise -= of_model[component, t]
            for e in range(noise.shape[0]):
                total += noise[e] * noise[e]
            for i in range(tripartition.shape[1]):
                p = precision[component, tripartition[t, i]]
                x, y, z = noise[around[t, i, 0]], noise[around[t, i, 1]], noise[around[t, i, 2]]
                total += p[0] * x * x + p[1] * y * y + p[2] * z * z
                total += 2.0 * (p[3] * y * z + p[4] * x * z + p[5] * x * y) + p[6]
            out[t, component] = -0.5 * total


@njit(cache=True, nogil=True)
def noise_of_lengths(
    table: np.ndarray,
    feature_index: np.ndarray,
    topology_index: np.ndarray,
    log_lengths: np.ndarray,
    skewed: bool,
    work: np.ndarray,
    out: np.ndarray,
) -> None:
    """Write the noise [draw, edge] that gives log branch lengths [draw, edge] under one component's table.

    ``feature_index`` has a row a distinct topology.
    """
    for i in range(log_lengths.shape[0]):
        standardise(table, feature_index[topology_index[i]], log_lengths[i], skewed, work, out[i])


@njit(cache=True, nogil=True)
def add_rows(values: np.ndarray, topology_index: np.ndarray, weights: np.ndarray, out: np.ndarray) -> None:
    """Add values [draw, edge] times weights [draw] to out [topology, edge]; any value without weight."""
    for i in range(values.shape[0]):
        if weights[i] > 0.0:
            out[topology_index[i]] += weights[i] * values[i]


@njit(cache=True, nogil=True)
def add_regressions(
    noise: np.ndarray,
    topology_index: np.ndarray,
    weights: np.ndarray,
    split: np.ndarray,
    regressors: np.ndarray,
    squares: np.ndarray,
    products: np.ndarray,
    total_of_squares: np.ndarray,
) -> None:
    """Add the sums of weighted regressions of noise [draw, edge], one for each split.

    For regressors x [draw, regressor] and noise y these are, where the tree has the split, sums of w x x' in
    squares [split, regressor, regressor], whose upper triangle stays, of w x y in products [split,
    regressor], and of w^2. ``split`` has a row a distinct topology.
    """
    for i in range(weights.shape[0]):
        w, t = weights[i], topology_index[i]
        if w == 0.0:
            continue
        x = regressors[i]
        for e in range(noise.shape[1]):
            s = split[t, e]
            total_of_squares[s] += w * w
            for j in range(x.shape[0]):
                products[s, j] += w * x[j] * noise[i, e]
                for k in range(j + 1):
                    squares[s, j, k] += w * x[j] * x[k]


@njit(cache=True, nogil=True)
def add_moments(
    noise: np.ndarray,
    topology_index: np.ndarray,
    weights: np.ndarray,
    tripartition: np.ndarray,
    around: np.ndarray,
    out: np.ndarray,
) -> None:
    """Add weighted moments of noise [draw, edge] around the nodes to out [tripartition, 8].

    Columns are sums of w x_k^2 of the three branches, of w x_a x_b of the pair other than k, of w and of
    w^2. ``tripartition`` and ``around`` have a row a distinct topology.
    """
    for i in range(weights.shape[0]):
        w, t = weights[i], topology_index[i]
        if w == 0.0:
            continue
        for j in range(tripartition.shape[1]):
            row = out[tripartition[t, j]]
            x, y, z = noise[i, around[t, j, 0]], noise[i, around[t, j, 1]], noise[i, around[t, j, 2]]
            row[0] += w * x * x
            row[1] += w * y * y
            row[2] += w * z * z
            row[3] += w * y * z
            row[4] += w * x * z
            row[5] += w * x * y
            row[6] += w
            row[7] += w * w


@njit(cache=True, nogil=True)
def precision_and_determinant(correlations: np.ndarray, out: np.ndarray) -> None:
    """Write precision minus identity and log determinant of 3 x 3 correlation matrices to out [matrix, 7].

    Columns are the three diagonal entries, those off the diagonal (of the pair other than k), and the log
    determinant.
    """
    for m in range(correlations.shape[0]):
        a, b, c = correlations[m, 0], correlations[m, 1], correlations[m, 2]
        determinant = 1.0 + 2.0 * a * b * c - a * a - b * b - c * c
        out[m, 0] = (1.0 - a * a) / determinant - 1.0
        out[m, 1] = (1.0 - b * b) / determinant - 1.0
        out[m, 2] = (1.0 - c * c) / determinant - 1.0
        out[m, 3] = (b * c - a) / determinant
        out[m, 4] = (a * c - b) / determinant
        out[m, 5] = (a * b - c) / determinant
        out[m, 6] = np.log(determinant)
