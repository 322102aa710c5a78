"""Claim: the support of 100,000 DS1 trees, file to tables, in at most 5 s.

Makes a file of Newick trees with names and branch lengths from the bundled bootstrap topologies of a data
set, and times reading it and building the support. The first repeat, which may compile, is left out.

    python benchmarks/support.py [--dataset DS1] [--trees 100000] [--repeats 5]
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from _common import save

from vbpi_mix.datasets import dataset_info
from vbpi_mix.sbn.support import build_support
from vbpi_mix.trees.newick import newick_texts, quoted
from vbpi_mix.trees.samples import read_tree_sample


def write_trees(path: Path, dataset: str, num_trees: int) -> None:
    """Write the file to read."""
    sample = read_tree_sample(dataset_info(dataset).support_path)
    rng = np.random.default_rng(0)
    chosen = rng.choice(len(sample.children), num_trees, p=sample.weights / sample.weights.sum())
    lengths = rng.exponential(0.05, (num_trees, 2 * len(sample.taxa) - 3))
    texts = newick_texts(sample.children[chosen], lengths, [quoted(taxon) for taxon in sample.taxa])
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", default="DS1")
    parser.add_argument("--trees", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=5)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trees.nwk"
        write_trees(path, chosen.dataset, chosen.trees)
        read, built = [], []
        for _ in range(chosen.repeats + 1):
            began = time.perf_counter()
            sample = read_tree_sample(path)
            read.append(time.perf_counter() - began)
            began = time.perf_counter()
            support = build_support(sample.children, sample.taxa)
            built.append(time.perf_counter() - began)
        save(
            f"support/{chosen.dataset}.{chosen.trees}",
            {
                "dataset": chosen.dataset,
                "num_trees": chosen.trees,
                "file_megabytes": path.stat().st_size / 1e6,
                "num_topologies": len(sample.children),
                "num_parameters": support.num_parameters,
                "read_seconds": read[1:],
                "build_seconds": built[1:],
            },
        )


if __name__ == "__main__":
    main()
