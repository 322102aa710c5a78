"""Alignments simulated under JC69 along random trees, with trees near the true one."""

import numpy as np

from vbpi_mix.alignment import Alignment
from vbpi_mix.trees.topology import canonicalise, random_topologies

MEAN_LENGTH = 0.05
"""Mean branch length, in expected substitutions per site."""


def random_trees(num_taxa: int, num_trees: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Uniform topologies [tree, internal, 2] with exponential branch lengths [tree, edge]."""
    rng = np.random.default_rng(seed)
    lengths = rng.exponential(MEAN_LENGTH, (num_trees, 2 * num_taxa - 3))
    return random_topologies(num_taxa, num_trees, rng), lengths


def simulate(num_taxa: int, num_sites: int, seed: int) -> tuple[Alignment, np.ndarray, np.ndarray]:
    """An alignment simulated under JC69, its topology [internal, 2] and its branch lengths [edge]."""
    children, lengths = random_trees(num_taxa, 1, seed)
    children, lengths = children[0], lengths[0]
    rng = np.random.default_rng([seed, num_taxa])
    states = np.empty((2 * num_taxa - 2, num_sites), np.uint8)
    states[-1] = rng.integers(4, size=num_sites)
    below = [(num_taxa - 1, 2 * num_taxa - 3)]
    below += [(child, num_taxa + i) for i in range(num_taxa - 3, -1, -1) for child in children[i].tolist()]
    for node, parent in below:
        # With probability exp(-4t/3) nothing happens; else the state is drawn anew from all four.
        is_drawn = rng.random(num_sites) > np.exp(-4.0 / 3.0 * lengths[node])
        states[node] = np.where(is_drawn, rng.integers(4, size=num_sites), states[parent])
    taxa = tuple(f"taxon{i:04d}" for i in range(num_taxa))
    source = f"simulated-{num_taxa}-{num_sites}-{seed}.fasta"
    return Alignment(taxa, np.left_shift(1, states[:num_taxa]).astype(np.uint8), source), children, lengths


def neighbourhood(children: np.ndarray, num_trees: int, steps: int, seed: int) -> np.ndarray:
    """The topology itself and ends of random walks of one to `steps` nearest-neighbour interchanges."""
    rng = np.random.default_rng(seed)
    num_taxa = len(children) + 2
    trees = [children]
    while len(trees) < num_trees:
        pairs = children.tolist()
        for _ in range(rng.integers(1, steps + 1)):
            _interchange(pairs, num_taxa, rng)
        trees.append(_children_first(pairs, num_taxa))
    return canonicalise(np.stack(trees))


def _interchange(pairs: list[list[int]], num_taxa: int, rng: np.random.Generator) -> None:
    """Exchange a child of a random inner branch's lower node with that node's sibling."""
    while True:
        upper, side, child = rng.integers(len(pairs)), rng.integers(2), rng.integers(2)
        lower = pairs[upper][side] - num_taxa
        if lower >= 0:
            break
    pairs[upper][1 - side], pairs[lower][child] = pairs[lower][child], pairs[upper][1 - side]


def _children_first(pairs: list[list[int]], num_taxa: int) -> np.ndarray:
    """Children [internal, 2] with the nodes renumbered so that children come before parents."""
    order, stack = [], [len(pairs) - 1]
    while stack:
        node = stack.pop()
        order.append(node)
        stack += [child - num_taxa for child in pairs[node] if child >= num_taxa]
    new = {node + num_taxa: num_taxa + i for i, node in enumerate(reversed(order))}
    rows = [[new.get(child, child) for child in pairs[node]] for node in reversed(order)]
    return np.array(rows, np.int32)
