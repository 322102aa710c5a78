"""A training step as a textbook would write it: tree objects, dictionaries, torch scalars, autograd.

One component, K particles, VIMCO and reparameterised lognormal branches (Zhang & Matsen 2019), in float64 on
one thread: what a step costs before anybody has thought about cost. Of the package it uses the support, whose
tables become dictionaries, and the priors.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import _textbook
import numpy as np
import torch

from vbpi_mix.likelihood.priors import ExponentialBranchPrior, log_topology_prior
from vbpi_mix.patterns import SitePatterns
from vbpi_mix.sbn.support import Support


@dataclass(eq=False)
class Node:
    """A node of an unrooted tree."""

    taxon: int | None = None
    neighbours: list["Node"] = field(default_factory=list)


class TextbookStep:
    """The parameters of one component and Adam steps on them."""

    def __init__(self, support: Support, patterns: SitePatterns, num_particles: int) -> None:
        """Make dictionaries of the support's tables."""
        self.num_taxa, self.num_particles = support.num_taxa, num_particles
        everything = (1 << self.num_taxa) - 1
        masks = [sum(int(word) << (64 * w) for w, word in enumerate(row)) for row in support.masks]
        clades = [clade for mask in masks for clade in (mask, everything ^ mask)]
        self.everything = everything
        self.families: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
        self.parameter: dict[tuple[int, int, int], int] = {}
        self.segments = [
            torch.arange(*ends)
            for ends in zip(support.parent_start[:-1], support.parent_start[1:], strict=True)
        ]
        for parent, segment in enumerate(self.segments):
            for i in segment.tolist():
                if parent == 0:
                    key = (0, everything, min(clades[2 * i], clades[2 * i + 1]))
                    family, parts = (0, everything), (clades[2 * i], clades[2 * i + 1])
                else:
                    sister, focal = (clades[c] for c in support.parent_clades[parent])
                    t, k = divmod(int(support.parameter_subsplit[i]), 3)
                    one, other = (clades[support.tripartitions[t, j]] for j in range(3) if j != k)
                    key, family, parts = (sister, focal, min(one, other)), (sister, focal), (one, other)
                self.parameter[key] = i
                self.families.setdefault(family, []).append((i, *parts))
        self.logits = torch.zeros(support.num_parameters, dtype=torch.float64, requires_grad=True)
        self.row: dict[int | tuple[int, int], int] = {}
        for mask in masks:
            self.row[min(mask, everything ^ mask)] = len(self.row)
        for t in range(len(support.tripartitions)):
            for k in range(3):
                one, other = (clades[support.tripartitions[t, j]] for j in range(3) if j != k)
                self.row[(min(one, other), max(one, other))] = len(self.row)
        table = torch.zeros(len(self.row) + 1, 2, dtype=torch.float64)
        table[: len(masks)] = torch.tensor([-3.5, -1.0])
        self.table = table.requires_grad_()
        self.prior = ExponentialBranchPrior(10.0)
        self.optimiser = torch.optim.Adam([self.logits, self.table], lr=1e-3)
        bits = patterns.states[..., None].astype(np.int64) >> np.arange(4) & 1
        self.tips = torch.tensor(bits, dtype=torch.float64)
        self.weights = torch.tensor(patterns.weights, dtype=torch.float64)

    def __call__(self) -> float:
        """One step; returns its bound."""
        log_q = self._log_parameters()
        probability = log_q.detach().exp().tolist()
        values, scores = [], []
        for _ in range(self.num_particles):
            root = self._sample(probability)
            edges = list(_edges(root))
            clade = {(u, v): self._clade(u, v) for a, b in edges for u, v in ((a, b), (b, a))}
            log_topology = self._log_topology(log_q, edges, clade)
            rows = torch.tensor([self._rows(a, b, clade) for a, b in edges])
            location, log_scale = self.table[rows].sum(1).T
            noise = torch.randn_like(location)
            log_lengths = location + noise * log_scale.exp()
            log_branches = (-0.5 * noise**2 - log_scale - 0.5 * math.log(2 * math.pi)).sum()
            log_joint = (
                self._log_likelihood(root, edges, log_lengths.exp())
                + self.prior.log_density(log_lengths)
                + log_topology_prior(self.num_taxa)
            )
            values.append(log_joint - log_topology - log_branches)
            scores.append(log_topology)
        f, score = torch.stack(values), torch.stack(scores)
        bound = torch.logsumexp(f, 0) - math.log(len(f))
        signal = (bound - self._bounds_without(f)).detach()
        self.optimiser.zero_grad()
        (-(bound + (signal * score).sum())).backward()
        self.optimiser.step()
        return float(bound.detach())

    def _bounds_without(self, f: torch.Tensor) -> torch.Tensor:
        """The bound with each particle replaced by the mean of the others."""
        count = len(f)
        replaced = f.repeat(count, 1)
        replaced.fill_diagonal_(0.0)
        replaced = replaced + torch.diag(replaced.sum(1) / (count - 1))
        return torch.logsumexp(replaced, 1) - math.log(count)

    def _log_parameters(self) -> torch.Tensor:
        """Log-probability of every parameter, parent by parent."""
        return torch.cat([self.logits[s[0] : s[-1] + 1].log_softmax(0) for s in self.segments])

    def _sample(self, probability: list[float]) -> Node:
        """A topology; returns an end of its root branch."""
        one, other = self._choose(0, self.everything, probability)
        first, second = self._grow(other, one, probability), self._grow(one, other, probability)
        first.neighbours.append(second)
        second.neighbours.append(first)
        return first if first.taxon is None else second

    def _choose(self, sister: int, focal: int, probability: list[float]) -> tuple[int, int]:
        family = self.families[sister, focal]
        shares = torch.tensor([probability[i] for i, _, _ in family])
        _, one, other = family[int(torch.multinomial(shares, 1))]
        return one, other

    def _grow(self, sister: int, focal: int, probability: list[float]) -> Node:
        if focal & (focal - 1) == 0:
            return Node(taxon=focal.bit_length() - 1)
        node = Node()
        one, other = self._choose(sister, focal, probability)
        for mine, theirs in ((one, other), (other, one)):
            child = self._grow(theirs, mine, probability)
            node.neighbours.append(child)
            child.neighbours.append(node)
        return node

    def _clade(self, node: Node, away_from: Node) -> int:
        if node.taxon is not None:
            return 1 << node.taxon
        return sum(self._clade(child, node) for child in node.neighbours if child is not away_from)

    def _log_topology(self, log_q: torch.Tensor, edges: list, clade: dict) -> torch.Tensor:
        """Log-probability: the sum over rootings, each directed branch's part computed once."""
        memory: dict[tuple[Node, Node], torch.Tensor] = {}

        def split(node: Node, away_from: Node, sister: int) -> torch.Tensor:
            if node.taxon is not None:
                return log_q.new_zeros(())
            parts = [clade[child, node] for child in node.neighbours if child is not away_from]
            index = self.parameter.get((sister, clade[node, away_from], min(parts)))
            return log_q.new_tensor(-torch.inf) if index is None else log_q[index]

        def below(node: Node, away_from: Node) -> torch.Tensor:
            if (node, away_from) not in memory:
                total = log_q.new_zeros(())
                if node.taxon is None:
                    left, right = (child for child in node.neighbours if child is not away_from)
                    for child, sibling in ((left, right), (right, left)):
                        total = total + split(child, node, clade[sibling, node]) + below(child, node)
                memory[node, away_from] = total
            return memory[node, away_from]

        rootings = []
        for a, b in edges:
            root = self.parameter[0, self.everything, min(clade[a, b], clade[b, a])]
            rootings.append(
                log_q[root] + split(a, b, clade[b, a]) + below(a, b) + split(b, a, clade[a, b]) + below(b, a)
            )
        return torch.logsumexp(torch.stack(rootings), 0)

    def _rows(self, a: Node, b: Node, clade: dict) -> list[int]:
        rows = [self.row[min(clade[a, b], clade[b, a])]]
        for node, other in ((a, b), (b, a)):
            parts = sorted(clade[child, node] for child in node.neighbours if child is not other)
            rows.append(self.row[tuple(parts)] if parts else len(self.row))
        return rows

    def _log_likelihood(self, root: Node, edges: list, lengths: torch.Tensor) -> torch.Tensor:
        """JC69, by the recursion of `_textbook`."""
        number = {edge: i for i, edge in enumerate(edges)}

        def rooted(node: Node, away_from: Node | None) -> _textbook.Node:
            below = [rooted(child, node) for child in node.neighbours if child is not away_from]
            branch = None if away_from is None else number[away_from, node]
            return _textbook.Node(branch, node.taxon, below)

        decay = torch.exp(-4.0 / 3.0 * lengths)[:, None, None]
        transitions = (1.0 - decay) / 4.0 + decay * torch.eye(4, dtype=torch.float64)
        by_state = _textbook.partial(rooted(root, None), self.tips, transitions) / 4.0
        return (self.weights * by_state.sum(-1).log()).sum()


def _edges(root: Node) -> Iterator[tuple[Node, Node]]:
    """Every branch once, from the given node outwards."""
    stack: list[tuple[Node, Node | None]] = [(root, None)]
    while stack:
        node, away_from = stack.pop()
        for child in node.neighbours:
            if child is not away_from:
                yield node, child
                stack.append((child, node))
