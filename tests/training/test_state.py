"""The mixture before training."""

import numpy as np

from vbpi_mix.sbn.em import rooting_averaged_logits
from vbpi_mix.sbn.network import SubsplitNetworks
from vbpi_mix.training.config import MixtureConfig, OptimisationConfig
from vbpi_mix.training.state import initial_mixture


def test_networks_start_at_the_roots_of_the_sample_s_frequencies(small_problem):
    support, sample = small_problem.support, small_problem.sample
    start = initial_mixture(support, sample, MixtureConfig(components=2), OptimisationConfig()).networks
    frequencies = SubsplitNetworks.from_logits(
        support, rooting_averaged_logits(support, support.index(sample.children), sample.weights)[None]
    ).q[0, :-2]
    roots = np.sqrt(frequencies)
    expected = roots / np.add.reduceat(roots, support.parent_start[:-1])[support.tables.parameter_parent]
    for component in range(2):
        np.testing.assert_allclose(start.q[component, :-2], expected, rtol=1e-10)
    assert frequencies.min() < start.q[0, :-2].min()  # the rarest are drawn more often


def test_networks_start_uniform_where_asked(small_problem):
    uniform = OptimisationConfig(initial_topologies="uniform")
    start = initial_mixture(small_problem.support, small_problem.sample, MixtureConfig(), uniform).networks
    sizes = np.diff(small_problem.support.parent_start)
    np.testing.assert_allclose(start.q[0, :-2], np.repeat(1 / sizes, sizes))
