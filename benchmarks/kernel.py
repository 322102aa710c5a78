"""Claim: the compiled likelihood is near what the processor can do, and linear in taxa and in patterns.

Log-likelihood and all branch derivatives of ten random trees, and of one: DS1 to DS8, and alignments
simulated with 100 to 1,000 taxa. Everything that is compared is timed in turns in the same process. The limit
is the number of additions and multiplications of the algorithm over the peak rate of fused multiply-add,
measured in the same run. With that, the errors of float32, and how the time grows with taxa and patterns.
One JSON file a data set, and one each for the machine, the errors and the growth; those that exist are
skipped unless ``--again``.

    python benchmarks/kernel.py [DS1 ... sim1000 growth errors] [--seconds 12] [--again]
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from _common import RESULTS, save
from _peak import bandwidth, peak_rate
from _simulate import random_trees, simulate
from _textbook import value_and_gradient as by_textbook

from vbpi_mix.datasets import dataset_info, load_dataset
from vbpi_mix.likelihood.base import make_likelihood
from vbpi_mix.likelihood.compiled import CompiledGeneralLikelihood
from vbpi_mix.likelihood.models import discrete_gamma_rates, gtr, jc69
from vbpi_mix.patterns import SitePatterns, compress
from vbpi_mix.trees.samples import read_tree_sample

DATASETS = tuple(f"DS{i}" for i in range(1, 9))
SIMULATED = {f"sim{n}": n for n in (100, 250, 500, 1000)}
NUM_SITES = 2000
NUM_TREES = 10
BURST_SECONDS = 0.04
ROUNDS = 40
Call = Callable[[], Any]


def patterns_of(name: str) -> SitePatterns:
    """Site patterns of a data set, bundled or simulated."""
    alignment = simulate(SIMULATED[name], NUM_SITES, seed=1)[0] if name in SIMULATED else load_dataset(name)
    return compress(alignment)


def operations(num_taxa: int) -> dict[str, int]:
    """Additions and multiplications per pattern and tree under JC69, nothing computed twice.

    Post-order: messages of the leaves (1 + 8), products, sums and messages of the internal nodes (4 + 3 + 9),
    the likelihood and its logarithm (12 + 30). Pre-order: outer partial, its sum and the derivative for every
    branch (4 + 3 + 2), outer messages of the internal nodes (9), the last leaf and the weights (14).
    """
    n = num_taxa
    return {
        "value": 9 * n + 16 * (n - 3) + 42,
        "gradient": 9 * (2 * n - 4) + 9 * (n - 3) + 14,
    }


def contestants(patterns: SitePatterns, children: np.ndarray, lengths: np.ndarray) -> dict[str, Call]:
    """What is timed, by name."""
    calls: dict[str, Call] = {}
    gamma = gtr(
        np.array([0.3, 0.2, 0.22, 0.28]),
        np.array([1.0, 3.0, 0.8, 1.1, 3.5, 1.0]),
        discrete_gamma_rates(0.5, 4),
    )

    def add(name: str, likelihood: Any, value_only: bool = False) -> None:
        calls[name] = lambda: likelihood.value_and_gradient(children, lengths)
        if value_only:
            calls[f"{name}, value alone"] = lambda: likelihood.value(children, lengths)

    for dtype in ("float64", "float32"):
        single = make_likelihood(patterns, jc69(), dtype=dtype)
        add(f"JC {dtype}", single, value_only=True)
        calls[f"JC {dtype}, one tree"] = lambda likelihood=single: likelihood.value_and_gradient(
            children[:1], lengths[:1]
        )
        add(f"JC {dtype}, 2 threads", make_likelihood(patterns, jc69(), dtype=dtype, threads=2))
        add(f"JC as GTR {dtype}", CompiledGeneralLikelihood(patterns, jc69(), dtype=dtype))
        add(f"GTR+G4 {dtype}", CompiledGeneralLikelihood(patterns, gamma, dtype=dtype))
    add("GTR+G4 float64, 2 threads", CompiledGeneralLikelihood(patterns, gamma, threads=2))
    add("torch kernel, JC float64", make_likelihood(patterns, jc69(), engine="torch"))
    leaves = torch.from_numpy((patterns.states[..., None] >> np.arange(4) & 1).astype(float))
    weights = torch.from_numpy(patterns.weights)
    calls["textbook, JC float64"] = lambda: [
        by_textbook(topology, branches, leaves, weights)
        for topology, branches in zip(children, lengths, strict=True)
    ]
    return calls


def time_in_turns(calls: dict[str, Call], seconds: float) -> dict[str, list[float]]:
    """Milliseconds of every call, round by round; each gets an equal share of the seconds.

    The first calls are left out, but for what is so slow that one call uses up its share.
    """
    spent: dict[str, list[float]] = {name: [] for name in calls}
    share = 1e3 * seconds / len(calls)
    for name, call in calls.items():
        began = time.perf_counter()
        call()
        first = 1e3 * (time.perf_counter() - began)
        if first > share:
            spent[name].append(first)
    for _ in range(ROUNDS):
        for name, call in calls.items():
            times = spent[name]
            if sum(times) > share:
                continue
            time.sleep(0.003)  # threads that wait for work have gone to sleep by then
            until = time.perf_counter() + BURST_SECONDS
            while True:
                began = time.perf_counter()
                call()
                ended = time.perf_counter()
                times.append(1e3 * (ended - began))
                if ended > until:
                    break
    return spent


def summary(times: list[float]) -> dict[str, float]:
    """Median, minimum and number of some times."""
    return {"median": float(np.median(times)), "min": float(np.min(times)), "calls": len(times)}


def measure(name: str, seconds: float) -> dict[str, Any]:
    """Times of everything on one data set."""
    patterns = patterns_of(name)
    children, lengths = random_trees(patterns.num_taxa, NUM_TREES, seed=2)
    calls = contestants(patterns, children, lengths)
    values = {key: np.atleast_1d(call()[0]) for key, call in calls.items() if key.startswith("JC float64")}
    np.testing.assert_allclose(
        values["JC float64"], np.atleast_1d(calls["torch kernel, JC float64"]()[0]), rtol=1e-9
    )
    expected = np.array([pair[0] for pair in calls["textbook, JC float64"]()])
    is_known = np.isfinite(expected)  # the textbook does not scale, and underflows with hundreds of taxa
    np.testing.assert_allclose(values["JC float64"][is_known], expected[is_known], rtol=1e-9)
    num_merged = patterns.merge_relabelled().num_patterns
    counts = operations(patterns.num_taxa)
    peaks = {dtype: peak_rate(dtype) for dtype in ("float64", "float32")}
    work = NUM_TREES * num_merged
    return {
        "dataset": name,
        "num_taxa": patterns.num_taxa,
        "num_patterns": patterns.num_patterns,
        "num_merged_patterns": num_merged,
        "num_trees": NUM_TREES,
        "textbook_underflows": not is_known.all(),
        "milliseconds": {key: summary(times) for key, times in time_in_turns(calls, seconds).items()},
        "operations_per_pattern_and_tree": counts,
        "peak_operations_per_second": peaks,
        "limit_milliseconds": {
            dtype: {
                "value": 1e3 * work * counts["value"] / peak,
                "value and gradient": 1e3 * work * sum(counts.values()) / peak,
            }
            for dtype, peak in peaks.items()
        },
    }


def linear_fit(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Least-squares line and its R^2; and the exponent of a power law."""
    slope, intercept = np.polyfit(x, y, 1)
    residual = y - intercept - slope * x
    return {
        "slope": float(slope),
        "intercept": float(intercept),
        "r_squared": float(1.0 - residual.var() / y.var()),
        "exponent": float(np.polyfit(np.log(x), np.log(y), 1)[0]),
    }


def growth(seconds: float) -> dict[str, Any]:
    """How the time of JC float64 and float32, one thread, grows with taxa and with patterns."""
    calls: dict[str, dict[str, Call]] = {"taxa": {}, "patterns": {}}
    sizes: dict[str, list[int]] = {"taxa": [], "patterns": []}
    per_thousand: dict[str, float] = {}
    for num_taxa in SIMULATED.values():
        patterns = patterns_of(f"sim{num_taxa}")
        sizes["taxa"].append(num_taxa)
        per_thousand[f"taxa {num_taxa}"] = 1e3 / patterns.merge_relabelled().num_patterns
        _add_sizes(calls["taxa"], f"taxa {num_taxa}", patterns)
    whole = patterns_of("DS7").merge_relabelled()
    order = np.random.default_rng(3).permutation(whole.num_patterns)
    for part in (128, 256, 384, 512, 640, 768, 896):
        chosen = np.sort(order[:part])
        few = SitePatterns(whole.taxa, np.ascontiguousarray(whole.states[:, chosen]), whole.weights[chosen])
        sizes["patterns"].append(part)
        _add_sizes(calls["patterns"], f"patterns {part}", few)
    result: dict[str, Any] = {}
    for kind, kind_calls in calls.items():
        times = time_in_turns(kind_calls, seconds)
        for dtype in ("float64", "float32"):
            best = [float(np.median(times[f"{kind} {size} {dtype}"])) for size in sizes[kind]]
            if kind == "taxa":  # the alignments differ a little in their number of distinct patterns
                best = [b * per_thousand[f"taxa {s}"] for b, s in zip(best, sizes[kind], strict=True)]
            fit = linear_fit(np.array(sizes[kind], float), np.array(best))
            result[f"{kind} {dtype}"] = {"sizes": sizes[kind], "milliseconds": best, "fit": fit}
    return {"num_trees": NUM_TREES, "growth": result}


def _add_sizes(calls: dict[str, Call], name: str, patterns: SitePatterns) -> None:
    children, lengths = random_trees(patterns.num_taxa, NUM_TREES, seed=2)
    for dtype in ("float64", "float32"):
        likelihood = make_likelihood(patterns, jc69(), dtype=dtype)
        calls[f"{name} {dtype}"] = lambda likelihood=likelihood: likelihood.value_and_gradient(
            children, lengths
        )


def good_trees(name: str, patterns: SitePatterns) -> tuple[np.ndarray, np.ndarray]:
    """The most frequent bootstrap topologies, their branch lengths after some steps uphill."""
    sample = read_tree_sample(dataset_info(name).support_path, patterns.taxa)
    children = np.ascontiguousarray(sample.children[:NUM_TREES])
    likelihood = make_likelihood(patterns, jc69())
    logs = np.full((len(children), 2 * patterns.num_taxa - 3), -3.5)
    first, second = np.zeros_like(logs), np.zeros_like(logs)
    for step in range(1, 301):
        lengths = np.exp(logs)
        gradient = (likelihood.value_and_gradient(children, lengths)[1] - 10.0) * lengths + 1.0
        first = 0.9 * first + 0.1 * gradient
        second = 0.99 * second + 0.01 * gradient**2
        logs += 0.05 * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.99**step)) + 1e-8)
    return children, np.exp(logs)


def errors() -> dict[str, Any]:
    """Float32 against float64: nats, and derivatives by the logarithms of the branch lengths."""
    result = {}
    for name in DATASETS:
        patterns = patterns_of(name)
        exact, single = (make_likelihood(patterns, jc69(), dtype=d) for d in ("float64", "float32"))
        kinds = {
            "random": random_trees(patterns.num_taxa, NUM_TREES, seed=4),
            "good": good_trees(name, patterns),
        }
        result[name] = {}
        for kind, (children, lengths) in kinds.items():
            (values, gradients), (values32, gradients32) = (
                likelihood.value_and_gradient(children, lengths) for likelihood in (exact, single)
            )
            by_log, by_log32 = gradients * lengths, gradients32 * lengths
            result[name][kind] = {
                "log_likelihood": float(values.mean()),
                "max_error_nats": float(np.abs(values32 - values).max()),
                "rms_error_nats": float(np.sqrt(np.mean((values32 - values) ** 2))),
                "max_error_derivative": float(np.abs(by_log32 - by_log).max()),
                "rms_derivative": float(np.sqrt(np.mean(by_log**2))),
                "max_derivative": float(np.abs(by_log).max()),
            }
    return {"num_trees": NUM_TREES, "errors": result}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    every = [*DATASETS, *SIMULATED, "growth", "errors", "machine"]
    parser.add_argument("what", nargs="*", metavar="NAME", help=f"of {', '.join(every)}; all by default")
    parser.add_argument("--seconds", type=float, default=12.0, help="of timing, for each data set")
    parser.add_argument("--again", action="store_true", help="measure what has been measured already, too")
    chosen = parser.parse_args()
    unknown = set(chosen.what) - set(every)
    if unknown:
        parser.error(f"expected names of {', '.join(every)}, got {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    for name in chosen.what or every:
        if not chosen.again and (RESULTS / "kernel" / f"{name}.json").exists():
            continue
        began, cpu_began = time.perf_counter(), time.process_time()
        match name:
            case "growth":
                content = growth(chosen.seconds)
            case "errors":
                content = errors()
            case "machine":
                peaks = {dtype: peak_rate(dtype) for dtype in ("float64", "float32")}
                content = {
                    "peak_operations_per_second": peaks,
                    "memory_bytes_per_second": bandwidth(),
                }
            case _:
                content = measure(name, chosen.seconds)
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu_began
        save(f"kernel/{name}", {**content, "wall_seconds": wall, "cpu_seconds": cpu})


if __name__ == "__main__":
    main()
