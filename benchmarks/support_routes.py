"""Claim: each way to make a support's trees, and how much of the golden posteriors of DS1 to DS4 it covers.

For every data set and route it makes the trees (one seed, one thread), builds the support, and adds up the
golden probabilities (``VBPI_MIX_REFERENCE``) of the topologies that the support holds, and of those that are
among the trees themselves. With ``--grow`` it trains on that support besides, grows it, and looks again; with
``--spoil`` all trees are taken out first that have one split, the least probable one of the best topology.
What has a result is skipped unless ``--again``, and routes whose program is absent are passed over.

    python benchmarks/support_routes.py DS1 DS2 DS3 DS4 [--routes ...] [--grow] [--spoil] [--again]
        [-- options of vbpi-mix run]
"""

import argparse
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _common import RESULTS, save, split_options, without_local_paths
from _program import run_program

from vbpi_mix.alignment import Alignment
from vbpi_mix.datasets import dataset_info, load_dataset
from vbpi_mix.results.comparison import match_topologies
from vbpi_mix.sbn.network import SubsplitNetworks
from vbpi_mix.sbn.support import build_support
from vbpi_mix.training.checkpoint import Checkpoint
from vbpi_mix.training.joining_trees import joined_trees
from vbpi_mix.training.piqtree_trees import has_piqtree, piqtree_trees
from vbpi_mix.training.support_routes import SupportRoute
from vbpi_mix.training.support_trees import bootstrap_trees, has_iqtree, support_table
from vbpi_mix.trees.samples import TreeSample, read_tree_sample
from vbpi_mix.trees.topology import clade_masks

ROUTES: dict[str, Callable[[str, Alignment], TreeSample]] = {
    SupportRoute.BUNDLED: lambda name, data: read_tree_sample(dataset_info(name).support_path, data.taxa),
    SupportRoute.IQTREE: lambda name, data: bootstrap_trees(data, seed=1),
    SupportRoute.PIQTREE: lambda name, data: piqtree_trees(data, seed=1),
    SupportRoute.NEIGHBOUR_JOINING: lambda name, data: joined_trees(data, seed=1),
}
"""What makes trees of a data set by each route."""


def is_open(route: str) -> bool:
    """Whether the program that a route needs is there."""
    needs = {SupportRoute.IQTREE: has_iqtree, SupportRoute.PIQTREE: has_piqtree}
    return needs[SupportRoute(route)]() if route in needs else True


def processor_seconds() -> float:
    """Processor time of this process and of those it has waited for."""
    usage = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in usage)


def coverage(sample: TreeSample, golden: TreeSample) -> dict[str, Any]:
    """Golden probability that a support and its trees hold, and their sizes."""
    support = build_support(sample.children, sample.taxa)
    networks = SubsplitNetworks.from_logits(support, np.zeros((1, support.num_parameters)))
    share = golden.weights / golden.weights.sum()
    is_inside = np.isfinite(networks.log_mixture_probability_of(golden.children))
    return {
        "num_topologies": len(sample.children),
        "num_parameters": support.num_parameters,
        "coverage": float(share[is_inside].sum()),
        "coverage_of_trees": float(share[match_topologies(golden.children, sample.children) >= 0].sum()),
    }


def spoilt(sample: TreeSample, golden: TreeSample) -> TreeSample:
    """The sample without the trees that have one split of the best topology, the least probable one."""
    masks = clade_masks(golden.children)
    inner = masks[np.argmax(golden.weights), len(golden.taxa) :]
    least = min(inner, key=lambda mask: golden.weights[_have(masks, mask)].sum())
    kept = ~_have(clade_masks(sample.children), least)
    return TreeSample(sample.taxa, sample.children[kept], sample.weights[kept], sample.source)


def _have(masks: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Whether each of the trees with these masks [tree, edge, word] has a split."""
    return (masks == mask).all(axis=2).any(axis=1)


def grown(dataset: str, sample: TreeSample, golden: TreeSample, options: list[str]) -> dict[str, Any]:
    """A run that begins with these trees and grows its support: what it took, and what it covers then."""
    with tempfile.TemporaryDirectory(prefix="routes-") as folder:
        trees, out = Path(folder) / "support.trees.tsv.gz", Path(folder) / "run"
        trees.write_bytes(support_table(sample))
        own = ["--dataset", dataset, "--support", str(trees), "--grow-support", *options, "--quiet"]
        result = run_program(dataset, own, out)["result"]
        after = coverage(Checkpoint.load(out / "checkpoint.pt").sample, golden)
    kept = ("support_growth", "marginal_log_likelihood", "pareto_k", "iterations", "seconds")
    return {**after, "options": without_local_paths(options), **{name: result[name] for name in kept}}


def measure(dataset: str, route: str, spoil: bool, grow: bool, options: list[str]) -> dict[str, Any]:
    """Trees by one route, and what of the golden posterior they cover."""
    data = load_dataset(dataset)
    golden = Path(os.environ["VBPI_MIX_REFERENCE"]) / "golden" / f"{dataset}.tsv.gz"
    reference = read_tree_sample(golden, data.taxa)
    began, processor = time.perf_counter(), processor_seconds()
    sample = ROUTES[route](dataset, data)
    took = {"seconds": time.perf_counter() - began, "processor_seconds": processor_seconds() - processor}
    if spoil:
        sample = spoilt(sample, reference)
    return {
        "dataset": dataset,
        "route": str(route),
        "is_spoilt": spoil,
        "source": sample.source if route != SupportRoute.BUNDLED else "bundled",
        **took,
        **coverage(sample, reference),
        "grown": grown(dataset, sample, reference, options) if grow else None,
    }


def main() -> None:
    """Command line."""
    arguments, options = split_options(sys.argv[1:])
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("datasets", nargs="+")
    parser.add_argument("--routes", nargs="+", choices=[str(route) for route in ROUTES], default=list(ROUTES))
    parser.add_argument("--grow", action="store_true", help="train on each support and grow it, too")
    parser.add_argument("--spoil", action="store_true", help="take out a split of the best topology first")
    parser.add_argument("--again", action="store_true", help="measure what has been measured already, too")
    chosen = parser.parse_args(arguments)
    for route in filter(is_open, chosen.routes):
        for dataset in chosen.datasets:
            name = f"support_routes/{dataset}.{route}" + (".spoilt" if chosen.spoil else "")
            if chosen.again or not (RESULTS / f"{name}.json").exists():
                save(name, measure(dataset, route, chosen.spoil, chosen.grow, options))


if __name__ == "__main__":
    main()
