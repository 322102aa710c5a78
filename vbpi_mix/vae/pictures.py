"""Pictures of what a model does, as PNG files: originals, reconstructions by component, prior samples."""

import io

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image

from vbpi_mix.vae.encoder import Gaussians
from vbpi_mix.vae.model import Misvae, draw_latents

GAP = 2
"""Pixels between images."""

WIDE_GAP = 12
"""Pixels between originals, reconstructions and prior samples."""

BACKGROUND = 128
MAGNIFICATION = 2
"""Pixels of the picture for each pixel of an image, in both directions."""


@torch.no_grad()
def sample_grid(
    model: Misvae,
    images: Float[torch.Tensor, "image height width"],
    num_components: int,
    num_prior: int,
    generator: torch.Generator,
) -> UInt8[np.ndarray, "rows columns"]:
    """Picture with a row for each image: the image, and what p(x|z) makes of z from components and the prior.

    Args:
        model: the parameters.
        images: pixels, 0 or 1.
        num_components: components to show, evenly spread over all of them; at most as many as there are.
        num_prior: images in each row with z drawn from the prior.
        generator: of latent variables and pixels.

    Returns:
        Grey values, 255 being white.
    """
    num_images = len(images)
    shown = torch.linspace(0, model.num_components - 1, num_components).round().long().to(images.device)
    gaussians = model.encoder(images, shown)
    z = draw_latents(Gaussians(gaussians.mean, gaussians.log_scale), 1, generator)[:, :, 0]
    prior = torch.randn(
        (num_images, num_prior, model.latent), generator=generator, dtype=z.dtype, device=z.device
    )
    drawn = model.decoder.depict(torch.cat([z, prior], dim=1).flatten(0, 1), generator)
    drawn = drawn.unflatten(0, (num_images, num_components + num_prior))
    blocks = [images[:, None], drawn[:, :num_components], drawn[:, num_components:]]
    tiles = [_tile((255 * block).to(torch.uint8).cpu().numpy()) for block in blocks if block.shape[1]]
    height = len(tiles[0])
    gap = np.full((height, WIDE_GAP), BACKGROUND, dtype=np.uint8)
    joined = np.concatenate([part for tile in tiles for part in (gap, tile)][1:], axis=1)
    return np.kron(joined, np.ones((MAGNIFICATION, MAGNIFICATION), dtype=np.uint8))


def _tile(grey: UInt8[np.ndarray, "image tile height width"]) -> UInt8[np.ndarray, "rows columns"]:
    """Images side by side and below each other, with gaps between them."""
    num_rows, num_columns, height, width = grey.shape
    padded = np.pad(grey, ((0, 0), (0, 0), (0, GAP), (0, GAP)), constant_values=BACKGROUND)
    tiled = padded.transpose(0, 2, 1, 3).reshape(num_rows * (height + GAP), num_columns * (width + GAP))
    return tiled[:-GAP, :-GAP]


def png_content(grey: UInt8[np.ndarray, "rows columns"]) -> bytes:
    """A PNG file of grey values."""
    content = io.BytesIO()
    Image.fromarray(grey).save(content, format="PNG")
    return content.getvalue()
