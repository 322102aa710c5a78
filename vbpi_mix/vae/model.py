"""The model: latent variables z ~ N(0, I), an image given them, and the mixture q(z|x) of encoders.

A draw has the log joint ``log p(x|z) + log p(z)`` and, under component d of the mixture, the log density
``log q_d(z|x)``. `vbpi_mix.objectives` makes bounds of these, one batch member an image.
"""

import math

import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from jaxtyping import Float
from torch import nn

from vbpi_mix.vae.config import ModelConfig
from vbpi_mix.vae.decoders import build_decoder
from vbpi_mix.vae.encoder import Encoder, Gaussians

_LOG_2PI = math.log(2 * math.pi)


class Misvae(nn.Module):
    """Parameters of the encoders and of the decoder."""

    def __init__(self, config: ModelConfig, num_components: int, generator: torch.Generator) -> None:
        # Layers initialise themselves from torch's global generator, which is nobody else's business.
        with torch.random.fork_rng(devices=[]):
            super().__init__()
            self.encoder = Encoder(config, num_components)
            self.decoder = build_decoder(config)
        self.num_components = num_components
        self.latent = config.latent
        _initialise(self, generator)

    def num_parameters(self) -> int:
        """Number of trained parameters; affine in the number of components."""
        return sum(parameter.numel() for parameter in self.parameters())


def _initialise(model: Misvae, generator: torch.Generator) -> None:
    """Draw all parameters: weights uniform with variance 1 / fan-in, columns normal; biases are zero."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif name.endswith("columns"):
                parameter.normal_(0.0, 0.3, generator=generator)
            else:
                bound = math.sqrt(3.0 / parameter[0].numel())
                parameter.uniform_(-bound, bound, generator=generator)


def log_likelihood(
    model: Misvae,
    images: Float[torch.Tensor, "image height width"],
    z: Float[torch.Tensor, "image *draws latent"],
) -> Float[torch.Tensor, "image *draws"]:
    """log p(x|z) in nats, of every draw of latent variables.

    Args:
        model: the parameters.
        images: pixels, 0 or 1.
        z: draws for each image, along one axis or more.
    """
    logits = model.decoder.logits(images, z.flatten(1, -2))
    # log Bernoulli(x | logit) = x logit - softplus(logit) = -softplus((1 - 2x) logit) for x in {0, 1}.
    sign = (1.0 - 2.0 * images)[:, None]
    return -F.softplus(sign * logits).sum(dim=(-2, -1)).unflatten(1, z.shape[1:-1])


def log_prior(z: Float[torch.Tensor, "*draws latent"]) -> Float[torch.Tensor, "*draws"]:
    """log p(z) in nats: standard normal."""
    return -0.5 * (z.square().sum(-1) + z.shape[-1] * _LOG_2PI)


def log_density(
    z: Float[torch.Tensor, "image *draws latent"], gaussians: Gaussians
) -> Float[torch.Tensor, "image *draws component"]:
    """log q_d(z|x) in nats of every draw under every component d of ``gaussians``."""
    num_images, num_components, latent = gaussians.mean.shape
    shape = (num_images, *([1] * (z.dim() - 2)), num_components, latent)
    standardised = (z[..., None, :] - gaussians.mean.view(shape)) * (-gaussians.log_scale).exp().view(shape)
    normaliser = gaussians.log_scale.sum(-1) + 0.5 * latent * _LOG_2PI
    return -0.5 * standardised.square().sum(-1) - normaliser.view(shape[:-1])


def draw_latents(
    gaussians: Gaussians, num_particles: int, generator: torch.Generator
) -> Float[torch.Tensor, "image component particle latent"]:
    """Reparameterised draws of every component: mean + scale * noise."""
    num_images, num_components, latent = gaussians.mean.shape
    noise = torch.randn(
        (num_images, num_components, num_particles, latent),
        generator=generator,
        dtype=gaussians.mean.dtype,
        device=gaussians.mean.device,
    )
    return gaussians.mean[:, :, None] + gaussians.log_scale.exp()[:, :, None] * noise
