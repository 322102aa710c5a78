"""Properties that all cotangents share: closed forms, invariances, one result from numpy and torch."""

import numpy as np
import pytest
import torch

from vbpi_mix.objectives.gradients import BranchGradient, TopologyGradient, mixture_objective

FIELDS = ("bound", "log_weights", "d_log_joint", "d_path", "d_score_branch", "d_topology")
KINDS = pytest.mark.parametrize(
    ("topology", "branch"),
    [(t, b) for t in TopologyGradient for b in BranchGradient],
    ids=lambda kind: kind.value,
)
SHAPES = [(1, 1, 1), (1, 4, 1), (3, 1, 3), (2, 4, 5), (3, 4, 3)]


def inputs(shape, seed=0, infinite=False):
    """Log joint, log density and generator; every other component not able to produce some particles."""
    rng = np.random.default_rng(seed)
    num_sampled, num_particles, num_denominators = shape
    joint = -7000.0 + 4.0 * rng.normal(size=(num_sampled, num_particles))
    density = 2.0 * rng.normal(size=shape)
    generator = np.sort(rng.choice(num_denominators, num_sampled, replace=False))
    if infinite:
        lost = rng.random(size=shape) < 0.5
        lost[np.arange(num_sampled), :, generator] = False
        density[lost] = -np.inf
    return joint, density, generator


@KINDS
@pytest.mark.parametrize("shape", SHAPES)
def test_numpy_and_torch_agree_and_zero_densities_leave_no_nan(shape, topology, branch):
    joint, density, generator = inputs(shape, infinite=True)
    ours = mixture_objective(joint, density, generator, topology, branch)
    theirs = mixture_objective(
        torch.tensor(joint), torch.tensor(density), torch.tensor(generator), topology, branch
    )
    for name in FIELDS:
        value = getattr(ours, name)
        assert np.isfinite(value).all(), name
        # 1e-9 of coefficients of order one: f is around -7000, where rounding is 1e-12.
        np.testing.assert_allclose(getattr(theirs, name).numpy(), value, rtol=1e-9, atol=1e-12, err_msg=name)
    lost = np.isneginf(density)
    for name in ("d_path", "d_score_branch", "d_topology"):
        assert not getattr(ours, name)[lost].any(), name


@KINDS
def test_single_precision_stays_single_and_finite(topology, branch):
    for shape in SHAPES:
        joint, density, generator = inputs(shape)
        objective = mixture_objective(
            torch.tensor(joint, dtype=torch.float32),
            torch.tensor(density, dtype=torch.float32),
            torch.tensor(generator),
            topology,
            branch,
        )
        for name in FIELDS:
            assert getattr(objective, name).dtype is torch.float32, name
            assert bool(torch.isfinite(getattr(objective, name)).all()), name


@KINDS
def test_order_of_the_denominators_does_not_matter(topology, branch):
    joint, density, generator = inputs((2, 4, 5))
    order = np.array([3, 0, 4, 1, 2])
    before = mixture_objective(joint, density, generator, topology, branch)
    after = mixture_objective(joint, density[..., order], np.argsort(order)[generator], topology, branch)
    assert after.bound == pytest.approx(before.bound, rel=1e-14)
    np.testing.assert_allclose(after.d_log_joint, before.d_log_joint, atol=1e-11)
    for name in ("d_path", "d_score_branch", "d_topology"):
        np.testing.assert_allclose(getattr(after, name), getattr(before, name)[..., order], atol=1e-11)


@KINDS
def test_order_of_the_sampled_components_does_not_matter(topology, branch):
    joint, density, generator = inputs((3, 4, 5))
    order = np.array([2, 0, 1])
    before = mixture_objective(joint, density, generator, topology, branch)
    after = mixture_objective(joint[order], density[order], generator[order], topology, branch)
    for name in FIELDS[1:]:
        np.testing.assert_allclose(getattr(after, name), getattr(before, name)[order], atol=1e-11)


@KINDS
def test_a_constant_moves_the_bound_only(topology, branch):
    joint, density, generator = inputs((2, 4, 5))
    before = mixture_objective(joint, density, generator, topology, branch)
    after = mixture_objective(joint + 6000.0, density, generator, topology, branch)
    assert after.bound == pytest.approx(before.bound + 6000.0, abs=1e-9)
    for name in FIELDS[2:]:
        np.testing.assert_allclose(getattr(after, name), getattr(before, name), atol=1e-9, err_msg=name)


@KINDS
def test_members_of_a_batch_are_independent(topology, branch):
    problems = [inputs((2, 3, 4), seed) for seed in range(5)]
    generator = problems[0][2]
    batch = mixture_objective(
        np.stack([p[0] for p in problems]), np.stack([p[1] for p in problems]), generator, topology, branch
    )
    for i, (joint, density, _) in enumerate(problems):
        alone = mixture_objective(joint, density, generator, topology, branch)
        for name in FIELDS:
            np.testing.assert_allclose(getattr(batch, name)[i], getattr(alone, name), rtol=1e-12, atol=1e-13)


def test_one_component_reduces_to_squared_weights():
    joint, density, generator = inputs((1, 6, 1))
    doubly, squared = (
        mixture_objective(joint, density, generator, TopologyGradient.VIMCO, kind)
        for kind in (BranchGradient.DOUBLY_REPARAMETERISED, BranchGradient.SQUARED_PATH)
    )
    weights = np.exp(doubly.log_weights - doubly.log_weights.max())
    weights /= weights.sum()
    for objective in (doubly, squared):
        np.testing.assert_allclose(objective.d_log_joint, weights**2, atol=1e-11)
        np.testing.assert_allclose(objective.d_path[..., 0], -(weights**2), atol=1e-11)
        assert not objective.d_score_branch.any()


def test_path_over_all_denominators_sticks_the_landing():
    joint, density, generator = inputs((3, 4, 3))
    objective = mixture_objective(joint, density, generator, TopologyGradient.VIMCO, BranchGradient.PATH)
    responsibilities = np.exp(density) / np.exp(density).sum(-1, keepdims=True)
    np.testing.assert_allclose(objective.d_log_joint, 1.0 / 12)
    np.testing.assert_allclose(objective.d_path, -responsibilities / 12, rtol=1e-12)
    assert not objective.d_score_branch.any()


def test_reparameterised_is_the_derivative_of_the_bound():
    joint, density, generator = inputs((2, 4, 5))
    tensors = [torch.tensor(x, requires_grad=True) for x in (joint, density)]
    mixture = torch.logsumexp(tensors[1], -1) - np.log(5)
    (torch.logsumexp(tensors[0] - mixture, -1) - np.log(4)).mean().backward()
    objective = mixture_objective(
        joint, density, generator, TopologyGradient.VIMCO, BranchGradient.REPARAMETERISED
    )
    np.testing.assert_allclose(objective.d_log_joint, tensors[0].grad.numpy(), atol=1e-12)
    np.testing.assert_allclose(objective.d_path, tensors[1].grad.numpy(), atol=1e-12)
    np.testing.assert_array_equal(objective.d_score_branch, objective.d_path)


@KINDS
@pytest.mark.parametrize("shape", SHAPES)
def test_weights_thousands_of_nats_apart_stay_finite(shape, topology, branch):
    # As at the start of training: one particle carries all the weight, and all others underflow.
    joint, density, generator = inputs(shape)
    objective = mixture_objective(1000.0 * (joint + 7000.0), 300.0 * density, generator, topology, branch)
    for name in FIELDS:
        assert np.isfinite(getattr(objective, name)).all(), name
    assert objective.d_log_joint.max() > 0.0


@pytest.mark.gpu
@KINDS
def test_accelerator_agrees_with_the_host(topology, branch):
    if not torch.cuda.is_available():
        pytest.fail("the gpu tests need a CUDA device; leave out -m gpu where there is none")
    joint, density, generator = inputs((2, 4, 5), infinite=True)
    ours = mixture_objective(joint, density, generator, topology, branch)
    tensors = (torch.tensor(x, device="cuda") for x in (joint, density, generator))
    theirs = mixture_objective(*tensors, topology, branch)
    for name in FIELDS:
        value = getattr(theirs, name)
        assert value.is_cuda, name
        np.testing.assert_allclose(value.cpu().numpy(), getattr(ours, name), rtol=1e-9, atol=1e-12)
