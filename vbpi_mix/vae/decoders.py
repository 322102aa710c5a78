"""Decoders: log p(x|z) of a binary image, a probability of nothing but the image and its latent variables.

No layer looks across images (no batch statistics, in training or later), so that log p(x_i|z_i) is unmoved
by the other images of a batch. Otherwise a batch encoded by one component could tell the decoder which
component that was, and the mixture would gain up to log A nats for nothing.

Networks end in logits, and log p of a pixel is ``x * logit - softplus(logit)``: no probability is clamped.

`IndependentDecoder`: ``log p(x|z) = sum_ij log p(x_ij | z)``.

`AutoregressiveDecoder`: ``log p(x|z) = sum_ij log p(x_ij | z, earlier pixels)``, pixels being ordered by
rows, then columns. The earlier pixels enter through one convolution whose kernel is zero at the pixel itself
and at all later ones; all layers after it look at one pixel's features only, hence see no later pixel
either. One pixel can so be sampled from its window alone.
"""

import math

import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from jaxtyping import Float
from torch import nn

from vbpi_mix.vae.config import AutoregressivePixels, IndependentPixels, ModelConfig


class Upsampler(nn.Module):
    """Latent variables to feature maps: convolutions at low resolution, whose channels become pixels.

    Two dense layers come before them: what a whole image looks like is decided there.
    """

    def __init__(
        self, config: ModelConfig, pixels: IndependentPixels | AutoregressivePixels, channels: int
    ) -> None:
        super().__init__()
        self.size = (config.height, config.width)
        self.grid = (-(-config.height // 4), -(-config.width // 4), pixels.features)
        features, half = pixels.features, max(pixels.features // 2, 1)
        self.hidden = nn.Linear(config.latent, pixels.hidden)
        self.dense = nn.Linear(pixels.hidden, math.prod(self.grid))
        self.at_quarter = nn.Conv2d(features, 4 * half, 3, padding=1)
        self.at_half = nn.Conv2d(half, 4 * channels, 3, padding=1)

    def forward(
        self, z: Float[torch.Tensor, "row latent"]
    ) -> Float[torch.Tensor, "row channel height width"]:
        """Feature maps at full resolution, before any non-linearity."""
        hidden = F.relu(self.dense(F.relu(self.hidden(z))))
        # Channels are the last axis in memory, which convolutions like.
        hidden = hidden.unflatten(1, self.grid).permute(0, 3, 1, 2)
        hidden = _spread(F.relu(self.at_quarter(hidden)))
        hidden = _spread(self.at_half(hidden))
        return hidden[..., : self.size[0], : self.size[1]]


def _spread(
    hidden: Float[torch.Tensor, "row channels height width"],
) -> Float[torch.Tensor, "row channels//4 2*height 2*width"]:
    """Feature maps of twice the resolution: a quarter of the channels for each of 2 x 2 pixels."""
    row, channels, height, width = hidden.shape
    blocks = hidden.permute(0, 2, 3, 1).reshape(row, height, width, 2, 2, channels // 4)
    spread = blocks.transpose(2, 3).reshape(row, 2 * height, 2 * width, channels // 4)
    return spread.permute(0, 3, 1, 2)


class IndependentDecoder(nn.Module):
    """Bernoulli pixels that are independent given z."""

    def __init__(self, config: ModelConfig, pixels: IndependentPixels) -> None:
        super().__init__()
        channels = max(pixels.features // 8, 1)
        self.upsampler = Upsampler(config, pixels, channels)
        self.out = nn.Conv2d(channels, 1, 3, padding=1)

    def logits(
        self, images: Float[torch.Tensor, "image height width"], z: Float[torch.Tensor, "image draw latent"]
    ) -> Float[torch.Tensor, "image draw height width"]:
        """Logits of the pixels for every draw of z; what the images show does not matter."""
        hidden = F.relu(self.upsampler(z.flatten(0, 1)))
        return self.out(hidden)[:, 0].unflatten(0, z.shape[:2])

    @torch.no_grad()
    def sample(
        self, z: Float[torch.Tensor, "image latent"], generator: torch.Generator
    ) -> Float[torch.Tensor, "image height width"]:
        """Images drawn from p(x|z)."""
        blank = z.new_zeros(z.shape[0], *self.upsampler.size)
        return draw_pixels(self.logits(blank, z[:, None])[:, 0], generator)

    @torch.no_grad()
    def depict(
        self, z: Float[torch.Tensor, "image latent"], generator: torch.Generator
    ) -> Float[torch.Tensor, "image height width"]:
        """Pixels' probabilities of being 1, which tell more than a draw."""
        blank = z.new_zeros(z.shape[0], *self.upsampler.size)
        return torch.sigmoid(self.logits(blank, z[:, None])[:, 0])


class AutoregressiveDecoder(nn.Module):
    """Bernoulli pixels, each given z and the earlier pixels of a window around it."""

    def __init__(self, config: ModelConfig, pixels: AutoregressivePixels) -> None:
        super().__init__()
        channels = pixels.channels
        self.reach = pixels.reach
        self.upsampler = Upsampler(config, pixels, channels)
        self.earlier = nn.Parameter(torch.empty(channels, causal_mask(self.reach).numel()))
        self.hidden = nn.Conv2d(channels, channels, 1)
        self.out = nn.Conv2d(channels, 1, 1)

    def kernel(self) -> Float[torch.Tensor, "channel 1 rows columns"]:
        """Kernel of the convolution over the image; zero at the pixel itself and at later ones."""
        mask = causal_mask(self.reach).to(self.earlier.device)
        return (self.earlier * mask.flatten()).unflatten(1, mask.shape)[:, None]

    def _read_out(
        self, hidden: Float[torch.Tensor, "row channel height width"]
    ) -> Float[torch.Tensor, "row height width"]:
        """Logits of pixels from their own features."""
        hidden = F.relu(hidden)
        return self.out(hidden + F.relu(self.hidden(hidden)))[:, 0]

    def logits(
        self, images: Float[torch.Tensor, "image height width"], z: Float[torch.Tensor, "image draw latent"]
    ) -> Float[torch.Tensor, "image draw height width"]:
        """Logits of the pixels given those before them in the image, for every draw of z."""
        reach = self.reach
        padded = F.pad(images[:, None], (reach, reach, reach, 0))
        from_pixels = F.conv2d(padded, self.kernel())
        from_latents = self.upsampler(z.flatten(0, 1)).unflatten(0, z.shape[:2])
        hidden = (from_latents + from_pixels[:, None]).flatten(0, 1)
        return self._read_out(hidden).unflatten(0, z.shape[:2])

    @torch.no_grad()
    def sample(
        self, z: Float[torch.Tensor, "image latent"], generator: torch.Generator
    ) -> Float[torch.Tensor, "image height width"]:
        """Images drawn from p(x|z), pixel after pixel."""
        from_latents = self.upsampler(z)
        height, width = self.upsampler.size
        reach = self.reach
        kernel = self.kernel()
        padded = z.new_zeros(z.shape[0], 1, height + reach, width + 2 * reach)
        for i in range(height):
            for j in range(width):
                window = padded[:, :, i : i + reach + 1, j : j + 2 * reach + 1]
                hidden = from_latents[:, :, i : i + 1, j : j + 1] + F.conv2d(window, kernel)
                pixel = draw_pixels(self._read_out(hidden), generator)
                padded[:, 0, i + reach, j + reach] = pixel[:, 0, 0]
        return padded[:, 0, reach:, reach : reach + width]

    def depict(
        self, z: Float[torch.Tensor, "image latent"], generator: torch.Generator
    ) -> Float[torch.Tensor, "image height width"]:
        """Images drawn from p(x|z): a pixel's probability depends on those before it."""
        return self.sample(z, generator)


def causal_mask(reach: int) -> Float[torch.Tensor, "rows columns"]:
    """One at the pixels of the window before its last row's middle, zero there and after.

    The window has ``reach`` rows above the pixel's own row, and ``reach`` columns to both sides.
    """
    mask = torch.ones(reach + 1, 2 * reach + 1)
    mask[-1, reach:] = 0.0
    return mask


def draw_pixels(
    logits: Float[torch.Tensor, "*batch"], generator: torch.Generator
) -> Float[torch.Tensor, "*batch"]:
    """Pixels 0 or 1 with the given logits of being 1."""
    uniform = torch.rand(logits.shape, generator=generator, dtype=logits.dtype, device=logits.device)
    return (uniform < torch.sigmoid(logits)).to(logits.dtype)


def build_decoder(config: ModelConfig) -> IndependentDecoder | AutoregressiveDecoder:
    """The decoder that a configuration asks for, its parameters not yet initialised."""
    match config.decoder:
        case IndependentPixels():
            return IndependentDecoder(config, config.decoder)
        case AutoregressivePixels():
            return AutoregressiveDecoder(config, config.decoder)
        case _:
            raise TypeError(f"expected the configuration of a decoder, got {config.decoder!r}")
