"""The definition of a subsplit Bayesian network, slow and obvious: sets of taxa, one rooting at a time.

The tests hold the tables and kernels of this folder to it. A clade is a frozenset of taxon numbers, a
subsplit a frozenset of two clades, a PCSP a triple (sister, focal, subsplit of the focal clade).
"""

from collections.abc import Iterator
from functools import cache

import numpy as np
from jaxtyping import Int32

from vbpi_mix.sbn.support import Support

Clade = frozenset[int]
Subsplit = frozenset[Clade]
Pcsp = tuple[Clade, Clade, Subsplit]


def rooted_versions(children: Int32[np.ndarray, "internal 2"]) -> Iterator[tuple[Subsplit, list[Pcsp]]]:
    """The rootsplit and the PCSPs of every rooting of a topology, branch by branch."""
    num_taxa = len(children) + 2
    neighbours: dict[int, list[int]] = {v: [] for v in range(2 * num_taxa - 2)}
    edges = [(int(c), num_taxa + i) for i in range(len(children)) for c in children[i]]
    edges.insert(num_taxa - 1, (num_taxa - 1, 2 * num_taxa - 3))
    for a, b in edges:
        neighbours[a].append(b)
        neighbours[b].append(a)

    @cache
    def clade(node: int, above: int) -> Clade:
        if node < num_taxa:
            return frozenset([node])
        return frozenset().union(*(clade(v, node) for v in neighbours[node] if v != above))

    def pcsps(node: int, above: int, sister: Clade) -> Iterator[Pcsp]:
        if node < num_taxa:
            return
        first, second = (v for v in neighbours[node] if v != above)
        below = clade(first, node), clade(second, node)
        yield sister, clade(node, above), frozenset(below)
        yield from pcsps(first, node, below[1])
        yield from pcsps(second, node, below[0])

    for a, b in edges:
        sides = clade(a, b), clade(b, a)
        yield frozenset(sides), [*pcsps(a, b, sides[1]), *pcsps(b, a, sides[0])]


def parameter_names(support: Support) -> list[Subsplit | Pcsp]:
    """What every parameter of a support stands for, in order."""

    def clade(number: int) -> Clade:
        bits = support.masks[number >> 1]
        inside = frozenset(t for t in range(support.num_taxa) if int(bits[t // 64]) >> (t % 64) & 1)
        return inside if number % 2 == 0 else frozenset(range(support.num_taxa)) - inside

    names: list[Subsplit | Pcsp] = [
        frozenset([clade(2 * s), clade(2 * s + 1)]) for s in range(support.num_splits)
    ]
    for parent in range(1, support.num_parents):
        sister, focal = (clade(int(c)) for c in support.parent_clades[parent])
        for i in range(support.parent_start[parent], support.parent_start[parent + 1]):
            t, k = divmod(int(support.parameter_subsplit[i]), 3)
            parts = frozenset(clade(int(c)) for j, c in enumerate(support.tripartitions[t]) if j != k)
            names.append((sister, focal, parts))
    return names


def log_probability(children: Int32[np.ndarray, "internal 2"], log_q: dict[Subsplit | Pcsp, float]) -> float:
    """Log of the sum over rootings of the product of q(rootsplit) and q(PCSP), in nats; -inf if all are 0."""
    rootings = [
        log_q.get(rootsplit, -np.inf) + sum(log_q.get(pcsp, -np.inf) for pcsp in pcsps)
        for rootsplit, pcsps in rooted_versions(children)
    ]
    return float(np.logaddexp.reduce(rootings))
