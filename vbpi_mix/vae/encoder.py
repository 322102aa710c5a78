"""The mixture of encoders: a shared trunk and one head network for all components.

The trunk maps an image to features h. The head is a network of ``[h, one_hot(a)]``. Its first layer is ``W h
+ column a``, so W h is computed once for all components, and a component costs its column alone: the number
of parameters is affine in A. A linear map of h skips the hidden layer, again once for all components, which
can therefore be narrow.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from jaxtyping import Float, Int64
from torch import nn

from vbpi_mix.vae.config import ModelConfig


@dataclass(frozen=True)
class Gaussians:
    """Diagonal normal distributions of the latent variables, one for each image and component.

    Attributes:
        mean: means.
        log_scale: logarithms of the standard deviations.
    """

    mean: Float[torch.Tensor, "image component latent"]
    log_scale: Float[torch.Tensor, "image component latent"]


class Encoder(nn.Module):
    """Parameters of all components' q_a(z|x)."""

    def __init__(self, config: ModelConfig, num_components: int) -> None:
        super().__init__()
        channels = config.encoder_channels
        # A convolution of one channel, as a linear map of patches of 5 x 5 pixels: faster in torch.
        self.to_half = nn.Linear(25, 2 * channels)
        self.to_quarter = nn.Conv2d(channels, 4 * channels, 3, stride=2, padding=1)
        num_features = 2 * channels * -(-config.height // 4) * -(-config.width // 4)
        self.trunk = nn.Linear(num_features, config.trunk_features)
        self.head = nn.Linear(config.trunk_features, config.head_width)
        self.columns = nn.Parameter(torch.empty(num_components, config.head_width))
        self.out = nn.Linear(config.head_width, 2 * config.latent)
        self.skip = nn.Linear(config.trunk_features, 2 * config.latent, bias=False)

    def forward(
        self, images: Float[torch.Tensor, "image height width"], components: Int64[torch.Tensor, " component"]
    ) -> Gaussians:
        """Distributions q_a(z|x) of the given components, for every image.

        Args:
            images: pixels, 0 or 1.
            components: which components, from 0.
        """
        patches = F.pad(images, (2, 2, 2, 2)).unfold(1, 5, 2).unfold(2, 5, 2).flatten(-2)
        # Channels are the last axis in memory, which convolutions like.
        hidden = F.glu(self.to_half(patches), dim=-1).permute(0, 3, 1, 2)
        hidden = F.glu(self.to_quarter(hidden), dim=1)
        features = F.relu(self.trunk(hidden.flatten(1)))
        # On a one-hot the product is a column: nothing in the first layer grows with A but this sum.
        own = F.relu(self.head(features)[:, None, :] + self.columns[components])
        mean, log_scale = (self.out(own) + self.skip(features)[:, None, :]).chunk(2, dim=-1)
        return Gaussians(mean, log_scale)
