"""Claim: alignments of hundreds of taxa are trained to a stable bound, at linear cost, in little memory.

Alignments of 2,000 sites simulated under JC69 along a random tree. The support comes from that tree and the
ends of random walks of nearest-neighbour interchanges that start there: this measures the program at this
size, not how well unknown trees are found. Every size is trained in a process of its own: all for some
steps to time an iteration, some to the end. One JSON file a size; those that exist are skipped unless
``--again``.

    python benchmarks/large.py [100 250 500 1000] [--threads 2] [--again]
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from _common import RESULTS, save
from _simulate import neighbourhood, simulate

from vbpi_mix.api import fit
from vbpi_mix.trees.newick import write_newick
from vbpi_mix.trees.samples import read_tree_sample
from vbpi_mix.trees.topology import Tree

NUM_SITES = 2000
NUM_TREES = 1000
WALK = 8
ITERATIONS = {100: 1000, 250: 6000, 500: 500, 1000: 10_000}
"""Iterations by number of taxa; 250 and 1,000 are trained to the end."""
TIMED = 200
"""First iterations, left out of the time of an iteration: compiled code is being loaded."""
STABLE = 0.1
"""Share of a run, at its end, in which the bound should no longer rise."""


def write_support(children: np.ndarray, taxa: tuple[str, ...], path: Path) -> None:
    """The true topology and its neighbourhood, as a file of Newick trees."""
    trees = neighbourhood(children, NUM_TREES, WALK, seed=3)
    path.write_text("".join(write_newick(Tree(taxa, topology)) + "\n" for topology in trees))


def measure(num_taxa: int, threads: int, folder: Path) -> dict[str, Any]:
    """Training of one size, in this process."""
    alignment, children, _ = simulate(num_taxa, NUM_SITES, seed=1)
    write_support(children, alignment.taxa, folder / "support.nwk")
    began = time.perf_counter()
    sample = read_tree_sample(folder / "support.nwk", alignment.taxa)
    read_seconds = time.perf_counter() - began
    trace: list[tuple[int, float, float, float]] = []
    began, cpu_began = time.perf_counter(), time.process_time()
    fit(
        alignment,
        sample,
        model="JC",
        optimisation={"iterations": ITERATIONS[num_taxa]},
        machine={"threads": threads, "dtype": "float32", "log_every": 50},
        report=lambda p: trace.append((p.step, p.bound, p.inverse_temperature, p.seconds)),
    )
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu_began
    steps, seconds = np.array([t[0] for t in trace]), np.array([t[3] for t in trace])
    per_step = 1e3 * seconds / np.diff(steps, prepend=0)
    return {
        "num_taxa": num_taxa,
        "num_sites": NUM_SITES,
        "num_support_trees": len(sample.weights),
        "threads": threads,
        "dtype": "float32",
        "iterations": ITERATIONS[num_taxa],
        "milliseconds_per_iteration": float(np.median(per_step[steps > TIMED])),
        "read_seconds": read_seconds,
        "set_up_seconds": wall - float(seconds.sum()),
        "training_seconds": float(seconds.sum()),
        "wall_seconds": wall,
        "cpu_seconds": cpu,
        "trace": [{"step": t[0], "bound": t[1], "inverse_temperature": t[2]} for t in trace],
        **settled(trace),
    }


def settled(trace: list[tuple[int, float, float, float]]) -> dict[str, float]:
    """Bound at the end, and how far it still rose: between the means of the halves of the last part."""
    bounds = np.array([t[1] for t in trace if t[2] >= 1.0])
    last = bounds[-max(2, round(STABLE * len(trace))) :]
    half = len(last) // 2
    return {
        "final_bound": float(last.mean()),
        "rise_at_the_end": float(last[half:].mean() - last[:half].mean()),
        "std_at_the_end": float(last.std()),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = ", ".join(map(str, ITERATIONS))
    parser.add_argument("taxa", nargs="*", type=int, help=f"of {known}; all by default")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--again", action="store_true", help="measure what has been measured already, too")
    chosen = parser.parse_args()
    sizes = chosen.taxa or [*ITERATIONS]
    if not set(sizes) <= set(ITERATIONS):
        parser.error(f"expected sizes of {known}, got {chosen.taxa}")
    todo = [n for n in sizes if chosen.again or not (RESULTS / "large" / f"taxa{n:04d}.json").exists()]
    for num_taxa in todo:
        if len(sizes) > 1:  # a process of its own, so that its peak memory is its own
            command = [sys.executable, __file__, str(num_taxa), "--threads", str(chosen.threads)]
            subprocess.run([*command, "--again"], check=True)
        else:
            with tempfile.TemporaryDirectory() as folder:
                measured = measure(num_taxa, chosen.threads, Path(folder))
            measured["peak_memory_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            save(f"large/taxa{num_taxa:04d}", measured)


if __name__ == "__main__":
    main()
