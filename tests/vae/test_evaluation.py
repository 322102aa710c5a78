"""Streamed estimates against direct computations."""

import math

import pytest
import torch

from vbpi_mix.vae import evaluation
from vbpi_mix.vae.encoder import Gaussians
from vbpi_mix.vae.evaluation import evaluate, score_images
from vbpi_mix.vae.model import log_density, log_likelihood, log_prior


def binary(generator, num_images, height=2, width=2):
    return (torch.rand(num_images, height, width, generator=generator) < 0.5).double()


def direct_scores(model, images, noise, num_samples):
    """All scores by definition, all draws at once; noise is [image, component x sample, latent]."""
    A = model.num_components
    gaussians = model.encoder(images, torch.arange(A))
    component = torch.arange(A).repeat_interleave(num_samples)
    z = gaussians.mean[:, component] + gaussians.log_scale[:, component].exp() * noise
    log_q = log_density(z, gaussians)
    f = log_likelihood(model, images, z) + log_prior(z) - torch.logsumexp(log_q, -1) + math.log(A)
    by_component = f.view(len(images), A, num_samples)
    r = log_q.softmax(-1)
    return {
        "log_likelihood": torch.log(f.exp().mean(1)),
        "bound": f.mean(1),
        "importance_bound": torch.log(by_component.exp().mean(2)).mean(1),
        "jensen_shannon": (r * (A * r).log()).sum(-1).mean(1),
    }


@pytest.mark.parametrize("draws_at_once", [1, 4, 7, 100])
@torch.no_grad()
def test_streaming_equals_the_direct_computation(kind, make_model, generator, draws_at_once):
    model = make_model(kind, num_components=3)
    images = binary(generator, 2)
    num_samples = 5
    streamed = score_images(model, images, num_samples, torch.Generator().manual_seed(5), draws_at_once)
    again = torch.Generator().manual_seed(5)  # the same noise, in the order in which it is drawn
    noise = []
    together = max(draws_at_once // 15, 1)
    for part in images.split(together):
        sizes = [len(s) for s in torch.arange(15).split(max(draws_at_once // len(part), 1))]
        noise.append(
            torch.cat(
                [torch.randn(len(part), n, 3, generator=again, dtype=torch.float64) for n in sizes], dim=1
            )
        )
    expected = direct_scores(model, images, torch.cat(noise), num_samples)
    for name, value in expected.items():
        torch.testing.assert_close(getattr(streamed, name), value, msg=name)


def test_one_component_has_no_divergence(kind, make_model, generator):
    scores = score_images(make_model(kind), binary(generator, 3), 4, generator)
    assert scores.jensen_shannon.tolist() == [0.0] * 3


def with_posteriors(model, mean, log_scale, monkeypatch):
    """Give the model the same posterior components for every image."""

    def encode(images, components):
        shape = (len(images), -1, -1)
        return Gaussians(mean[components].expand(shape), log_scale[components].expand(shape))

    monkeypatch.setattr(model.encoder, "forward", encode)


@pytest.mark.parametrize(("distance", "active"), [(0.0, 1.0), (1e3, 4.0)])
def test_divergence_of_equal_and_of_disjoint_components(make_model, generator, monkeypatch, distance, active):
    model = make_model("independent", num_components=4)
    mean = (distance * torch.arange(4.0, dtype=torch.float64))[:, None].expand(-1, 3)
    with_posteriors(model, mean, torch.zeros_like(mean), monkeypatch)
    result = evaluate(model, binary(generator, 3), 5, generator)
    assert result.jensen_shannon.mean == pytest.approx(math.log(active), abs=1e-12)
    assert result.active_components == pytest.approx(active)


def test_divergence_of_two_components_agrees_with_quadrature(make_model, generator, monkeypatch):
    model = make_model("independent", num_components=2, latent=1)
    mean = torch.tensor([[0.0], [1.5]], dtype=torch.float64)
    log_scale = torch.tensor([[0.0], [-0.7]], dtype=torch.float64)
    with_posteriors(model, mean, log_scale, monkeypatch)
    grid = torch.linspace(-9, 9, 20_001, dtype=torch.float64)
    log_q = log_density(grid[None, :, None], Gaussians(mean[None], log_scale[None]))[0]
    log_mixture = torch.logsumexp(log_q, -1) - math.log(2)
    integrand = (log_q.exp() * (log_q - log_mixture[:, None])).mean(-1)
    expected = torch.trapezoid(integrand, grid)
    scores = score_images(model, binary(generator, 1), 20_000, generator)
    # A term lies in [0, log 2]: its standard deviation is at most 0.35, over 40,000 draws.
    assert scores.jensen_shannon.item() == pytest.approx(expected.item(), abs=5 * 0.35 / 200)


def test_negative_log_likelihood_agrees_with_quadrature(kind, make_model, generator, monkeypatch):
    model = make_model(kind, num_components=3, latent=1)
    mean = torch.tensor([[-1.0], [0.0], [1.5]], dtype=torch.float64)
    with_posteriors(model, mean, torch.full_like(mean, 0.2), monkeypatch)
    images = binary(generator, 4)
    grid = torch.linspace(-9, 9, 4_001, dtype=torch.float64)[:, None]
    with torch.no_grad():
        log_joint = log_likelihood(model, images, grid.expand(4, -1, -1)) + log_prior(grid)
    expected = torch.log(torch.trapezoid(log_joint.exp(), grid[:, 0]))
    scores = score_images(model, images, 3_000, generator)
    # The mixture is wider than the prior: weights vary by less than their mean, over 9,000 draws.
    torch.testing.assert_close(scores.log_likelihood, expected, rtol=0, atol=0.05)
    assert (scores.bound < expected).all()
    assert (scores.importance_bound <= scores.log_likelihood).all()  # Jensen


@torch.no_grad()
def test_bounds_are_ordered_and_divergence_is_within_limits(kind, make_model, generator):
    A = 6
    scores = score_images(make_model(kind, num_components=A), binary(generator, 8), 3, generator)
    assert (scores.bound <= scores.importance_bound).all()
    assert (scores.importance_bound <= scores.log_likelihood).all()
    assert (scores.jensen_shannon >= 0.0).all()
    assert (scores.jensen_shannon <= math.log(A)).all()


def test_many_components_and_samples_never_come_together(make_model, generator, monkeypatch):
    model = make_model("independent", num_components=400, latent=1)
    sizes = []
    decode = evaluation.log_likelihood

    def counted(model, images, z):
        sizes.append(z.shape[0] * z.shape[1])
        return decode(model, images, z)

    monkeypatch.setattr(evaluation, "log_likelihood", counted)
    evaluate(model, binary(generator, 2), 100, generator, draws_at_once=1_000)
    assert max(sizes) <= 1_000
    assert sum(sizes) == 2 * 400 * 100


def test_means_and_standard_errors_over_images(kind, make_model, generator):
    model = make_model(kind, num_components=2)
    images = binary(generator, 6)
    scores = score_images(model, images, 4, torch.Generator().manual_seed(1))
    result = evaluate(model, images, 4, torch.Generator().manual_seed(1))
    assert result.negative_log_likelihood.mean == pytest.approx(-scores.log_likelihood.mean().item())
    deviations = scores.log_likelihood - scores.log_likelihood.mean()
    expected = math.sqrt((deviations**2).sum().item() / 5 / 6)
    assert result.negative_log_likelihood.standard_error == pytest.approx(expected)
    assert (result.num_images, result.num_samples) == (6, 4)


def test_senseless_numbers_are_refused(make_model, generator):
    model = make_model("independent")
    with pytest.raises(ValueError, match="expected two images or more"):
        evaluate(model, binary(generator, 1), 4, generator)
    with pytest.raises(ValueError, match="num_samples = 0"):
        score_images(model, binary(generator, 2), 0, generator)
