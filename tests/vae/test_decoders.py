"""The likelihood is one: normalised, and of nothing but an image and its own latent variables."""

import itertools

import pytest
import torch

from vbpi_mix.vae.config import ModelConfig
from vbpi_mix.vae.decoders import build_decoder, causal_mask, draw_pixels
from vbpi_mix.vae.model import log_likelihood

EXACT = {"rtol": 1e-12, "atol": 1e-12}
"""Double precision; kernels may add up in another order for another batch."""


def images_like(generator, num_images, height, width):
    return (torch.rand(num_images, height, width, generator=generator) < 0.4).double()


def latents(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def all_images(height, width):
    pixels = list(itertools.product((0.0, 1.0), repeat=height * width))
    return torch.tensor(pixels, dtype=torch.float64).view(-1, height, width)


@pytest.mark.parametrize(("height", "width"), [(2, 2), (3, 3), (1, 5)])
def test_probabilities_of_all_images_sum_to_one(kind, make_model, generator, height, width):
    model = make_model(kind, height=height, width=width)
    everything = all_images(height, width)
    z = latents(generator, 1, 4, 3).expand(len(everything), -1, -1)
    total = log_likelihood(model, everything, z).exp().sum(0)
    torch.testing.assert_close(total, torch.ones(4, dtype=torch.float64), **EXACT)


def test_log_likelihood_is_unmoved_by_batch_mates_and_batch_size(kind, make_model, generator):
    model = make_model(kind, height=7, width=6)
    images, z = images_like(generator, 5, 7, 6), latents(generator, 5, 3, 3)
    together = log_likelihood(model, images, z)
    for is_training in (True, False):
        model.train(is_training)
        for i in range(5):
            alone = log_likelihood(model, images[i : i + 1], z[i : i + 1])
            torch.testing.assert_close(alone[0], together[i], **EXACT)
        others, other_z = images.clone(), z.clone()
        others[1:], other_z[1:] = 1.0 - images[1:], 5.0 * z[1:]
        torch.testing.assert_close(log_likelihood(model, others, other_z)[0], together[0], **EXACT)


def test_log_likelihood_is_unmoved_by_the_other_draws_of_its_image(kind, make_model, generator):
    model = make_model(kind, height=5, width=5)
    images, z = images_like(generator, 2, 5, 5), latents(generator, 2, 4, 3)
    each = [log_likelihood(model, images, z[:, k : k + 1]) for k in range(4)]
    torch.testing.assert_close(torch.cat(each, dim=1), log_likelihood(model, images, z), **EXACT)


def test_no_layer_keeps_statistics(kind, make_model):
    model = make_model(kind)
    assert list(model.buffers()) == []
    assert not any("Norm" in type(module).__name__ for module in model.modules())


def test_log_likelihood_depends_on_the_image_and_on_the_latent_variables(kind, make_model, generator):
    model = make_model(kind, height=5, width=4)
    images, z = images_like(generator, 1, 5, 4), latents(generator, 1, 1, 3)
    value = log_likelihood(model, images, z)
    assert (log_likelihood(model, 1.0 - images, z) - value).abs() > 0.01
    assert (log_likelihood(model, images, z + 1.0) - value).abs() > 0.01


def test_independent_logits_do_not_see_the_image(make_model, generator):
    decoder = make_model("independent", height=4, width=4).decoder
    z, images = latents(generator, 1, 1, 3), images_like(generator, 1, 4, 4)
    torch.testing.assert_close(decoder.logits(images, z), decoder.logits(1.0 - images, z), rtol=0, atol=0)


def test_autoregressive_logits_see_exactly_the_earlier_pixels_of_the_window(make_model, generator):
    height, width, reach = 6, 7, 2
    decoder = make_model("autoregressive", height=height, width=width).decoder
    z = latents(generator, 1, 20, 3)  # a unit that rests for one of them works for another
    images = torch.rand(1, height, width, generator=generator, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda pixels: decoder.logits(pixels, z)[0], images)
    slopes = jacobian[:, :, :, 0].abs().sum(0)
    for i, j, k, m in itertools.product(range(height), range(width), range(height), range(width)):
        is_earlier = (k, m) < (i, j) and i - k <= reach and abs(m - j) <= reach
        assert (slopes[i, j, k, m] != 0.0) == is_earlier


def test_causal_mask_worked_by_hand():
    expected = [[1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]
    assert causal_mask(2).tolist() == expected


def test_samples_follow_the_probabilities(kind, make_model, generator):
    model = make_model(kind)
    everything = all_images(2, 2)
    z = latents(generator, 1, 1, 3)
    probability = log_likelihood(model, everything, z.expand(16, -1, -1))[:, 0].exp().detach()
    num_draws = 4000
    with torch.no_grad():
        images = model.decoder.sample(z[0].expand(num_draws, -1), generator)
    code = (images.flatten(1) @ torch.tensor([8.0, 4.0, 2.0, 1.0], dtype=torch.float64)).long()
    counts = torch.bincount(code, minlength=16).double()
    chi_square = ((counts - num_draws * probability) ** 2 / (num_draws * probability)).sum()
    assert chi_square < 44.3  # the 0.9999 quantile with 15 degrees of freedom; the seed is fixed


def test_extreme_logits_give_a_finite_log_likelihood(kind, make_model, generator):
    model = make_model(kind)
    with torch.no_grad():
        model.decoder.out.bias.fill_(1e4)
    value = log_likelihood(model, torch.zeros(1, 2, 2, dtype=torch.float64), latents(generator, 1, 1, 3))
    assert value.item() == pytest.approx(-4e4, rel=0.01)


def test_pixels_are_zero_or_one(generator):
    pixels = draw_pixels(torch.linspace(-3, 3, 1000), generator)
    assert set(pixels.tolist()) == {0.0, 1.0}


def test_an_unknown_decoder_is_refused():
    with pytest.raises(TypeError, match="configuration of a decoder"):
        build_decoder(ModelConfig.model_construct(decoder="convolutional"))
