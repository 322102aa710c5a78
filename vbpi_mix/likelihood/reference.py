"""The definition of the likelihood: one tree, plain loops, float64, gradients by automatic differentiation.

Felsenstein's pruning (1981): the partial ``L[v][c, s, x]`` is the probability of the data of site pattern s
below node v, given state x at v and rate category c. At leaves it is one for the states that the datum
allows and zero for the others; at an internal node it is the product over its children u of ``sum_y P_u[c,
x, y] L[u][c, s, y]``, with ``P_u`` the transition matrix of the branch above u. The top node has a third
neighbour, the last leaf, through that leaf's branch; as the model is reversible the root may be put at the
top node, and a pattern's likelihood is ``sum_c w_c sum_x f_x L[top][c, s, x] * sum_y P_{n-1}[c, x, y]
L[n-1][s, y]``.

The fast kernels must agree with this module. It is not fast.
"""

import numpy as np
import torch
from jaxtyping import Float64, Int32

from vbpi_mix.likelihood.models import SubstitutionModel
from vbpi_mix.patterns import SitePatterns


def log_likelihood(
    children: Int32[np.ndarray, "internal 2"],
    branch_lengths: Float64[torch.Tensor, "edge"],
    patterns: SitePatterns,
    model: SubstitutionModel,
) -> Float64[torch.Tensor, ""]:
    """Log-likelihood of one tree in nats, differentiable in the branch lengths.

    Args:
        children: A topology, as defined in `vbpi_mix.trees.topology`.
        branch_lengths: Expected substitutions per site.
        patterns: Data at the leaves.
        model: Substitution model.
    """
    rates = torch.from_numpy(model.category_rates.copy())
    rate_matrix = torch.from_numpy(model.rate_matrix())
    transitions = torch.linalg.matrix_exp(
        branch_lengths[:, None, None, None] * rates[:, None, None] * rate_matrix
    )
    return log_likelihood_of_transitions(
        children,
        transitions,
        torch.from_numpy(model.frequencies.copy()),
        torch.from_numpy(model.category_weights.copy()),
        patterns,
    )


def log_likelihood_of_parameters(
    children: Int32[np.ndarray, "internal 2"],
    branch_lengths: Float64[torch.Tensor, "edge"],
    frequencies: Float64[torch.Tensor, "4"],
    exchangeabilities: Float64[torch.Tensor, "6"],
    category_rates: Float64[torch.Tensor, "category"],
    category_weights: Float64[torch.Tensor, "category"],
    patterns: SitePatterns,
) -> Float64[torch.Tensor, ""]:
    """Log-likelihood of one tree in nats, differentiable in branch lengths and parameters of the model.

    Args:
        children: A topology, as defined in `vbpi_mix.trees.topology`.
        branch_lengths: Expected substitutions per site.
        frequencies: Probabilities of the states.
        exchangeabilities: Of AC, AG, AT, CG, CT, GT; the rate matrix is scaled to one substitution per time.
        category_rates: Rates of the categories, taken as they are.
        category_weights: Probabilities of the categories, taken as they are.
        patterns: Data at the leaves.
    """
    upper = torch.zeros((4, 4), dtype=torch.float64)
    upper[torch.triu_indices(4, 4, 1).unbind()] = exchangeabilities
    rates = (upper + upper.T) * frequencies
    rates = rates / (frequencies @ rates.sum(1))
    rate_matrix = rates - torch.diag(rates.sum(1))
    transitions = torch.linalg.matrix_exp(
        branch_lengths[:, None, None, None] * category_rates[:, None, None] * rate_matrix
    )
    return log_likelihood_of_transitions(children, transitions, frequencies, category_weights, patterns)


def log_likelihood_of_transitions(
    children: Int32[np.ndarray, "internal 2"],
    transitions: Float64[torch.Tensor, "edge category 4 4"],
    frequencies: Float64[torch.Tensor, "4"],
    category_weights: Float64[torch.Tensor, "category"],
    patterns: SitePatterns,
) -> Float64[torch.Tensor, ""]:
    """Log-likelihood of one tree in nats, differentiable in all its floating-point arguments.

    Args:
        children: A topology, as defined in `vbpi_mix.trees.topology`.
        transitions: Transition matrix of every branch in every category, from the state at the branch's
            upper end.
        frequencies: Probabilities of the states at the root.
        category_weights: Probabilities of the categories.
        patterns: Data at the leaves.
    """
    bits = torch.from_numpy(patterns.states.astype(np.int64))[:, :, None] >> torch.arange(4) & 1
    num_taxa, num_patterns = patterns.states.shape
    partials = [leaf.to(transitions.dtype).expand(len(category_weights), num_patterns, 4) for leaf in bits]
    log_scale = torch.zeros(num_patterns, dtype=transitions.dtype)

    def message(node: int) -> torch.Tensor:
        return torch.einsum("cxy,csy->csx", transitions[node], partials[node])

    for first, second in children.tolist():
        partial = message(first) * message(second)
        largest = partial.detach().amax((0, 2))
        scale = torch.where(largest > 0, largest, torch.ones_like(largest))
        partials.append(partial / scale[:, None])
        log_scale = log_scale + torch.log(scale)
    root = partials[-1] * message(num_taxa - 1)
    likelihoods = torch.einsum("c,x,csx->s", category_weights, frequencies, root)
    return torch.from_numpy(patterns.weights.copy()) @ (torch.log(likelihoods) + log_scale)
