"""Encoders, densities and sizes."""

import math

import pytest
import torch
from torch.distributions import Independent, Normal

from vbpi_mix.vae.config import AutoregressivePixels, ModelConfig
from vbpi_mix.vae.encoder import Gaussians
from vbpi_mix.vae.model import Misvae, draw_latents, log_density, log_prior


def test_number_of_parameters_is_affine_in_the_components(kind, make_config, generator):
    config = make_config(kind)
    sizes = [Misvae(config, A, generator).num_parameters() for A in (1, 2, 3, 101)]
    assert sizes[1] - sizes[0] == config.head_width
    assert sizes[2] - sizes[0] == 2 * config.head_width
    assert sizes[3] - sizes[0] == 100 * config.head_width


@pytest.mark.parametrize("decoder", [ModelConfig().decoder, AutoregressivePixels()])
def test_a_component_costs_its_column_in_the_default_model(decoder, generator):
    config = ModelConfig(decoder=decoder)
    sizes = [Misvae(config, A, generator).num_parameters() for A in (1, 400)]
    assert sizes[1] - sizes[0] == 399 * config.head_width
    assert sizes[0] < 2_000_000


def test_the_head_is_a_network_of_features_and_one_hot(make_model, generator):
    model = make_model("independent", num_components=4, height=5, width=6)
    encoder = model.encoder
    images = torch.rand(3, 5, 6, generator=generator, dtype=torch.float64)
    seen = {}
    encoder.trunk.register_forward_hook(lambda _, __, out: seen.update(features=torch.relu(out)))
    gaussians = encoder(images, torch.tensor([3, 0]))
    for position, a in enumerate((3, 0)):
        one_hot = torch.eye(4, dtype=torch.float64)[a].expand(3, -1)
        together = torch.cat([seen["features"], one_hot], dim=1)
        weight = torch.cat([encoder.head.weight, encoder.columns.T], dim=1)
        hidden = torch.relu(together @ weight.T + encoder.head.bias)
        expected = encoder.out(hidden) + encoder.skip(seen["features"])
        torch.testing.assert_close(gaussians.mean[:, position], expected[:, :3])
        torch.testing.assert_close(gaussians.log_scale[:, position], expected[:, 3:])


def test_a_component_does_not_depend_on_which_others_are_asked_for(make_model, generator):
    encoder = make_model("independent", num_components=5).encoder
    images = torch.rand(2, 2, 2, generator=generator, dtype=torch.float64)
    everything = encoder(images, torch.arange(5))
    some = encoder(images, torch.tensor([1, 4]))
    torch.testing.assert_close(some.mean, everything.mean[:, [1, 4]])
    torch.testing.assert_close(some.log_scale, everything.log_scale[:, [1, 4]])
    assert (everything.mean[:, 0] - everything.mean[:, 1]).abs().max() > 1e-3


def test_densities_are_those_of_torch(generator):
    gaussians = Gaussians(
        torch.randn(2, 4, 3, generator=generator), 0.5 * torch.randn(2, 4, 3, generator=generator)
    )
    z = torch.randn(2, 5, 6, 3, generator=generator)
    values = log_density(z, gaussians)
    assert values.shape == (2, 5, 6, 4)
    for d in range(4):
        normal = Normal(gaussians.mean[:, d], gaussians.log_scale[:, d].exp())
        expected = Independent(normal, 1).log_prob(z.permute(1, 2, 0, 3)).permute(2, 0, 1)
        torch.testing.assert_close(values[..., d], expected)
    standard = Independent(Normal(torch.zeros(3), torch.ones(3)), 1)
    torch.testing.assert_close(log_prior(z), standard.log_prob(z))


def test_draws_have_the_means_and_scales_of_their_components(generator):
    mean = torch.tensor([[[0.0, 5.0], [-3.0, 1.0]]])
    log_scale = torch.tensor([[[0.0, -1.0], [1.0, -2.0]]])
    z = draw_latents(Gaussians(mean, log_scale), 20_000, generator)
    assert z.shape == (1, 2, 20_000, 2)
    scale = log_scale.exp()
    # Five standard errors of a mean, and about as many of a standard deviation.
    assert ((z.mean(2) - mean).abs() < 5 * scale / math.sqrt(20_000)).all()
    assert ((z.std(2) / scale - 1).abs() < 5 / math.sqrt(40_000)).all()


def test_initialisation_comes_from_the_generator_alone(kind, make_config):
    before = torch.random.get_rng_state()
    first, second, other = (
        Misvae(make_config(kind), 2, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    for (name, a), b, c in zip(
        first.named_parameters(), second.parameters(), other.parameters(), strict=True
    ):
        assert torch.equal(a, b)
        assert name.endswith("bias") or not torch.equal(a, c)
