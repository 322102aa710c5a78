"""The reference likelihood for batches, and what it means that two likelihoods agree."""

import numpy as np
import torch

from vbpi_mix.likelihood.reference import log_likelihood


def by_reference(children, lengths, patterns, model):
    values, gradients = [], []
    for topology, branch_lengths in zip(children, lengths, strict=True):
        branches = torch.from_numpy(branch_lengths.copy()).requires_grad_()
        value = log_likelihood(topology, branches, patterns, model)
        values.append(value.item())
        gradients.append(torch.autograd.grad(value, branches)[0].numpy())
    return np.array(values), np.array(gradients)


def assert_same(actual, expected, rtol=1e-10):
    """Values to a relative tolerance; gradients to one relative to the largest derivative of the tree."""
    np.testing.assert_allclose(actual[0], expected[0], rtol=rtol)
    scale = np.abs(expected[1]).max(1, keepdims=True)
    np.testing.assert_allclose(actual[1] / scale, expected[1] / scale, rtol=0, atol=rtol)
