"""Compiled byte-level Newick writer; its public face is ``newick``."""

import numpy as np
from numba import njit

_OPEN, _CLOSE, _COMMA, _SEMICOLON = np.frombuffer(b"(),;", np.uint8)


@njit(cache=True, nogil=True)
def write_trees(
    children: np.ndarray,
    labels: np.ndarray,
    label_bounds: np.ndarray,
    suffixes: np.ndarray,
    suffix_bounds: np.ndarray,
    out: np.ndarray,
) -> None:
    """Newick texts of topologies, one right after another, into ``out`` [byte], which they fill.

    The label of taxon i is ``labels[label_bounds[i]:label_bounds[i + 1]]`` and does not end with a bracket;
    the text after edge e of tree t is found alike at ``suffix_bounds[t * num_edges + e]``.
    """
    num_taxa = children.shape[1] + 2
    num_edges = 2 * num_taxa - 3
    # What is still to be written, last first: a node's text, or as ~node the end of that text.
    pending = np.empty(2 * num_taxa, np.int64)
    position = 0
    for t in range(children.shape[0]):
        out[position] = _OPEN
        position += 1
        pending[0], pending[1], pending[2] = num_taxa - 1, children[t, -1, 1], children[t, -1, 0]
        depth = 3
        while depth > 0:
            depth -= 1
            node = pending[depth]
            if node < 0:
                node = ~node
                out[position] = _CLOSE
                position += 1
            else:
                if out[position - 1] != _OPEN:
                    out[position] = _COMMA
                    position += 1
                if node >= num_taxa:
                    out[position] = _OPEN
                    position += 1
                    pending[depth] = ~node
                    pending[depth + 1] = children[t, node - num_taxa, 1]
                    pending[depth + 2] = children[t, node - num_taxa, 0]
                    depth += 3
                    continue
                for i in range(label_bounds[node], label_bounds[node + 1]):
                    out[position] = labels[i]
                    position += 1
            edge = t * num_edges + node
            for i in range(suffix_bounds[edge], suffix_bounds[edge + 1]):
                out[position] = suffixes[i]
                position += 1
        out[position], out[position + 1] = _CLOSE, _SEMICOLON
        position += 2
