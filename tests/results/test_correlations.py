"""Correlated branch noise against dense Gaussian algebra on all branches of a tree."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from vbpi_mix.branches import densities
from vbpi_mix.branches._kernels import make_work, standardise
from vbpi_mix.results import _correlation_kernels as kernels
from vbpi_mix.results import correlations as module
from vbpi_mix.results.correlations import Correlations, branches_around, estimate_correlations
from vbpi_mix.results.draws import PosteriorDraws
from vbpi_mix.sbn.support import TopologyIndex
from vbpi_mix.trees.topology import clade_masks


@pytest.fixture
def support(mixture):
    return mixture.support


@pytest.fixture
def correlations(support):
    """A moderate matrix for every tripartition and a shift for every PCSP of both components."""
    rng = np.random.default_rng(1)
    values = rng.uniform(-0.45, 0.45, (2, len(support.tripartitions), 3))
    shifts = rng.normal(0.0, 0.4, (2, support.num_parameters + 2))
    shifts[:, : support.num_splits] = shifts[:, -2:] = 0.0
    return Correlations(values, shifts, np.zeros((2, support.num_splits, 0)))


def mean_noise(support, index, shifts):
    """Sum of the shifts [parameter + 2] of every tree's PCSPs at the branch they shift, from clades as sets.

    A PCSP's branch parts the union of its focal clade and sister from the rest.
    """
    everything = np.uint64((1 << support.num_taxa) - 1)

    def taxa(clade):
        side = support.masks[clade // 2, 0]
        return everything & ~side if clade % 2 else side

    parents = support.parent_clades[support.tables.parameter_parent[support.num_splits :]]
    union = [taxa(sister) | taxa(focal) for sister, focal in parents]
    out = np.zeros(index.root_index.shape)
    for t, masks in enumerate(clade_masks(index.children)[:, :, 0]):
        parameters = index.parameter_index[t, :, 1:]
        for parameter in parameters[parameters < support.num_parameters]:
            side = union[parameter - support.num_splits]
            (branch,) = np.flatnonzero((masks == side) | (masks == everything & ~side))
            out[t, branch] += shifts[parameter]
    return out


def located(support, children):
    """Splits, tripartitions and branches around the nodes of topologies."""
    split = support.splits_of(children)
    tripartition = support.tripartitions_of(children, split)
    return split, tripartition, branches_around(support, children, split, tripartition)


def matrices(values):
    """Correlation matrices [..., 3, 3] of pairs other than k."""
    out = np.ones((*values.shape[:-1], 3, 3))
    for k, (a, b) in enumerate(((1, 2), (0, 2), (0, 1))):
        out[..., a, b] = out[..., b, a] = values[..., k]
    return out


def dense_covariance(correlations, component, tripartition, around, num_edges):
    """Covariance of the noise of all branches of one tree, from the cliques' precision matrices."""
    precision = np.eye(num_edges)
    for t, edges in zip(tripartition, around, strict=True):
        inverse = np.linalg.inv(matrices(correlations.values[component, t]))
        precision[np.ix_(edges, edges)] += inverse - np.eye(3)
    return np.linalg.inv(precision)


def correlate(noise, component, tripartition, around, correlations):
    """Give independent noise [draw, edge] of one topology the correlations of a component, in place."""
    kernels.correlate(
        np.full(len(noise), component, np.int32),
        np.repeat(tripartition, len(noise), axis=0),
        np.repeat(around, len(noise), axis=0),
        correlations.values,
        noise,
    )


def test_branches_around_a_node_cut_off_its_tripartitions_clades(support, mixture):
    children = mixture.networks.sample(np.zeros(20, np.int32), np.random.default_rng(0))
    _, tripartition, around = located(support, children)
    masks = clade_masks(children)[:, :, 0]
    everything = np.uint64((1 << support.num_taxa) - 1)
    for t in range(len(children)):
        for i in range(children.shape[1]):
            union = 0
            for k in range(3):
                clade = support.tripartitions[tripartition[t, i], k]
                # Clade 2s is the side that the support's mask holds, 2s + 1 the other.
                side = support.masks[clade // 2, 0]
                if clade % 2:
                    side = everything & ~side
                assert masks[t, around[t, i, k]] in (side, everything & ~side)
                union += int(side)
            assert union == int(everything)  # disjoint, and all taxa


def test_margins_are_standard_normal_and_correlations_as_given(support, mixture, correlations):
    children = mixture.networks.sample(np.zeros(5, np.int32), np.random.default_rng(2))
    _, tripartition, around = located(support, children)
    for t in range(5):
        covariance = dense_covariance(correlations, 0, tripartition[t], around[t], 9)
        np.testing.assert_allclose(np.diag(covariance), 1.0, rtol=1e-10)
        for i, edges in enumerate(around[t]):
            np.testing.assert_allclose(
                covariance[np.ix_(edges, edges)],
                matrices(correlations.values[0, tripartition[t, i]]),
                atol=1e-10,
            )


@pytest.mark.parametrize("component", [0, 1])
def test_noise_has_the_dense_covariance(support, mixture, correlations, component):
    children = mixture.networks.sample(np.zeros(1, np.int32), np.random.default_rng(3))
    _, tripartition, around = located(support, children)
    num_draws = 40_000
    noise = np.random.default_rng(4).standard_normal((num_draws, 9))
    kernels.correlate(
        np.full(num_draws, component, np.int32),
        np.repeat(tripartition, num_draws, axis=0),
        np.repeat(around, num_draws, axis=0),
        correlations.values,
        noise,
    )
    expected = dense_covariance(correlations, component, tripartition[0], around[0], 9)
    # An entry's standard error is at most sqrt(2 / num_draws).
    np.testing.assert_allclose(noise.T @ noise / num_draws, expected, atol=5 * np.sqrt(2 / num_draws))


def test_log_ratio_is_that_of_dense_gaussians(support, mixture, correlations):
    children = mixture.networks.sample(np.zeros(6, np.int32), np.random.default_rng(5))
    _, tripartition, around = located(support, children)
    index = support.index(children, mixture.with_psp)
    log_lengths = np.random.default_rng(6).normal(-3.0, 0.8, (6, 9))
    ratio = np.empty((6, 2))
    of_model = np.random.default_rng(8).normal(0.0, 0.3, (2, 6, 9))
    kernels.log_ratio(
        mixture.branches.table, index.feature_index, log_lengths, True, tripartition, around,
        index.children, index.parameter_index, correlations.shifts, of_model, correlations.precision,
        make_work(9), ratio,
    )  # fmt: skip
    location, log_scale, skew = np.moveaxis(mixture.branches.branch_parameters(index.feature_index), -1, 0)
    noise = densities.inverse(log_lengths, location, log_scale, skew)
    for a in range(2):
        mean = mean_noise(support, index, correlations.shifts[a])
        for t in range(6):
            covariance = dense_covariance(correlations, a, tripartition[t], around[t], 9)
            x, y = noise[a, t], noise[a, t] - mean[t] - of_model[a, t]
            expected = -0.5 * (y @ np.linalg.solve(covariance, y) - x @ x + np.linalg.slogdet(covariance)[1])
            assert ratio[t, a] == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_estimate_finds_the_correlations_that_made_the_draws(support, mixture, correlations):
    # 20,000 draws of one topology, weighted equally, of component 1 alone.
    children = mixture.networks.sample(np.zeros(1, np.int32), np.random.default_rng(7))
    _, tripartition, around = located(support, children)
    num_draws = 20_000
    noise = np.random.default_rng(8).standard_normal((num_draws, 9))
    correlate(noise, 1, tripartition, around, correlations)
    index = support.index(children, mixture.with_psp)
    location, log_scale, skew = np.moveaxis(
        mixture.branches.branch_parameters(index.feature_index)[1, 0], -1, 0
    )
    log_lengths = densities.transform(noise, location, log_scale, skew)
    draws = PosteriorDraws(
        taxa=support.taxa,
        topologies=children,
        log_q=np.zeros(1),
        topology_index=np.zeros(num_draws, dtype=np.int64),
        branch_lengths=np.exp(log_lengths),
        log_weights=np.zeros(num_draws),
        component=np.arange(num_draws) % 2,
        responsibilities=np.tile([0.0, 1.0], (num_draws, 1)),
    )
    found = estimate_correlations(mixture, draws, index, np.full(num_draws, 1 / num_draws))
    assert not found.values[0].any()  # no draw belongs to component 0
    used = tripartition[0]
    shrinkage = num_draws / (num_draws + module.INDEPENDENT_DRAWS)
    np.testing.assert_allclose(
        found.values[1, used], shrinkage * correlations.values[1, used], atol=5 / np.sqrt(num_draws)
    )
    assert not found.shifts[0].any()
    assert np.abs(mean_noise(support, index, found.shifts[1])).max() < 5 / np.sqrt(num_draws)
    unused = np.setdiff1d(np.arange(len(support.tripartitions)), used)
    assert not found.values[1, unused].any()


def weighted_draws(mixture, num_topologies, num_draws):
    """Noise [draw, edge] of some topologies, their index, and uneven weights."""
    rng = np.random.default_rng(12)
    sampled = mixture.networks.sample(np.zeros(num_topologies, np.int32), rng)
    children = np.unique(sampled, axis=0)
    topology_index = np.arange(num_draws) % len(children)
    noise = rng.standard_normal((num_draws, 9))
    return noise, topology_index, rng.exponential(size=num_draws), mixture.support.index(children)


def test_shifts_add_up_at_the_branch_above_a_pcsp_and_the_sum_by_pcsp_is_the_transpose(
    support, mixture, correlations
):
    _, _, _, index = weighted_draws(mixture, 40, 1)
    shifts = correlations.shifts[0]
    mean = module.mean_noise(index, shifts)
    np.testing.assert_allclose(mean, mean_noise(support, index, shifts), atol=1e-12)
    assert np.abs(mean).min(axis=1).max() > 0.0  # no branch is left out in some tree: all meet PCSPs
    values = np.random.default_rng(13).normal(size=mean.shape)
    sums = np.zeros(len(shifts))
    kernels.add_by_pcsp(index.children, index.parameter_index, values, sums)
    assert sums @ shifts == pytest.approx((values * mean).sum(), rel=1e-10)


def test_the_regression_solves_its_normal_equations(support, mixture, monkeypatch):
    monkeypatch.setattr(module, "SOLVER_TOLERANCE", 1e-12)
    noise, topology_index, weights, index = weighted_draws(mixture, 40, 400)
    found = module._regress(noise, topology_index, weights, index, support.num_parameters)
    size = support.num_parameters
    design = np.stack([mean_noise(support, index, row) for row in np.eye(size, size + 2)], -1)
    design = design[topology_index]  # [draw, edge, parameter]
    count = (weights[:, None, None] * design).sum((0, 1))
    square = (weights[:, None, None] ** 2 * design).sum((0, 1))
    seen = count > 0.0
    matrix = np.einsum("i,iep,ieq->pq", weights, design, design)[np.ix_(seen, seen)]
    matrix += np.diag(module.INDEPENDENT_DRAWS * square[seen] / count[seen])
    expected = np.linalg.solve(matrix, np.einsum("i,iep,ie->p", weights, design, noise)[seen])
    np.testing.assert_allclose(found[:-2][seen], expected, atol=1e-5 * np.abs(expected).max())
    assert not found[:-2][~seen].any()
    assert not found[-2:].any()


def test_the_regression_finds_the_shifts_that_made_the_draws(support, mixture, correlations):
    noise, topology_index, weights, index = weighted_draws(mixture, 20, 100_000)
    mean = mean_noise(support, index, correlations.shifts[0])
    found = module._regress(
        noise + mean[topology_index], topology_index, weights, index, support.num_parameters
    )
    # Single shifts are not identified where PCSPs always occur together; their sums are.
    np.testing.assert_allclose(mean_noise(support, index, found), mean, atol=0.1)
    assert np.abs(mean).max() > 0.5


@pytest.mark.parametrize("weight", [1e-150, 1e-170, 1e-310])
def test_draws_of_negligible_weight_tell_nothing(support, mixture, weight):
    # The squares of such weights, of a topology that no other draw has, underflow.
    num_draws = 48
    sampled = mixture.networks.sample(np.zeros(40, np.int32), np.random.default_rng(7))
    children = np.unique(sampled, axis=0)[:2]
    draws = PosteriorDraws(
        taxa=support.taxa,
        topologies=children,
        log_q=np.zeros(2),
        topology_index=np.arange(num_draws) // 2 % 2,
        branch_lengths=np.random.default_rng(8).exponential(size=(num_draws, 9)),
        log_weights=np.zeros(num_draws),
        component=np.arange(num_draws) % 2,
        responsibilities=np.tile([0.5, 0.5], (num_draws, 1)),
    )
    index = support.index(children, mixture.with_psp)
    weights = np.where(draws.topology_index == 0, 1.0, weight)
    found = estimate_correlations(mixture, draws, index, weights)
    alone = estimate_correlations(mixture, draws, index, np.where(draws.topology_index == 0, 1.0, 0.0))
    np.testing.assert_array_equal(found.values, alone.values)
    np.testing.assert_array_equal(found.shifts, alone.shifts)


def test_one_draw_tells_next_to_nothing():
    moments = np.array([[1.0, 4.0, 0.25, 1.0, 0.5, 2.0, 1.0, 1.0]])
    np.testing.assert_allclose(module._shrunk(moments), np.full((1, 3), 1 / (1 + module.INDEPENDENT_DRAWS)))


def test_noise_is_found_from_branch_lengths_under_every_skew():
    rng = np.random.default_rng(9)
    noise = np.concatenate([np.linspace(-8.0, 8.0, 30), rng.normal(size=15)])
    table = np.zeros((46, 3))
    table[:45] = np.stack([rng.normal(-4.0, 1.0, 45), rng.normal(-0.5, 0.5, 45), rng.normal(0.0, 2.0, 45)], 1)
    features = np.full((1, 45, 3), 45, np.int32)
    features[0, :, 0] = np.arange(45)
    log_lengths = densities.transform(noise, *table[:45].T)
    # What a file of draws holds.
    log_lengths = np.log(np.exp(log_lengths))
    found = np.empty(45)
    standardise(table, features[0], log_lengths, True, make_work(45), found)
    np.testing.assert_allclose(found, noise, rtol=0, atol=1e-9)


def test_correlated_draws_have_the_density_of_the_change_of_variables(support, mixture, correlations):
    """The density by its parts is that of the noise over the Jacobian, and integrates to one."""
    children = mixture.networks.sample(np.zeros(1, np.int32), np.random.default_rng(10))
    _, tripartition, around = located(support, children)
    num_draws = 20_000
    index = support.index(children, mixture.with_psp)
    parameters = np.moveaxis(mixture.branches.branch_parameters(index.feature_index)[:, 0], -1, 0)
    noise = np.random.default_rng(11).standard_normal((num_draws, 9))
    noise[:200] *= 3.0  # far tails, for the comparison point by point
    correlate(noise, 0, tripartition, around, correlations)
    noise = np.clip(noise, -8.0, 8.0)
    every = TopologyIndex(*(np.repeat(part, num_draws, axis=0) for part in index))
    kernels.add_shifts(
        np.zeros(num_draws, np.int32), every.children, every.parameter_index, correlations.shifts, noise
    )
    log_lengths = densities.transform(noise, *parameters[:, 0])
    ratio = np.empty((num_draws, 2))
    kernels.log_ratio(
        mixture.branches.table, every.feature_index, log_lengths, True,
        np.repeat(tripartition, num_draws, axis=0), np.repeat(around, num_draws, axis=0), every.children,
        every.parameter_index, correlations.shifts, np.empty((0, 0, 9)), correlations.precision,
        make_work(9), ratio,
    )  # fmt: skip
    margins = np.stack([densities.log_density(log_lengths, *parameters[:, a]).sum(-1) for a in range(2)], 1)
    log_q = margins + ratio
    # d log y / d noise by central differences.
    h = 1e-5
    jacobian = (
        densities.transform(noise + h, *parameters[:, 0]) - densities.transform(noise - h, *parameters[:, 0])
    ) / (2 * h)
    covariance = dense_covariance(correlations, 0, tripartition[0], around[0], 9)
    gauss = multivariate_normal(mean_noise(support, index, correlations.shifts[0])[0], covariance)
    expected = gauss.logpdf(noise) - np.log(jacobian).sum(-1)
    np.testing.assert_allclose(log_q[:, 0], expected, rtol=0, atol=1e-5)
    # E[q'/q] = 1 for draws of q, q' the independent density of the same component.
    inside = np.exp(margins[200:, 0] - log_q[200:, 0])
    assert abs(inside.mean() - 1.0) < 5 * inside.std() / np.sqrt(len(inside))


@pytest.mark.parametrize("values", [(1.0, 0.0, 0.0), (-0.9, -0.9, -0.9)])
def test_matrices_that_are_not_positive_definite_are_refused(values):
    with pytest.raises(ValueError, match="positive definite"):
        Correlations(np.array([[values]]), np.zeros((1, 4)), np.zeros((1, 3, 0)))
