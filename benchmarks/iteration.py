"""Claim: milliseconds an iteration of the compiled engine, and where they go. One thread.

Times steps of training after a warm-up, whole and by part, on one data set or several. A shared machine has
fast and slow minutes, so there are several passes some seconds apart.

    python benchmarks/iteration.py DS1 DS4 [--steps 1500] [--passes 5] [--components 1 --estimator a2a]
"""

import argparse
import time
from collections import defaultdict
from typing import Any

import numpy as np
from _common import save

from vbpi_mix.branches import _kernels as branch_kernels
from vbpi_mix.datasets import dataset_info, load_dataset
from vbpi_mix.likelihood.base import make_likelihood
from vbpi_mix.likelihood.models import jc69
from vbpi_mix.likelihood.priors import ExponentialBranchPrior
from vbpi_mix.patterns import compress
from vbpi_mix.sbn.support import build_support
from vbpi_mix.seeding import RandomStreams
from vbpi_mix.training import _kernels as training_kernels
from vbpi_mix.training import compiled
from vbpi_mix.training import mixture as family
from vbpi_mix.training.config import MixtureConfig, OptimisationConfig
from vbpi_mix.training.state import StepDraw, StepSettings, TrainingState, initial_mixture
from vbpi_mix.trees.samples import read_tree_sample

PARTS: dict[str, tuple[Any, str]] = {
    "sampling": (family, "sample_topologies"),
    "look-up": (family, "index_topologies"),
    "SBN densities": (family, "log_probability"),
    "branch draws": (branch_kernels, "draw"),
    "branch densities": (branch_kernels, "log_density"),
    "branch gradients": (branch_kernels, "backward"),
    "objective": (compiled, "mixture_objective"),
    "SBN gradients": (training_kernels, "topology_counts"),
    "SBN optimiser": (training_kernels, "update_topologies"),
    "branch optimiser": (training_kernels, "update_branches"),
}


def make_engine(
    dataset: str, mixture: MixtureConfig, optimisation: OptimisationConfig
) -> compiled.CompiledEngine:
    """Engine at the start of training."""
    alignment = load_dataset(dataset)
    sample = read_tree_sample(dataset_info(dataset).support_path, alignment.taxa)
    support = build_support(sample.children, alignment.taxa)
    state = TrainingState.initial(initial_mixture(support, sample, mixture, optimisation))
    likelihood = make_likelihood(compress(alignment), jc69())
    return compiled.CompiledEngine(state, likelihood, ExponentialBranchPrior(10.0), mixture, optimisation)


def time_steps(
    engine: compiled.CompiledEngine, mixture: MixtureConfig, optimisation: OptimisationConfig
) -> list[float]:
    """Seconds of every step, random numbers included."""
    streams = RandomStreams.from_seed(0)
    num_taxa = engine.state().mixture.support.num_taxa
    seconds = []
    for step in range(optimisation.iterations):
        began = time.perf_counter()
        engine.step(
            StepDraw.from_streams(streams, mixture, num_taxa), StepSettings.of_step(step, optimisation)
        )
        seconds.append(time.perf_counter() - began)
    return seconds


def breakdown(
    engine: compiled.CompiledEngine, mixture: MixtureConfig, optimisation: OptimisationConfig
) -> dict[str, Any]:
    """Median microseconds of every part of a step; timing them adds a little to each."""
    spent: dict[str, list[float]] = defaultdict(list)

    def timed(function: Any, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            result = function(*args, **kwargs)
            spent[name].append(time.perf_counter() - began)
            return result

        return call

    originals = {name: getattr(module, attribute) for name, (module, attribute) in PARTS.items()}
    likelihood = engine._likelihood
    try:
        for name, (module, attribute) in PARTS.items():
            setattr(module, attribute, timed(originals[name], name))
        likelihood.value_and_gradient = timed(likelihood.value_and_gradient, "likelihood + gradient")  # type: ignore[method-assign]
        total = np.median(time_steps(engine, mixture, optimisation))
    finally:
        for name, (module, attribute) in PARTS.items():
            setattr(module, attribute, originals[name])
        del likelihood.value_and_gradient
    parts = {name: 1e6 * float(np.median(seconds)) for name, seconds in spent.items()}
    return {"total": 1e6 * float(total), **parts, "the rest": 1e6 * float(total) - sum(parts.values())}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("datasets", nargs="+")
    parser.add_argument("--steps", type=int, default=1500, help="steps of a pass")
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--components", type=int, default=1)
    parser.add_argument("--sampled", type=int)
    parser.add_argument("--estimator", default="a2a")
    chosen = parser.parse_args()
    mixture = MixtureConfig(components=chosen.components, sampled=chosen.sampled, estimator=chosen.estimator)
    optimisation = OptimisationConfig(iterations=chosen.steps)
    for dataset in chosen.datasets:
        engine = make_engine(dataset, mixture, optimisation)
        time_steps(engine, mixture, optimisation)
        passes = []
        for _ in range(chosen.passes):
            time.sleep(5)
            passes.append(1e3 * np.array(time_steps(engine, mixture, optimisation)))
        medians = [float(np.median(milliseconds)) for milliseconds in passes]
        save(
            f"iteration/{dataset}.{chosen.estimator}.A{mixture.components}.S{mixture.num_sampled}",
            {
                "dataset": dataset,
                "mixture": mixture.model_dump(mode="json") | {"sampled": mixture.num_sampled},
                "steps": chosen.passes * chosen.steps,
                "milliseconds": {
                    "min": float(np.min(passes)),
                    "median": float(np.median(medians)),
                    "medians_of_passes": medians,
                },
                "breakdown_microseconds": breakdown(engine, mixture, optimisation),
            },
        )


if __name__ == "__main__":
    main()
