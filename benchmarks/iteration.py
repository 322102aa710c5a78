"""Claim: milliseconds an iteration of the compiled engine, where they go, and how they grow with mixtures.

For each data set one component, mixtures of several sizes by every estimator, single precision, and (DS1,
DS7) two threads; on DS1 also a textbook implementation of a step with one component. All configurations take
turns within every pass, so that a ratio compares times from the same seconds; what is quoted is the median
over passes of such ratios, and medians of steps.

    python benchmarks/iteration.py [DS1 DS7 ...] [--passes 7] [--seconds 0.25] [--again]
"""

import argparse
import itertools
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from _common import RESULTS, save
from _textbook_step import TextbookStep

from vbpi_mix.datasets import dataset_info, load_dataset
from vbpi_mix.likelihood.base import make_likelihood
from vbpi_mix.likelihood.models import jc69
from vbpi_mix.likelihood.priors import ExponentialBranchPrior
from vbpi_mix.objectives.estimators import Estimator
from vbpi_mix.objectives.gradients import mixture_objective
from vbpi_mix.patterns import SitePatterns, compress
from vbpi_mix.sbn._probability_kernels import log_probability
from vbpi_mix.sbn._sampling_kernels import sample_topologies
from vbpi_mix.sbn._support_kernels import index_topologies
from vbpi_mix.sbn.support import Support, build_support
from vbpi_mix.seeding import RandomStreams
from vbpi_mix.training import _kernels
from vbpi_mix.training.compiled import CompiledEngine
from vbpi_mix.training.config import MixtureConfig, OptimisationConfig
from vbpi_mix.training.state import StepDraw, StepSettings, TrainingState, initial_mixture
from vbpi_mix.trees.samples import TreeSample, read_tree_sample

DATASETS = tuple(f"DS{i}" for i in range(1, 9))
STEPS = 4_000
"""Length of the schedule that steps belong to; the measured ones are spread over it."""
WARM_UP = 100
BREAKDOWN_STEPS = 100


@dataclass(frozen=True)
class Configuration:
    """What is timed."""

    estimator: str = "a2a"
    components: int = 1
    sampled: int = 1
    dtype: str = "float64"
    threads: int = 1

    @property
    def name(self) -> str:
        """Such as s2a.A50.S1.float64.t1."""
        return f"{self.estimator}.A{self.components}.S{self.sampled}.{self.dtype}.t{self.threads}"


def configurations(dataset: str) -> list[Configuration]:
    """All that is timed on a data set; the first is what the others are compared with."""
    threads = (1, 2) if dataset in ("DS1", "DS7") else (1,)
    single = [Configuration(dtype=d, threads=t) for d in ("float64", "float32") for t in threads]
    all_of_all = [Configuration("a2a", a, a) for a in (2, 3, 5)]
    some = [
        Configuration(estimator, a, s)
        for estimator, s, a in itertools.product(("s2a", "s2s"), (1, 2), (3, 10, 50, 200))
    ]
    return single + all_of_all + some


class Course:
    """Training of one configuration, a few steps at a time."""

    def __init__(
        self, configuration: Configuration, patterns: SitePatterns, support: Support, sample: TreeSample
    ) -> None:
        """Engine at the start of training."""
        self.configuration = configuration
        self.mixture = MixtureConfig(
            estimator=Estimator(configuration.estimator),
            components=configuration.components,
            sampled=configuration.sampled,
        )
        self.optimisation = OptimisationConfig(iterations=STEPS)
        self.likelihood = make_likelihood(
            patterns, jc69(), threads=configuration.threads, dtype=configuration.dtype
        )
        state = TrainingState.initial(initial_mixture(support, sample, self.mixture, self.optimisation))
        self.prior = ExponentialBranchPrior(10.0)
        self.engine = CompiledEngine(state, self.likelihood, self.prior, self.mixture, self.optimisation)
        self.streams = RandomStreams.from_seed(0)
        self.num_taxa = support.num_taxa
        self.num_steps = 0

    def step(self, where: float) -> float:
        """Seconds of one step at a place of the schedule, random numbers included."""
        began = time.perf_counter()
        draw = StepDraw.from_streams(self.streams, self.mixture, self.num_taxa)
        settings = StepSettings.of_step(int(where * (STEPS - 1)), self.optimisation)
        self.engine.step(draw, settings)
        self.num_steps += 1
        return time.perf_counter() - began

    def breakdown(self, where: float) -> dict[str, float]:
        """Microseconds of a step and of each of its parts, done once more one by one on the same trees."""
        draw = StepDraw.from_streams(self.streams, self.mixture, self.num_taxa)
        settings = StepSettings.of_step(int(where * (STEPS - 1)), self.optimisation)
        began = time.perf_counter()
        self.engine.step(draw, settings)
        total = time.perf_counter() - began
        spent = {name: _seconds_of(part) for name, part in self._parts(draw, settings).items()}
        spent["the rest"] = total - sum(spent.values())
        return {"total": 1e6 * total} | {name: 1e6 * seconds for name, seconds in spent.items()}

    def _parts(self, draw: StepDraw, settings: StepSettings) -> dict[str, Callable[[], Any]]:
        """The parts of the last step as functions to call in this order."""
        engine = self.engine
        state, denominators, component_of_tree = engine._concerned(draw)
        sampler, networks, branches = engine._sampler, state.mixture.networks, state.mixture.branches
        topologies, support, num_sampled = sampler.topologies, state.mixture.support, self.mixture.num_sampled
        generator_of_tree = denominators.searchsorted(component_of_tree)
        shape = (num_sampled, -1, len(denominators))
        log_q, table, skewed = networks.log_q.T, branches.by_feature, branches.is_skewed
        log_joint = (settings.inverse_temperature * engine._log_likelihood).reshape(num_sampled, -1)
        log_density = (sampler.log_topology + sampler.log_branches).reshape(shape)

        def objective() -> Any:
            return mixture_objective(
                log_joint,
                log_density,
                draw.choice.generator,
                settings.topology_gradient,
                settings.branch_gradient,
            )

        cotangents = objective()
        num_trees = len(draw.noise)
        d_log_lengths = np.ones_like(draw.noise)

        def branch_densities() -> None:
            _kernels.draw_branches(
                table, skewed, sampler.is_all, topologies.feature_index, component_of_tree, denominators,
                draw.noise, sampler.branch_work, sampler.all_components, sampler.log_lengths,
                sampler.branch_lengths, sampler.log_branches,
            )  # fmt: skip

        return {
            "random numbers": lambda: StepDraw.from_streams(self.streams, self.mixture, self.num_taxa),
            "sampling": lambda: sample_topologies(
                support.tables, networks.q, component_of_tree, draw.uniforms, topologies.children,
                sampler._split, sampler._tripartition, sampler._node_work,
            ),
            "look-up": lambda: index_topologies(
                support.tables, topologies.children, sampler._split, sampler._tripartition,
                state.mixture.with_psp, *topologies[1:],
            ),
            "SBN densities": lambda: log_probability(
                log_q, denominators, generator_of_tree, *topologies[:3], sampler.below, sampler.rooting,
                sampler.posterior, sampler.log_topology,
            ),
            "branch draws and densities": branch_densities,
            "likelihood + gradient": lambda: self.likelihood.value_and_gradient(
                topologies.children, sampler.branch_lengths, out=(engine._log_likelihood, engine._d_branch)
            ),
            "objective": objective,
            "SBN gradient and optimiser": lambda: _kernels.ascend_topologies(
                0.0, True, cotangents.d_topology.reshape(num_trees, -1), denominators, generator_of_tree,
                sampler.posterior, *topologies[:3], support.parent_start, support.tables.parameter_parent,
                networks.logits, log_q, networks.q, state.topology_moments, state.topology_updates,
                sampler.below, sampler.rooting, engine._topology_scratch,
            ),
            "branch gradient and optimiser": lambda: _kernels.ascend_branches(
                0.0, True, table, skewed, sampler.is_all, topologies.feature_index, sampler.log_lengths,
                denominators, generator_of_tree, cotangents.d_path.reshape(num_trees, -1),
                cotangents.d_score_branch.reshape(num_trees, -1), d_log_lengths,
                state.branch_moments.transpose(1, 2, 3, 0), state.branch_updates.T, sampler.branch_work,
                sampler.all_components, engine._branch_scratch,
            ),
        }  # fmt: skip


def _seconds_of(part: Callable[[], Any]) -> float:
    began = time.perf_counter()
    part()
    return time.perf_counter() - began


def measure(dataset: str, num_passes: int, seconds: float) -> dict[str, Any]:
    """Steps of all configurations, in turns; the first passes are in the annealing, the last after it."""
    alignment = load_dataset(dataset)
    sample = read_tree_sample(dataset_info(dataset).support_path, alignment.taxa)
    support, patterns = build_support(sample.children, alignment.taxa), compress(alignment)
    courses = [Course(c, patterns, support, sample) for c in configurations(dataset)]
    for course in courses:
        for _ in range(WARM_UP if course.configuration.components == 1 else WARM_UP // 5):
            course.step(0.0)
    medians: dict[str, list[float]] = defaultdict(list)
    smallest: dict[str, float] = {}
    for number in range(num_passes):
        for course in courses:
            milliseconds = []
            stop = time.perf_counter() + seconds
            while time.perf_counter() < stop or len(milliseconds) < 5:
                milliseconds.append(1e3 * course.step((number + 0.5) / num_passes))
            name = course.configuration.name
            medians[name].append(float(np.median(milliseconds)))
            smallest[name] = min(smallest.get(name, np.inf), min(milliseconds))
    reference = np.array(medians[courses[0].configuration.name])
    results = []
    for course in courses:
        name = course.configuration.name
        parts = [course.breakdown(0.5) for _ in range(BREAKDOWN_STEPS)]
        results.append(
            {
                "name": name,
                **course.configuration.__dict__,
                "steps": course.num_steps,
                "milliseconds": {
                    "min": smallest[name],
                    "median": float(np.median(medians[name])),
                    "medians_of_passes": medians[name],
                },
                "ratio_to_one_component": float(np.median(np.array(medians[name]) / reference)),
                "breakdown_microseconds": {
                    part: float(np.median([one[part] for one in parts])) for part in parts[0]
                },
            }
        )
    content: dict[str, Any] = {
        "dataset": dataset,
        "num_taxa": alignment.num_taxa,
        "num_patterns": patterns.merge_relabelled().num_patterns,
        "num_parameters": support.num_parameters,
        "particles": MixtureConfig().particles,
        "passes": num_passes,
        "configurations": results,
    }
    if dataset == "DS1":
        content["textbook"] = measure_textbook(support, patterns, courses[0])
    return content


def measure_textbook(support: Support, patterns: SitePatterns, course: Course) -> dict[str, Any]:
    """The textbook's steps, and some of ours between them."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    textbook = TextbookStep(support, patterns, MixtureConfig().particles)
    textbook()
    theirs, ratios = [], []
    for _ in range(10):
        began = time.perf_counter()
        textbook()
        theirs.append(1e3 * (time.perf_counter() - began))
        ratios.append(theirs[-1] / (1e3 * float(np.median([course.step(0.5) for _ in range(50)]))))
    return {"milliseconds": float(np.median(theirs)), "ratio_to_ours": float(np.median(ratios))}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("datasets", nargs="*", default=list(DATASETS))
    parser.add_argument("--passes", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.25, help="time of a configuration in each pass")
    parser.add_argument("--again", action="store_true", help="measure what is measured already")
    chosen = parser.parse_args()
    for dataset in chosen.datasets:
        name = f"iteration/{dataset}"
        if chosen.again or not (RESULTS / f"{name}.json").exists():
            save(name, measure(dataset, chosen.passes, chosen.seconds))


if __name__ == "__main__":
    main()
