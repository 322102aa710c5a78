"""The reference against the sum over all ancestral states, and against cases worked by hand."""

from itertools import product

import numpy as np
import pytest
import torch

from vbpi_mix.likelihood.models import jc69
from vbpi_mix.likelihood.reference import log_likelihood
from vbpi_mix.patterns import SitePatterns


def enumerated(children, branch_lengths, patterns, model):
    """Log-likelihood as the sum over categories and over the states of all nodes, leaves included."""
    num_taxa = patterns.num_taxa
    transitions = model.transition_matrices(branch_lengths)
    parent = {num_taxa - 1: 2 * num_taxa - 3}
    for i, pair in enumerate(children.tolist()):
        parent |= dict.fromkeys(pair, num_taxa + i)
    total = 0.0
    for pattern, weight in enumerate(patterns.weights):
        allowed = [[x for x in range(4) if mask >> x & 1] for mask in patterns.states[:, pattern].tolist()]
        likelihood = 0.0
        for state in product(*allowed, *[range(4)] * (num_taxa - 2)):
            for category, category_weight in enumerate(model.category_weights):
                probability = category_weight * model.frequencies[state[-1]]
                for node, above in parent.items():
                    probability *= transitions[node, category, state[above], state[node]]
                likelihood += probability
        total += weight * np.log(likelihood)
    return total


@pytest.mark.parametrize("num_taxa", [3, 4, 5])
def test_sum_over_all_ancestral_states(num_taxa, draw_trees, draw_patterns, uneven_model):
    children, lengths = draw_trees(num_taxa, 1, seed=num_taxa)
    patterns = draw_patterns(num_taxa, 4, seed=10 + num_taxa)
    expected = enumerated(children[0], lengths[0], patterns, uneven_model)
    value = log_likelihood(children[0], torch.from_numpy(lengths[0]), patterns, uneven_model)
    assert float(value) == pytest.approx(expected, rel=1e-12)


def test_star_of_three_taxa_in_closed_form():
    # taxa A, A, C on branches a, b, c: sum over the centre's state of a product of three JC69 probabilities
    a, b, c = 0.1, 0.25, 0.4
    same, other = (lambda t: 0.25 + 0.75 * np.exp(-4 * t / 3)), (lambda t: 0.25 - 0.25 * np.exp(-4 * t / 3))
    likelihood = 0.25 * (
        same(a) * same(b) * other(c) + other(a) * other(b) * same(c) + 2 * other(a) * other(b) * other(c)
    )
    patterns = SitePatterns(("x", "y", "z"), np.array([[1], [1], [2]], np.uint8), np.array([3.0]))
    value = log_likelihood(
        np.array([[0, 1]], np.int32), torch.tensor([a, b, c], dtype=torch.float64), patterns, jc69()
    )
    assert float(value) == pytest.approx(3 * np.log(likelihood), rel=1e-13)


def test_gradient_is_that_of_finite_differences(draw_trees, draw_patterns, uneven_model):
    children, lengths = draw_trees(6, 1, seed=3)
    patterns = draw_patterns(6, 10, seed=4)

    def value(branch_lengths):
        return log_likelihood(children[0], branch_lengths, patterns, uneven_model)

    assert torch.autograd.gradcheck(value, torch.from_numpy(lengths[0]).requires_grad_())
