"""Claim: value and all gradients under an estimated model cost a small multiple of JC69's.

Ten random trees of DS1, DS7 and the primates of MrBayes' examples, each with model parameters of its own:
log-likelihood, derivatives by branch lengths and by the model's coordinates, one thread, float64 and float32,
in turns in one process with the kernel for JC69 on the same trees. That one also merges the patterns that are
equal up to a relabelling of nucleotides, which no other model allows. "Kernel alone" takes parameters as they
are, without the way from coordinates and back. One JSON file a data set; those that exist are skipped unless
``--again``.

    python benchmarks/model_kernel.py [DS1 DS7 primates] [--seconds 20] [--again]
"""

import argparse
import time
from typing import Any

import numpy as np
from _common import RESULTS, save
from _model_chains import PRIMATES
from _simulate import random_trees
from kernel import NUM_TREES, Call, summary, time_in_turns

from vbpi_mix.alignment import read_alignment
from vbpi_mix.datasets import load_dataset
from vbpi_mix.likelihood.compiled import CompiledJC69Likelihood, CompiledPerTreeLikelihood
from vbpi_mix.likelihood.estimated import EstimatedModelLikelihood
from vbpi_mix.likelihood.model_names import parse_model
from vbpi_mix.likelihood.model_parameters import make_transform
from vbpi_mix.patterns import SitePatterns, compress

DATA = ("DS1", "DS7", "primates")
MODELS = ("HKY+F", "GTR+F", "GTR+F+G4", "GTR+FO+I+G4")
DTYPES = ("float64", "float32")
SPREAD = 0.3
"""Standard deviation of the coordinates of the trees' models about those that training begins with."""


def contestants(
    patterns: SitePatterns, children: np.ndarray, lengths: np.ndarray, dtype: str
) -> dict[str, Call]:
    """What is timed in one precision, by name."""
    jc = CompiledJC69Likelihood(patterns, dtype=dtype)
    calls: dict[str, Call] = {f"JC {dtype}": lambda: jc.value_and_gradient(children, lengths)}

    def add(name: str, likelihood: Any, parameters: Any) -> None:
        calls[name] = lambda: likelihood.value_and_gradients(children, lengths, parameters)

    rng = np.random.default_rng(5)
    for model in MODELS:
        transform = make_transform(parse_model(model), patterns)
        coordinates = rng.normal(transform.start(), SPREAD, (len(children), transform.num_coordinates))
        add(f"{model} {dtype}", EstimatedModelLikelihood(patterns, transform, dtype=dtype), coordinates)
        kernel = CompiledPerTreeLikelihood(patterns, transform.num_categories, dtype=dtype)
        add(f"{model} {dtype}, kernel alone", kernel, transform.parameters(coordinates))
    return calls


def measure(name: str, seconds: float) -> dict[str, Any]:
    """Times of everything on one data set, and medians over JC69's in the same precision."""
    patterns = compress(read_alignment(PRIMATES) if name == "primates" else load_dataset(name))
    children, lengths = random_trees(patterns.num_taxa, NUM_TREES, seed=2)
    calls = {
        key: call for dtype in DTYPES for key, call in contestants(patterns, children, lengths, dtype).items()
    }
    times = {key: summary(spent) for key, spent in time_in_turns(calls, seconds).items()}
    return {
        "dataset": name,
        "num_taxa": patterns.num_taxa,
        "num_patterns": patterns.num_patterns,
        "num_merged_patterns": patterns.merge_relabelled().num_patterns,
        "num_trees": NUM_TREES,
        "milliseconds": times,
        "times_jc": {
            model: {
                dtype: times[f"{model} {dtype}"]["median"] / times[f"JC {dtype}"]["median"]
                for dtype in DTYPES
            }
            for model in MODELS
        },
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="*", metavar="NAME", help=f"of {', '.join(DATA)}; all by default")
    parser.add_argument("--seconds", type=float, default=20.0, help="of timing, for each data set")
    parser.add_argument("--again", action="store_true", help="measure what has been measured already, too")
    chosen = parser.parse_args()
    unknown = set(chosen.data) - set(DATA)
    if unknown:
        parser.error(f"expected names of {', '.join(DATA)}, got {', '.join(sorted(unknown))}")
    for name in chosen.data or DATA:
        if chosen.again or not (RESULTS / f"model_kernel/{name}.json").exists():
            began = time.perf_counter()
            content = measure(name, chosen.seconds)
            save(f"model_kernel/{name}", {**content, "wall_seconds": time.perf_counter() - began})


if __name__ == "__main__":
    main()
