"""The torch form of the network against the compiled one."""

import numpy as np
import pytest
import torch

from vbpi_mix.sbn.network import SubsplitNetworks
from vbpi_mix.sbn.support import build_support
from vbpi_mix.sbn.torch_network import RootingTerms, log_parameters, log_probability
from vbpi_mix.trees.topology import random_topologies


@pytest.mark.parametrize(("num_taxa", "num_trees"), [(4, 2), (7, 5), (30, 6)])
def test_values_and_gradients_agree_with_the_compiled_network(num_taxa, num_trees):
    rng = np.random.default_rng(num_taxa)
    support = build_support(
        random_topologies(num_taxa, num_trees, rng), tuple(f"t{i}" for i in range(num_taxa))
    )
    networks = SubsplitNetworks.from_logits(support, rng.normal(size=(3, support.num_parameters)))
    topologies = np.concatenate(
        [networks.sample(np.zeros(20, np.int32), rng), random_topologies(num_taxa, 10, rng)]
    )
    index = support.index(topologies)
    expected = networks.log_probability(index)
    logits = torch.from_numpy(networks.logits.copy()).requires_grad_()
    log_q = log_parameters(logits, torch.from_numpy(support.tables.parameter_parent).long())
    np.testing.assert_allclose(log_q[:, :-2].detach(), networks.log_q[:, :-2], rtol=1e-13, atol=1e-13)
    values = log_probability(log_q, RootingTerms.of(index, support, logits))
    np.testing.assert_allclose(values.detach(), expected, rtol=1e-12, atol=1e-12)
    inside = torch.isfinite(values)
    weights = torch.from_numpy(rng.normal(size=values.shape))
    (values[inside] * weights[inside]).sum().backward()
    for a in range(3):
        tree_weights = np.where(inside[:, a], weights[:, a], 0.0)
        np.testing.assert_allclose(
            logits.grad[a], networks.gradient(index, a, tree_weights), rtol=1e-10, atol=1e-11
        )
