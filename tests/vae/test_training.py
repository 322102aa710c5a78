"""Steps against direct computations, estimators against each other, and resuming bit for bit."""

import json
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.distributions import Independent, Normal

from vbpi_mix.errors import NonFiniteError, RunDirectoryError
from vbpi_mix.objectives.estimators import ComponentChoice, Estimator, choose_components
from vbpi_mix.vae.config import MisvaeConfig, MixtureConfig, OptimisationConfig
from vbpi_mix.vae.images import load_images
from vbpi_mix.vae.model import draw_latents, log_likelihood
from vbpi_mix.vae.training import (
    TrainingState,
    load_checkpoint,
    load_model,
    mean_bound,
    save_checkpoint,
    train,
)


def binary(generator, num_images, height=4, width=4):
    return (torch.rand(num_images, height, width, generator=generator) < 0.5).double()


def choice(sampled, denominators):
    position = [denominators.index(s) for s in sampled]
    return ComponentChoice(*(np.array(index, dtype=np.int64) for index in (sampled, denominators, position)))


def direct_bound(model, images, sampled, denominators, num_particles, beta, seed):
    """The bound from its definition, image after image and draw after draw."""
    gaussians = model.encoder(images, torch.arange(model.num_components))
    chosen = replace(gaussians, mean=gaussians.mean[:, sampled], log_scale=gaussians.log_scale[:, sampled])
    z = draw_latents(chosen, num_particles, torch.Generator().manual_seed(seed))
    prior = Independent(Normal(torch.zeros(3).double(), torch.ones(3).double()), 1)
    total = 0.0
    for i in range(len(images)):
        for s in range(len(sampled)):
            weights = []
            for k in range(num_particles):
                densities = [
                    Independent(Normal(gaussians.mean[i, d], gaussians.log_scale[i, d].exp()), 1)
                    .log_prob(z[i, s, k])
                    .exp()
                    for d in denominators
                ]
                log_mixture = torch.log(sum(densities) / len(denominators))
                log_lik = log_likelihood(model, images[i : i + 1], z[i : i + 1, s, k : k + 1])[0, 0]
                weights.append(torch.exp(log_lik + beta * (prior.log_prob(z[i, s, k]) - log_mixture)))
            total = total + torch.log(sum(weights) / num_particles)
    return total / (len(images) * len(sampled))


@pytest.mark.parametrize("beta", [0.3, 1.0])
@pytest.mark.parametrize("num_particles", [1, 3])
@pytest.mark.parametrize(
    ("sampled", "denominators"), [([0, 1, 2], [0, 1, 2]), ([2], [0, 1, 2]), ([0, 2], [0, 2]), ([1], [1])]
)
def test_bound_and_gradients_equal_the_direct_computation(
    kind, make_model, generator, sampled, denominators, num_particles, beta
):
    model = make_model(kind, num_components=3, height=4, width=4)
    images = binary(generator, 2)
    value = mean_bound(
        model,
        images,
        choice(sampled, denominators),
        num_particles,
        beta,
        torch.Generator().manual_seed(3),
    )
    expected = direct_bound(model, images, sampled, denominators, num_particles, beta, seed=3)
    torch.testing.assert_close(value, expected)
    names, parameters = zip(*model.named_parameters(), strict=True)
    slopes = torch.autograd.grad(value, parameters, materialize_grads=True)
    expected_slopes = torch.autograd.grad(expected, parameters, materialize_grads=True)
    for name, slope, expected_slope in zip(names, slopes, expected_slopes, strict=True):
        torch.testing.assert_close(slope, expected_slope, msg=name)


def test_estimators_agree_where_all_components_are_sampled(kind, make_model, generator):
    model = make_model(kind, num_components=4, height=4, width=4)
    images = binary(generator, 3)
    bounds = [
        mean_bound(
            model,
            images,
            choose_components(estimator, 4, 4, np.random.default_rng(0)),
            2,
            1.0,
            torch.Generator().manual_seed(8),
        ).item()
        for estimator in Estimator
    ]
    assert bounds[0] == bounds[1] == bounds[2]


def test_every_parameter_gets_a_finite_gradient(kind, make_model, generator):
    model = make_model(kind, num_components=3, height=4, width=4)
    mean_bound(model, binary(generator, 4), choice([1], [0, 1, 2]), 2, 0.5, generator).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


def grey_images(num_images):
    rng = np.random.default_rng(5)
    return torch.from_numpy(rng.integers(0, 256, (num_images, 4, 4), dtype=np.uint8))


@pytest.fixture
def config(kind, make_config):
    """Six steps of ten images."""
    return MisvaeConfig(
        seed=4,
        model=make_config(kind, height=4, width=4),
        mixture=MixtureConfig(components=5, sampled=2, estimator=Estimator.S2A, particles=2),
        optimisation=OptimisationConfig(epochs=2, batch_size=10, warm_up=0.5, rate=0.01),
        machine={"log_every": 2},
    )


def test_training_resumes_bit_for_bit(config, tmp_path):
    training = grey_images(33)
    uninterrupted = TrainingState.initial(config)
    records = list(train(config, training, uninterrupted))
    assert [record.step for record in records] == [2, 3, 4, 6]
    assert records[-1].epoch == 2.0

    path = tmp_path / "checkpoint.pt"
    for stop in range(4):
        state = TrainingState.initial(config)
        steps = train(config, training, state)
        for _ in range(stop):
            next(steps)
        save_checkpoint(path, config, state)
        loaded_config, model = load_model(path, device="cpu")
        assert loaded_config == config
        for a, b in zip(state.model.parameters(), model.parameters(), strict=True):
            assert torch.equal(a, b)
        resumed_config, resumed = load_checkpoint(path)
        assert resumed_config == config
        rest = list(train(resumed_config, training, resumed))
        for expected, record in zip(records[stop:], rest, strict=True):
            assert replace(record, training_seconds=0.0) == replace(expected, training_seconds=0.0)
        for a, b in zip(uninterrupted.model.parameters(), resumed.model.parameters(), strict=True):
            assert torch.equal(a, b)
        assert torch.equal(uninterrupted.latents.get_state(), resumed.latents.get_state())


@pytest.fixture
def steps_seen(monkeypatch):
    """Images and components of every step that is taken."""
    seen = []

    def spy(model, images, choice, *rest):
        seen.append((images, choice))
        return mean_bound(model, images, choice, *rest)

    monkeypatch.setattr("vbpi_mix.vae.training.mean_bound", spy)
    return seen


def test_a_step_draws_one_set_of_components_for_all_its_images(config, steps_seen):
    list(train(config, grey_images(33), TrainingState.initial(config)))
    assert [len(images) for images, _ in steps_seen] == [10] * 6
    sampled = [tuple(choice.sampled) for _, choice in steps_seen]
    assert all(len(set(one)) == 2 for one in sampled)
    assert len(set(sampled)) > 1


def test_pixels_are_drawn_anew_in_every_step(config, steps_seen):
    grey = torch.full((10, 4, 4), 128, dtype=torch.uint8)
    grey[:, 0], grey[:, 1] = 0, 255
    config = config.model_copy(update={"optimisation": OptimisationConfig(epochs=6, batch_size=10)})
    list(train(config, grey, TrainingState.initial(config)))
    pixels = torch.stack([images for images, _ in steps_seen])
    assert (pixels[:, :, 0] == 0).all()
    assert (pixels[:, :, 1] == 1).all()
    # 480 pixels that are 1 with probability .502, of standard deviation .023 together
    assert 0.4 < pixels[:, :, 2:].mean() < 0.6
    assert all(not torch.equal(a.sort(0).values, b.sort(0).values) for a, b in pairwise(pixels))


def test_seeds_give_different_runs(config):
    other = config.model_copy(update={"seed": 5})
    first, second = (next(train(c, grey_images(33), TrainingState.initial(c))).bound for c in (config, other))
    assert first != second


def test_schedules():
    optimisation = OptimisationConfig(rate=1.0, final_rate=0.5, warm_up=0.4)
    assert optimisation.rate_at(0, 10) == 1.0
    assert optimisation.rate_at(5, 10) == pytest.approx(0.75)
    assert optimisation.rate_at(10, 10) == pytest.approx(0.5)
    weights = [optimisation.divergence_weight(step, 10) for step in range(6)]
    assert weights == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert OptimisationConfig(warm_up=0).divergence_weight(0, 100) == 1.0


def test_a_bound_that_is_not_finite_stops_the_run(config):
    state = TrainingState.initial(config)
    with torch.no_grad():
        state.model.encoder.trunk.bias[:] = math.nan
    with pytest.raises(NonFiniteError, match=r"step 1: expected a finite bound, got nan .* components \["):
        next(train(config, grey_images(33), state))


def test_too_few_images_are_refused(config):
    with pytest.raises(ValueError, match="at least batch_size = 10 training images, got 9"):
        next(train(config, grey_images(9), TrainingState.initial(config)))


def test_images_of_other_sizes_are_refused(config):
    with pytest.raises(ValueError, match=r"expected training images of 4 x 4 pixels, .* got 3 x 4"):
        next(train(config, grey_images(20)[:, 1:], TrainingState.initial(config)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"nothing of the kind", "cannot be read as one"),
        ({"version": 1}, "cannot be read as one"),
        ({"version": 99, "optimiser": {}, "latents": 0}, "version 1, got version 99"),
    ],
)
def test_files_that_are_no_checkpoint_are_refused(tmp_path, content, message):
    path = tmp_path / "checkpoint.pt"
    match content:
        case bytes():
            path.write_bytes(content)
        case dict():
            torch.save(content, path)
    with pytest.raises(RunDirectoryError, match=message):
        load_checkpoint(path)


def test_configuration_survives_json(config):
    assert MisvaeConfig.model_validate(json.loads(config.model_dump_json())) == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"components": 2, "sampled": 3}, "at most the number of components, got 3 of 2"),
        ({"components": 3, "sampled": 2, "estimator": "a2a"}, "samples every component"),
        ({"component": 3}, "Extra inputs are not permitted"),
    ],
)
def test_contradictions_in_the_configuration_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        MixtureConfig(**settings)


def test_number_of_sampled_components():
    assert MixtureConfig(components=7, estimator="a2a").num_sampled == 7
    assert MixtureConfig(components=7, estimator="s2a").num_sampled == 1
    assert MixtureConfig(components=7, estimator="s2s", sampled=3).num_sampled == 3


@pytest.mark.reference
def test_training_on_digits_raises_the_bound(require_reference):
    folder = require_reference("mnist/train-images-idx3-ubyte.gz").parent
    config = MisvaeConfig(
        model={"encoder_channels": 8, "decoder": {"kind": "independent", "hidden": 64, "features": 16}},
        mixture={"components": 3},
        optimisation={"epochs": 1, "batch_size": 50, "warm_up": 0, "rate": 0.01},
        machine={"log_every": 10},
    )
    training = load_images("mnist", folder, 0).training[:2_000]
    bounds = [record.bound for record in train(config, training, TrainingState.initial(config))]
    assert len(bounds) == 4
    assert all(later > earlier for earlier, later in pairwise(bounds))
    assert bounds[-1] > -784 * math.log(2)  # better than a fair coin for each pixel
