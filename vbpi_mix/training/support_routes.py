"""Where the support's trees come from: the best route that is open, with what it took and what it gave.

In this order: a file of the user's, bundled trees, all topologies of a few taxa, IQ-TREE on the PATH,
piqtree, and what the package can do by itself, which is labelled as the fallback that it is. Taxa without
data are kept out of the making of trees, and put on their branches afterwards.
"""

import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np

from vbpi_mix.alignment import Alignment
from vbpi_mix.errors import TreeFormatError
from vbpi_mix.training.grafted_trees import graft_taxa, without_empty_taxa
from vbpi_mix.training.joining_trees import joined_trees
from vbpi_mix.training.piqtree_trees import has_piqtree, piqtree_trees
from vbpi_mix.training.support_trees import (
    INSTALL_IQTREE,
    MAX_ENUMERATED_TAXA,
    bootstrap_trees,
    every_topology,
    has_iqtree,
)
from vbpi_mix.trees.samples import TreeSample, read_tree_sample


class SupportRoute(StrEnum):
    """Where trees for a support may come from."""

    GIVEN = "given"
    BUNDLED = "bundled"
    ENUMERATED = "enumerated"
    IQTREE = "iqtree"
    PIQTREE = "piqtree"
    NEIGHBOUR_JOINING = "neighbour-joining"


ANNOUNCEMENTS = {
    SupportRoute.IQTREE: "making bootstrap trees with IQ-TREE for the support (this may take minutes)",
    SupportRoute.PIQTREE: "making bootstrap trees with piqtree for the support (this may take minutes)",
    SupportRoute.NEIGHBOUR_JOINING: "making trees for the support by neighbour joining (a minute or so)",
}
"""What to say before a route that takes time."""


FALLBACK_ADVICE = (
    f"a fallback, since IQ-TREE was not found: {INSTALL_IQTREE}, or pip install 'vbpi-mix[support]', or "
    "give a file of trees with --support"
)
"""What the fallback is, and what would give better trees."""


@dataclass(frozen=True)
class SupportTrees:
    """Trees for a support, and how they were come by.

    Attributes:
        sample: The distinct topologies with their weights; its source says how to make them again.
        route: Where they come from.
        seconds: Wall-clock time that it took.
        advice: What would give better trees; None where nothing is amiss.
    """

    sample: TreeSample
    route: SupportRoute
    seconds: float
    advice: str | None

    @property
    def num_trees(self) -> float:
        """Sum of the weights: bootstrap trees, where every tree counts as one."""
        return float(self.sample.weights.sum())

    @property
    def num_topologies(self) -> int:
        """Number of distinct topologies."""
        return len(self.sample.children)

    def summary(self) -> str:
        """One line for a log."""
        return (
            f"support by route {self.route}: {self.num_trees:,.0f} trees, {self.num_topologies:,} distinct "
            f"topologies ({self.seconds:.1f} s)"
        )


def choose_route(
    alignment: Alignment, given: Path | None = None, bundled: Path | None = None
) -> SupportRoute:
    """The route that `find_support` will take."""
    if given is not None:
        return SupportRoute.GIVEN
    if bundled is not None:
        return SupportRoute.BUNDLED
    if without_empty_taxa(alignment).num_taxa <= MAX_ENUMERATED_TAXA:
        return SupportRoute.ENUMERATED
    if has_iqtree():
        return SupportRoute.IQTREE
    if has_piqtree():
        return SupportRoute.PIQTREE
    return SupportRoute.NEIGHBOUR_JOINING


def find_support(
    alignment: Alignment,
    seed: int,
    *,
    given: Path | None = None,
    bundled: Path | None = None,
    model: str = "JC",
    threads: int = 1,
) -> SupportTrees:
    """Trees for the support of an alignment, by the first route that is open.

    Args:
        alignment: The data.
        seed: Seed of what is random.
        given: The user's file of trees.
        bundled: File of bundled trees.
        model: Substitution model, as IQ-TREE names it. The fallback compares trees under JC.
        threads: Threads that may be used.

    Raises:
        TreeFormatError: The file of trees cannot be read, or its taxa are not the alignment's.
        VbpiMixError: IQ-TREE or piqtree failed.
    """
    route = choose_route(alignment, given, bundled)
    began = time.perf_counter()
    generator = np.random.default_rng(seed)
    match route:
        case SupportRoute.GIVEN | SupportRoute.BUNDLED:
            path = given or bundled
            assert path is not None  # the routes are chosen by it
            sample = _read(path, alignment, generator)
        case SupportRoute.ENUMERATED if alignment.num_taxa <= MAX_ENUMERATED_TAXA:
            sample = every_topology(alignment.taxa)
        case _:
            made = _make(route, without_empty_taxa(alignment), seed, model, threads)
            sample = graft_taxa(made, alignment.taxa, generator)
    advice = FALLBACK_ADVICE if route is SupportRoute.NEIGHBOUR_JOINING else None
    if advice is not None:
        sample = TreeSample(sample.taxa, sample.children, sample.weights, f"{sample.source}; {advice}")
    return SupportTrees(sample, route, time.perf_counter() - began, advice)


def _make(route: SupportRoute, alignment: Alignment, seed: int, model: str, threads: int) -> TreeSample:
    """Trees of taxa with data, made by a route."""
    match route:
        case SupportRoute.ENUMERATED:
            return every_topology(alignment.taxa)
        case SupportRoute.IQTREE:
            return bootstrap_trees(alignment, seed, threads, model)
        case SupportRoute.PIQTREE:
            return piqtree_trees(alignment, seed, model)
        case SupportRoute.NEIGHBOUR_JOINING:
            return joined_trees(alignment, seed, threads)
    raise AssertionError(f"{route} makes no trees")


def _read(path: Path, alignment: Alignment, generator: np.random.Generator) -> TreeSample:
    """Trees of a file: of all taxa, or, as programs leave them behind, of those with data."""
    try:
        return read_tree_sample(path, alignment.taxa)
    except TreeFormatError:
        with_data = without_empty_taxa(alignment)
        if with_data is alignment:
            raise
    return graft_taxa(read_tree_sample(path, with_data.taxa), alignment.taxa, generator)
