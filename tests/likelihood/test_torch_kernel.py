"""The torch kernel: its gradients by finite differences, and its inputs; test_engines has the rest."""

import numpy as np
import pytest
import torch

from vbpi_mix.errors import NonFiniteError
from vbpi_mix.likelihood.base import make_likelihood
from vbpi_mix.likelihood.models import jc69
from vbpi_mix.likelihood.torch_kernel import TorchLikelihood, log_likelihood, transition_matrices


def test_gradcheck_of_all_floating_point_inputs(draw_trees, draw_patterns, uneven_model):
    children, lengths = draw_trees(4, 2, seed=1)
    patterns = draw_patterns(4, 4, seed=2)
    transitions = torch.from_numpy(uneven_model.transition_matrices(lengths)).requires_grad_()
    root = np.outer(uneven_model.category_weights, uneven_model.frequencies)
    leaves = torch.from_numpy((patterns.states[:, :, None] >> np.arange(4) & 1).astype(float))

    def value(matrices, root_weights):
        topologies = torch.from_numpy(children).long()
        return log_likelihood(topologies, matrices, root_weights, leaves, torch.from_numpy(patterns.weights))

    assert torch.autograd.gradcheck(value, (transitions, torch.from_numpy(root).requires_grad_()))


def test_gradcheck_of_branch_lengths_through_the_class(draw_trees, draw_patterns, uneven_model):
    children, lengths = draw_trees(7, 2, seed=3)
    likelihood = TorchLikelihood(draw_patterns(7, 5, seed=4), uneven_model)
    branches = torch.from_numpy(lengths).requires_grad_()
    topologies = torch.from_numpy(children)
    assert torch.autograd.gradcheck(
        lambda lengths: likelihood.log_likelihood(topologies, lengths), (branches,)
    )


def test_cotangents_of_single_trees_are_kept_apart(draw_trees, draw_patterns, uneven_model):
    children, lengths = draw_trees(7, 3, seed=5)
    likelihood = TorchLikelihood(draw_patterns(7, 5, seed=6), uneven_model)
    branches = torch.from_numpy(lengths).requires_grad_()
    weights = torch.tensor([2.0, 0.0, -3.0], dtype=torch.float64)
    (weights @ likelihood.log_likelihood(torch.from_numpy(children), branches)).backward()
    _, gradient = likelihood.value_and_gradient(children, lengths)
    np.testing.assert_allclose(branches.grad.numpy(), weights.numpy()[:, None] * gradient, rtol=1e-12)


def test_transition_matrices_are_those_of_the_model(draw_trees, uneven_model):
    _, lengths = draw_trees(5, 2, seed=7)
    eigen = [torch.from_numpy(part) for part in uneven_model.eigen_system()]
    rates = torch.from_numpy(uneven_model.category_rates.copy())
    actual = transition_matrices(torch.from_numpy(lengths), rates, *eigen)
    np.testing.assert_allclose(actual.numpy(), uneven_model.transition_matrices(lengths), atol=1e-15)


def test_bad_lengths_are_refused(draw_trees, draw_patterns, uneven_model):
    children, lengths = draw_trees(6, 2, seed=8)
    likelihood = TorchLikelihood(draw_patterns(6, 5, seed=9), uneven_model)
    with pytest.raises(ValueError, match=r"must not be negative, the smallest is -0\.5"):
        likelihood.value(children, np.where(lengths == lengths[1, 2], -0.5, lengths))
    with pytest.raises(NonFiniteError, match="must be finite"):
        likelihood.value(children, np.where(lengths == lengths[1, 2], np.nan, lengths))


def test_another_number_of_taxa_is_refused(draw_trees, draw_patterns, uneven_model):
    likelihood = TorchLikelihood(draw_patterns(6, 5, seed=9), uneven_model)
    with pytest.raises(ValueError, match=r"trees of 6 taxa, children must have shape \(2, 4, 2\)"):
        likelihood.value(*draw_trees(7, 2, seed=10))


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "rtol"), [("float64", 1e-10), ("float32", 1e-4)])
def test_accelerator_agrees_with_the_compiled_kernel(dtype, rtol, draw_trees, bundled_patterns, uneven_model):
    if not torch.cuda.is_available():
        pytest.fail("the gpu tests need a CUDA device; leave out -m gpu where there is none")
    patterns = bundled_patterns("DS1")
    children, lengths = draw_trees(patterns.num_taxa, 10, seed=30)
    for model in (jc69(), uneven_model):
        there = make_likelihood(patterns, model, dtype=dtype, engine="torch", device="cuda")
        value, gradient = there.value_and_gradient(children, lengths)
        expected_value, expected_gradient = make_likelihood(patterns, model).value_and_gradient(
            children, lengths
        )
        np.testing.assert_allclose(value, expected_value, rtol=rtol)
        scale = np.abs(expected_gradient).max(1, keepdims=True)
        np.testing.assert_allclose(gradient / scale, expected_gradient / scale, rtol=0, atol=rtol)
