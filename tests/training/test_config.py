"""Configuration: defaults, refusals, schedules."""

import pytest
from pydantic import ValidationError

from vbpi_mix.likelihood.model_parameters import ModelPriors
from vbpi_mix.objectives.estimators import Estimator
from vbpi_mix.objectives.gradients import BranchGradient
from vbpi_mix.training.config import (
    PUBLISHED_RECIPE,
    CosineDecay,
    LinearAnnealing,
    MixtureConfig,
    OptimisationConfig,
    RunConfig,
    StepDecay,
)
from vbpi_mix.training.state import StepSettings

DATA = {"data": {"dataset": "DS1"}}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data": {}}, "either an alignment file or a data set"),
        ({"data": {"dataset": "DS1", "alignment": "x.fasta"}}, "either an alignment file or a data set"),
        ({**DATA, "mixture": {"components": 3, "sampled": 4, "estimator": "s2a"}}, "--sampled.* got 4 of 3"),
        ({**DATA, "mixture": {"components": 3, "sampled": 1, "estimator": "a2a"}}, "samples every component"),
        ({**DATA, "mixture": {"components": 0}}, "greater than or equal to 1"),
        ({**DATA, "mixture": {"componentz": 2}}, "Extra inputs are not permitted"),
        ({**DATA, "machine": {"engine": "compiled", "device": "cuda"}}, "use the engine torch"),
        ({**DATA, "optimisation": {"iterations": 0}}, "greater than or equal to 1"),
        ({**DATA, "optimisation": {"branch_rate": float("inf")}}, "finite number"),
        ({**DATA, "data": {"dataset": "DS1", "branch_prior_rate": float("nan")}}, "finite number"),
        ({"data": {"dataset": "DS1", "model": "HKY+FF"}}, r"cannot read \+FF"),
        ({"data": {"dataset": "DS1", "priors": {"shape_rate": 0.0}}}, "greater than 0"),
        ({"data": {"dataset": "DS1", "model": "K80"}, "machine": {"engine": "torch"}}, "torch engine takes"),
        ({**DATA, "seed": -1}, "greater than or equal to 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        RunConfig.model_validate(settings)


@pytest.mark.parametrize(("estimator", "expected"), [("a2a", 5), ("s2a", 1), ("s2s", 1)])
def test_sampled_components_by_default(estimator, expected):
    mixture = MixtureConfig(components=5, estimator=estimator)
    assert mixture.num_sampled == expected
    assert mixture.sampled is None  # so that it follows a change of the components
    assert mixture.estimator is Estimator(estimator)


@pytest.mark.parametrize(
    ("data", "model"),
    [
        ({"dataset": "DS1"}, "JC"),
        ({"alignment": "x.fasta"}, "GTR+F+G4"),
        ({"alignment": "x.fasta", "model": "hky85{2}+i"}, "HKY{2}+F+I"),
    ],
)
def test_the_model_is_recorded_by_its_name(data, model):
    config = RunConfig.model_validate({"data": data})
    assert config.data.model == model
    assert RunConfig.model_validate_json(config.model_dump_json()) == config


def test_priors_are_those_of_mrbayes_or_as_set():
    assert RunConfig.model_validate(DATA).data.priors.densities() == ModelPriors(1.0, 1.0, 1.0)
    data = {"dataset": "DS1", "priors": {"frequencies": 10.0, "shape_rate": 2.0}}
    assert RunConfig.model_validate({"data": data}).data.priors.densities() == ModelPriors(1.0, 10.0, 2.0)


def test_a_configuration_survives_json():
    config = RunConfig.model_validate({**DATA, **PUBLISHED_RECIPE, "seed": 3})
    assert RunConfig.model_validate_json(config.model_dump_json()) == config


def test_published_recipe_is_the_literatures():
    optimisation = RunConfig.model_validate({**DATA, **PUBLISHED_RECIPE}).optimisation
    assert optimisation.iterations == 400_000
    # min(1, 0.001 + t / 100,000), to within the linear form's slope of 0.999e-5
    assert optimisation.annealing.inverse_temperature(0, 400_000) == 0.001
    assert optimisation.annealing.inverse_temperature(50_000, 400_000) == pytest.approx(0.501, abs=0.001)
    assert optimisation.annealing.inverse_temperature(100_000, 400_000) == 1.0
    rates = [StepSettings.of_step(t, optimisation).topology_rate for t in (0, 19_999, 20_000, 399_999)]
    assert rates == pytest.approx([0.001, 0.001, 0.00075, 0.001 * 0.75**19])


def test_schedules():
    annealing = LinearAnnealing(initial=0.2, fraction=0.5)
    assert [annealing.inverse_temperature(t, 100) for t in (0, 25, 50, 99)] == pytest.approx(
        [0.2, 0.6, 1.0, 1.0]
    )
    assert LinearAnnealing(steps=0).inverse_temperature(0, 10) == 1.0
    assert [CosineDecay(final=0.1).factor(t, 100) for t in (0, 50, 100)] == pytest.approx([1.0, 0.55, 0.1])
    assert [StepDecay(ratio=0.5, every=10).factor(t, 100) for t in (9, 10, 25)] == [1.0, 0.5, 0.25]


def test_branch_gradient_changes_when_annealing_ends():
    optimisation = OptimisationConfig(iterations=100, annealing=LinearAnnealing(fraction=0.5))
    kinds = [StepSettings.of_step(t, optimisation).branch_gradient for t in (0, 49, 50)]
    assert kinds == [BranchGradient.PATH, BranchGradient.PATH, BranchGradient.DOUBLY_REPARAMETERISED]


def test_later_rounds_are_the_first_one_stretched():
    thrice = OptimisationConfig(iterations=100, rounds=3)
    assert thrice.num_steps == 100 + 200 + 400
    for start, length in ((0, 100), (100, 200), (300, 400)):
        alone = OptimisationConfig(iterations=length)
        for step in (0, 1, length // 2, length - 1):
            assert StepSettings.of_step(start + step, thrice) == StepSettings.of_step(step, alone)
