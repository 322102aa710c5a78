import numpy as np
import pytest
from scipy.special import logsumexp

from vbpi_mix.sbn.network import SubsplitNetworks
from vbpi_mix.sbn.renumbering import renumber
from vbpi_mix.sbn.support import build_support
from vbpi_mix.training.config import RunConfig
from vbpi_mix.training.growth import START_SHARE, NearTopologies, grown_mixture, grown_sample
from vbpi_mix.training.mixture import Mixture
from vbpi_mix.training.state import initial_mixture
from vbpi_mix.trees.nni import neighbour_trees
from vbpi_mix.trees.samples import TreeSample
from vbpi_mix.trees.topology import random_topologies, unique_topologies

NUM_TAXA = 8


@pytest.fixture(params=[("psp", "skewed"), ("psp", "lognormal"), ("split", "skewed")], ids="-".join)
def mixture_and_sample(request) -> tuple[Mixture, TreeSample]:
    """Two components on a support of few topologies, disturbed so that nothing is as it was at the start."""
    taxa = tuple(f"t{i}" for i in range(NUM_TAXA))
    topologies, _, counts = unique_topologies(random_topologies(NUM_TAXA, 5, np.random.default_rng(3)))
    sample = TreeSample(taxa, topologies, counts.astype(float), "random")
    features, density = request.param
    config = RunConfig.model_validate(
        {
            "data": {"dataset": "DS1"},
            "mixture": {"components": 2, "branch_model": features, "branch_density": density},
        }
    )
    mixture = initial_mixture(build_support(topologies, taxa), sample, config.mixture, config.optimisation)
    rng = np.random.default_rng(4)
    mixture.networks.logits += rng.normal(size=mixture.networks.logits.shape)
    mixture.networks.refresh()
    num_columns = 3 if density == "skewed" else 2
    table = mixture.branches.table[:, :-1, :num_columns]
    mixture.branches.table[:, :-1, :num_columns] = table + rng.normal(size=table.shape)
    return mixture, sample


def neighbours_of(mixture, topology, number):
    """Some topologies beside one, that its support lacks, as a search outside would give them."""
    children, _ = neighbour_trees(topology, np.zeros(2 * NUM_TAXA - 3))
    is_outside = np.isneginf(mixture.networks.log_mixture_probability_of(children))
    children = children[is_outside][:number]
    masses = 0.01 * 0.5 ** np.arange(len(children))
    assert len(children) == number
    return NearTopologies(
        children,
        np.tile(topology, (number, 1, 1)),
        masses,
        np.linspace(-6.0, -4.0, number),
        np.linspace(0.5, 1.5, number),
    )


@pytest.fixture
def grown(mixture_and_sample):
    """The mixture, what is added, and the grown mixture."""
    mixture, sample = mixture_and_sample
    added = neighbours_of(mixture, sample.children[0], 4)
    probabilities = sample.weights / sample.weights.sum()
    larger = grown_sample(sample, added)
    return mixture, added, grown_mixture(mixture, larger, added, sample.children, probabilities), sample


def test_what_both_supports_have_keeps_its_parameters(grown):
    before, _, after, _ = grown
    moved = renumber(before.support, after.support)
    np.testing.assert_array_equal(after.networks.logits[:, moved.parameter], before.networks.logits)
    rows = np.concatenate([moved.split, after.support.num_splits + moved.subsplit])
    rows = rows[: before.branches.num_features]
    np.testing.assert_array_equal(after.branches.table[:, rows], before.branches.table[:, :-1])
    assert after.branches.features is before.branches.features
    assert after.branches.density is before.branches.density
    np.testing.assert_array_equal(after.branches.table[:, -1], 0.0)


def test_old_topologies_have_their_probabilities_but_for_the_new_ones_share(grown):
    before, _, after, sample = grown
    moved = renumber(before.support, after.support)
    is_new = np.ones(after.support.num_parameters, bool)
    is_new[moved.parameter] = False
    logits = np.where(is_new, -1e3, after.networks.logits)
    without_new = SubsplitNetworks.from_logits(after.support, logits)
    # All the support holds, not only the trees it was made from.
    drawn = before.networks.sample(np.repeat([0, 1], 200).astype(np.int32), np.random.default_rng(0))
    topologies = np.concatenate([sample.children, drawn])
    np.testing.assert_allclose(
        without_new.log_probability_of(topologies), before.networks.log_probability_of(topologies), rtol=1e-9
    )
    # With it, every one becomes less probable.
    assert (
        after.networks.log_probability_of(topologies)
        <= before.networks.log_probability_of(topologies) + 1e-12
    ).all()


def test_branch_lengths_of_old_topologies_are_the_same(grown):
    before, _, after, sample = grown
    for children in sample.children:
        old = before.support.index(children[None], before.with_psp).feature_index
        new = after.support.index(children[None], after.with_psp).feature_index
        np.testing.assert_array_equal(
            after.branches.branch_parameters(new), before.branches.branch_parameters(old)
        )


def test_added_topologies_get_a_share_that_lets_them_be_drawn(grown):
    _, added, after, _ = grown
    probability = np.exp(logsumexp(after.networks.log_mixture_probability_of(added.children)))
    assert START_SHARE / 10 < probability < 0.5


def test_the_heaviest_topology_added_has_the_branches_of_that_beside_it(grown):
    before, added, after, _ = grown
    index = after.support.index(added.children[:1], after.with_psp).feature_index
    parameters = after.branches.branch_parameters(index)[:, 0]
    beside = before.support.index(added.beside[:1], before.with_psp).feature_index
    expected = before.branches.branch_parameters(beside)[:, 0]
    old_of = dict(zip(after_splits(before, after, beside[0, :, 0]), range(beside.shape[1]), strict=True))
    num_new = 0
    for edge, split in enumerate(index[0, :, 0]):
        if split in old_of and before.with_psp:
            np.testing.assert_allclose(parameters[:, edge], expected[:, old_of[split]], rtol=1e-9)
        if split not in old_of:
            num_new += 1
            is_known = split in after_splits(before, after, np.arange(before.support.num_splits))
            if before.with_psp or not is_known:
                np.testing.assert_allclose(parameters[:, edge, 0], added.log_length_mean[0])
                np.testing.assert_allclose(np.exp(parameters[:, edge, 1]), added.log_length_std[0])
    assert num_new == 1


def after_splits(before, after, splits):
    """Numbers in the larger support of splits of the smaller one."""
    return renumber(before.support, after.support).split[splits].tolist()


def test_a_grown_sample_has_the_trees_added_at_small_weights(mixture_and_sample):
    mixture, sample = mixture_and_sample
    added = neighbours_of(mixture, sample.children[0], 3)
    larger = grown_sample(sample, added)
    np.testing.assert_array_equal(larger.children[: len(sample.children)], sample.children)
    np.testing.assert_array_equal(larger.weights[: len(sample.children)], sample.weights)
    assert (larger.weights[len(sample.children) :] > 0).all()
    assert larger.source == "random; 3 topologies found just outside"
    assert (larger.weights[len(sample.children) :] <= sample.weights.min()).all()
    assert not np.isneginf(
        grown_mixture(
            mixture, larger, added, sample.children, sample.weights / sample.weights.sum()
        ).networks.log_mixture_probability_of(larger.children)
    ).any()
