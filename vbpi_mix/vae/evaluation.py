"""Evaluation: negative log-likelihood by importance sampling, bounds, and how much the components differ.

Every component a of A draws L latent variables of every image. With q = (1/A) sum_d q_d and the log weight
f = log p(x|z) + log p(z) - log q(z|x),

    log_likelihood    log (1/(AL)) sum_al exp f_al, multiple importance sampling: consistent, in expectation a
                      lower bound of log p(x)
    bound             (1/(AL)) sum_al f_al, unbiased for the mixture bound of one draw (MISELBO)
    importance_bound  (1/A) sum_a log (1/L) sum_l exp f_al, the bound that training with L draws ascends
    jensen_shannon    (1/A) sum_a KL(q_a || q), the Jensen-Shannon divergence of the components

As all components draw as often, z is a stratified draw of q, and with r_d = q_d / sum_d' q_d'

    (1/A) sum_a E_{q_a}[ log q_a / q ] = E_q[ sum_d r_d log(A r_d) ].

The right side is estimated: each of its terms lies in [0, log A], hence so does the estimate.

Draws are streamed: of each image only running sums are kept, so memory does not grow with A L.

References:
    Kviman, Melin, Koptagel, Elvira & Lagergren (2022), Multiple importance sampling ELBO and deep ensembles
    of variational approximations.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float64

from vbpi_mix.objectives.bounds import importance_weights
from vbpi_mix.vae.encoder import Gaussians
from vbpi_mix.vae.model import Misvae, log_density, log_likelihood, log_prior

DRAWS_AT_ONCE = 100
"""Decoded images held in memory at once, unless told; more of them would leave the processor's caches."""


@dataclass(frozen=True)
class Estimate:
    """A mean over images, with its standard error.

    Attributes:
        mean: the mean, in nats.
        standard_error: standard deviation between images, divided by the root of their number.
    """

    mean: float
    standard_error: float


@dataclass(frozen=True)
class ImageScores:
    """What the draws say about each image; in nats, see the module."""

    log_likelihood: Float64[torch.Tensor, " image"]
    bound: Float64[torch.Tensor, " image"]
    importance_bound: Float64[torch.Tensor, " image"]
    jensen_shannon: Float64[torch.Tensor, " image"]


@dataclass(frozen=True)
class Evaluation:
    """Means over images.

    Attributes:
        negative_log_likelihood: to be small.
        bound: mixture bound of one draw.
        importance_bound: mixture bound of L draws a component.
        jensen_shannon: in [0, log A].
        active_components: exp of the Jensen-Shannon divergence, in [1, A]: how many components that share no
            probability would differ as much.
        num_images: images.
        num_samples: draws of each component for each image, L.
    """

    negative_log_likelihood: Estimate
    bound: Estimate
    importance_bound: Estimate
    jensen_shannon: Estimate
    active_components: float
    num_images: int
    num_samples: int


def summarise(parts: Sequence[ImageScores], num_samples: int) -> Evaluation:
    """Means over all images of the parts, which L = ``num_samples`` draws of each component have scored.

    Raises:
        ValueError: There are fewer than two images.
    """
    scores = _joined(parts)
    num_images = len(scores.bound)
    if num_images < 2:
        raise ValueError(f"expected two images or more, for a standard error, got {num_images}")
    return Evaluation(
        negative_log_likelihood=_estimate(-scores.log_likelihood),
        bound=_estimate(scores.bound),
        importance_bound=_estimate(scores.importance_bound),
        jensen_shannon=_estimate(scores.jensen_shannon),
        active_components=math.exp(float(scores.jensen_shannon.mean())),
        num_images=num_images,
        num_samples=num_samples,
    )


def evaluate(
    model: Misvae,
    images: torch.Tensor,
    num_samples: int,
    generator: torch.Generator,
    draws_at_once: int = DRAWS_AT_ONCE,
) -> Evaluation:
    """Evaluate on images; arguments as for `score_images`.

    Raises:
        ValueError: There are fewer than two images, or a number is not positive.
    """
    return summarise([score_images(model, images, num_samples, generator, draws_at_once)], num_samples)


@torch.no_grad()
def score_images(
    model: Misvae,
    images: torch.Tensor,
    num_samples: int,
    generator: torch.Generator,
    draws_at_once: int = DRAWS_AT_ONCE,
) -> ImageScores:
    """Score each image by L draws of each of the A components.

    Args:
        model: the parameters.
        images: pixels, 0 or 1; shape [image, height, width].
        num_samples: L.
        generator: of the latent variables; what it draws for an image depends on ``draws_at_once``.
        draws_at_once: decoded images held in memory at once.

    Raises:
        ValueError: There are no images, or a number is not positive.
    """
    if len(images) == 0 or num_samples < 1 or draws_at_once < 1:
        raise ValueError(
            f"expected at least one image, sample and draw at once, got {len(images)} images, "
            f"num_samples = {num_samples} and draws_at_once = {draws_at_once}"
        )
    num_draws = model.num_components * num_samples
    num_at_once = max(draws_at_once // num_draws, 1)
    parts = [
        _score_together(model, part, num_samples, generator, max(draws_at_once // len(part), 1))
        for part in images.split(num_at_once)
    ]
    return _joined(parts)


def _joined(parts: Sequence[ImageScores]) -> ImageScores:
    """Scores of the images of all parts, in order."""
    return ImageScores(
        *(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(ImageScores))
    )


def _score_together(
    model: Misvae, images: torch.Tensor, num_samples: int, generator: torch.Generator, num_at_once: int
) -> ImageScores:
    """Score images, whose draws are streamed together, so many of each image at once."""
    num_components = model.num_components
    num_draws = num_components * num_samples
    gaussians = model.encoder(images, torch.arange(num_components, device=images.device))
    log_sums = torch.full((len(images), num_components), -math.inf, dtype=torch.float64, device=images.device)
    total = log_sums.new_zeros(len(images))
    divergence = log_sums.new_zeros(len(images))
    for first in range(0, num_draws, num_at_once):
        last = min(first + num_at_once, num_draws)
        component = torch.arange(first, last, device=images.device) // num_samples
        f, terms = _score_draws(model, images, gaussians, component, generator)
        total += f.sum(1)
        divergence += terms.sum(1)
        # The draws of a component are neighbours: add them up by component.
        for a in range(int(component[0]), int(component[-1]) + 1):
            own = torch.logsumexp(f[:, component == a], dim=1)
            log_sums[:, a] = torch.logaddexp(log_sums[:, a], own)
    return ImageScores(
        log_likelihood=torch.logsumexp(log_sums, dim=1) - math.log(num_draws),
        bound=total / num_draws,
        importance_bound=log_sums.mean(1) - math.log(num_samples),
        jensen_shannon=divergence / num_draws,
    )


def _score_draws(
    model: Misvae,
    images: torch.Tensor,
    gaussians: Gaussians,
    component: torch.Tensor,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log weights of new draws of these components, and their terms of the divergence; [image, draw]."""
    mean, log_scale = gaussians.mean[:, component], gaussians.log_scale[:, component]
    noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
    z = mean + log_scale.exp() * noise
    # Each draw stands for a batch of one particle: the objective then weighs it alone.
    log_joint = (log_likelihood(model, images, z) + log_prior(z)).double()
    log_q = log_density(z, gaussians).double()
    weights = importance_weights(log_joint[..., None], log_q[..., None, :])
    r = weights.responsibilities[..., 0, :]
    terms = torch.special.xlogy(r, r).sum(-1) + math.log(r.shape[-1])
    # Rounding only: each term lies between these limits.
    return weights.log_weights[..., 0], terms.clamp(0.0, math.log(r.shape[-1]))


def _estimate(values: torch.Tensor) -> Estimate:
    """Mean over images and its standard error."""
    return Estimate(float(values.mean()), float(values.std()) / math.sqrt(len(values)))
