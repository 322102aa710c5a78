"""Correlated branch noise against dense Gaussian algebra on all branches of a tree."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from vbpi_mix.branches import densities
from vbpi_mix.results import _correlation_kernels as kernels
from vbpi_mix.results import correlations as module
from vbpi_mix.results.correlations import Correlations, branches_around, estimate_correlations
from vbpi_mix.results.draws import PosteriorDraws
from vbpi_mix.trees.topology import clade_masks


@pytest.fixture
def support(mixture):
    return mixture.support


@pytest.fixture
def correlations(support):
    """A moderate matrix for every tripartition of both components."""
    values = np.random.default_rng(1).uniform(-0.45, 0.45, (2, len(support.tripartitions), 3))
    return Correlations(values)


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
    kernels.log_ratio(
        mixture.branches.table, index.feature_index, log_lengths, True, tripartition, around,
        correlations.precision, np.empty(9), ratio,
    )  # fmt: skip
    location, log_scale, skew = np.moveaxis(mixture.branches.branch_parameters(index.feature_index), -1, 0)
    noise = densities.inverse(log_lengths, location, log_scale, skew)
    for a in range(2):
        for t in range(6):
            covariance = dense_covariance(correlations, a, tripartition[t], around[t], 9)
            x = noise[a, t]
            expected = -0.5 * (x @ np.linalg.solve(covariance, x) - x @ x + np.linalg.slogdet(covariance)[1])
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
    unused = np.setdiff1d(np.arange(len(support.tripartitions)), used)
    assert not found.values[1, unused].any()


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
    kernels._standardise(table, features[0], log_lengths, True, found)
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
    log_lengths = densities.transform(noise, *parameters[:, 0])
    ratio = np.empty((num_draws, 2))
    kernels.log_ratio(
        mixture.branches.table, np.repeat(index.feature_index, num_draws, axis=0), log_lengths, True,
        np.repeat(tripartition, num_draws, axis=0), np.repeat(around, num_draws, axis=0),
        correlations.precision, np.empty(9), ratio,
    )  # fmt: skip
    margins = np.stack([densities.log_density(log_lengths, *parameters[:, a]).sum(-1) for a in range(2)], 1)
    log_q = margins + ratio
    # d log y / d noise by central differences.
    h = 1e-5
    jacobian = (
        densities.transform(noise + h, *parameters[:, 0]) - densities.transform(noise - h, *parameters[:, 0])
    ) / (2 * h)
    covariance = dense_covariance(correlations, 0, tripartition[0], around[0], 9)
    gauss = multivariate_normal(np.zeros(9), covariance)
    expected = gauss.logpdf(noise) - np.log(jacobian).sum(-1)
    np.testing.assert_allclose(log_q[:, 0], expected, rtol=0, atol=1e-5)
    # E[q'/q] = 1 for draws of q, q' the independent density of the same component.
    inside = np.exp(margins[200:, 0] - log_q[200:, 0])
    assert abs(inside.mean() - 1.0) < 5 * inside.std() / np.sqrt(len(inside))


@pytest.mark.parametrize("values", [(1.0, 0.0, 0.0), (-0.9, -0.9, -0.9)])
def test_matrices_that_are_not_positive_definite_are_refused(values):
    with pytest.raises(ValueError, match="positive definite"):
        Correlations(np.array([[values]]))
