"""Pictures: laid out as said, and readable by others."""

import matplotlib.image
import numpy as np
import torch

from vbpi_mix.vae.pictures import BACKGROUND, GAP, MAGNIFICATION, WIDE_GAP, png_content, sample_grid


def test_png_files_are_read_by_another_program(tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, (7, 13)).astype(np.uint8)
    path = tmp_path / "grey.png"
    path.write_bytes(png_content(grey))
    np.testing.assert_array_equal(np.round(255 * matplotlib.image.imread(path)), grey)


def test_a_grid_has_originals_reconstructions_and_prior_samples(kind, make_model, generator):
    model = make_model(kind, num_components=3, height=4, width=6)
    images = (torch.rand(2, 4, 6, generator=generator) < 0.5).double()
    grid = sample_grid(model, images, 2, 1, generator)[::MAGNIFICATION, ::MAGNIFICATION]
    assert grid.shape == (2 * 4 + GAP, 6 + WIDE_GAP + 2 * 6 + GAP + WIDE_GAP + 6)
    for row in range(2):
        own = grid[row * (4 + GAP) : row * (4 + GAP) + 4]
        np.testing.assert_array_equal(own[:, :6], 255 * images[row].numpy())
        assert (own[:, 6 : 6 + WIDE_GAP] == BACKGROUND).all()
    again = sample_grid(model, images, 2, 0, generator)[::MAGNIFICATION, ::MAGNIFICATION]
    assert again.shape[1] == 6 + WIDE_GAP + 2 * 6 + GAP


def test_reconstructions_come_from_the_component_shown(make_model, generator):
    """A component that puts z where the decoder makes white images has white reconstructions."""
    model = make_model("independent", num_components=2, height=4, width=4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.encoder.columns[1] = 1.0
        model.encoder.out.weight[:3] = 10.0  # means; scales stay 1
        model.decoder.upsampler.dense.weight += 1.0
        for name in ("hidden", "at_quarter", "at_half"):
            getattr(model.decoder.upsampler, name).weight += 0.1
        model.decoder.out.weight += 1.0
        model.decoder.out.bias -= 100.0
    grid = sample_grid(model, torch.zeros(1, 4, 4).double(), 2, 0, generator)[
        ::MAGNIFICATION, ::MAGNIFICATION
    ]
    first, second = grid[:, 4 + WIDE_GAP : 8 + WIDE_GAP], grid[:, 8 + WIDE_GAP + GAP :]
    assert first.mean() < 50
    assert second.mean() > 200
