"""The numbers that the parts of a support have in a larger support."""

from typing import NamedTuple

import numpy as np

from vbpi_mix.errors import OutOfSupportError
from vbpi_mix.sbn import _support_kernels as kernels
from vbpi_mix.sbn.support import Support


class Renumbering(NamedTuple):
    """New numbers of the parts of a support, in the order of the old ones.

    Attributes:
        split: Of every split [split].
        subsplit: Of every subsplit [subsplit].
        parameter: Of every parameter [parameter].
    """

    split: np.ndarray
    subsplit: np.ndarray
    parameter: np.ndarray


def renumber(old: Support, new: Support) -> Renumbering:
    """Where everything of one support is in another.

    Args:
        old: A support.
        new: One of the same taxa that holds all of it.

    Raises:
        OutOfSupportError: It does not hold all of it.
    """
    split = new.splits_of_masks(old.masks)
    clades = 2 * split[old.tripartitions >> 1] + (old.tripartitions & 1)
    order = np.argsort(clades, axis=1)
    tripartition = new.tripartitions_of_clades(np.take_along_axis(clades, order, axis=1))
    # Subsplit 3t + k splits the complement of the k-th clade, and the clades of t may have changed places.
    rank = np.argsort(order, axis=1)
    subsplit = (3 * tripartition[:, None] + rank).ravel().astype(np.int32)

    old_subsplit = old.parameter_subsplit[old.num_splits :]
    old_sister = old.parent_clades[old.tables.parameter_parent[old.num_splits :], 0]
    sister = 2 * split[old_sister >> 1] + (old_sister & 1)
    pcsp = np.empty(len(old_subsplit), np.int32)
    keys = sister.astype(np.int64) * new.num_subsplits + subsplit[old_subsplit]
    kernels.find_hashes(keys, new.tables.hash_key, new.tables.hash_value, pcsp)
    result = Renumbering(split, subsplit, np.concatenate([split, pcsp]))
    if min(split.min(), tripartition.min(), pcsp.min()) < 0:
        raise OutOfSupportError(
            "expected a support that holds all of another, found one that lacks some of its subsplits: make "
            "it from the trees of the other and more"
        )
    return result
