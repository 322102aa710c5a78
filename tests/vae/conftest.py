"""Small models for the tests: two by two pixels can be enumerated."""

import pytest
import torch

from vbpi_mix.vae.config import AutoregressivePixels, IndependentPixels, ModelConfig
from vbpi_mix.vae.model import Misvae

DECODERS = {
    "independent": IndependentPixels(hidden=9, features=8),
    "autoregressive": AutoregressivePixels(hidden=9, features=8, channels=6, reach=2),
}


def small_config(kind, height=2, width=2, latent=3):
    """Configuration with few parameters."""
    return ModelConfig(
        height=height,
        width=width,
        latent=latent,
        encoder_channels=3,
        trunk_features=10,
        head_width=7,
        decoder=DECODERS[kind],
    )


def small_model(kind, num_components=1, seed=1, **sizes):
    """Model in double precision, its biases no longer zero."""
    generator = torch.Generator().manual_seed(seed)
    model = Misvae(small_config(kind, **sizes), num_components, generator).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return model


@pytest.fixture(params=sorted(DECODERS))
def kind(request):
    """Kind of decoder."""
    return request.param


@pytest.fixture
def make_config():
    """Function that makes a small configuration of a model."""
    return small_config


@pytest.fixture
def make_model():
    """Function that makes a small model."""
    return small_model


@pytest.fixture
def generator():
    """Generator with a fixed seed."""
    return torch.Generator().manual_seed(7)
