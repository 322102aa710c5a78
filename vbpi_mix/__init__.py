"""Variational Bayesian phylogenetic inference with mixtures of subsplit Bayesian networks.

The names below are imported when they are first used, so that importing the package takes no time.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_MODULE_OF = {
    "Alignment": "alignment",
    "Posterior": "api",
    "Tree": "trees.topology",
    "TreeDraws": "trees.samples",
    "TreeSample": "trees.samples",
    "VbpiMixError": "errors",
    "bootstrap_trees": "training.support_trees",
    "dataset_names": "datasets",
    "dataset_trees": "api",
    "fit": "api",
    "load_dataset": "datasets",
    "open_run": "api",
    "parse_newick": "trees.newick",
    "read_alignment": "alignment",
    "read_tree_sample": "trees.samples",
    "write_newick": "trees.newick",
}

__all__ = ["__version__", *_MODULE_OF]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
