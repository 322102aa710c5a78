"""Branch-length networks of the compiled engine: a table of summed features for every mixture component.

Given a topology the log branch lengths are independent. The location, log scale and skew of a branch are sums
over its features (Zhang & Matsen 2019): its split and, in the model ``psp``, the two primary subsplit pairs
(PSPs) on its sides. Features are rows of a table, numbered splits first, then PSPs; one more row, the last,
is the dummy that stands in for features a branch does not have. The dummy is zero and stays so.
"""

from dataclasses import dataclass
from enum import Enum

import numpy as np
from jaxtyping import Float64, Int32

INITIAL_LOCATION = -3.5
"""Log branch length at the start, in log expected substitutions per site: a branch of about 0.03."""
INITIAL_LOG_SCALE = -1.0
"""Log scale of a log branch length at the start."""
COLUMNS = ("location", "log_scale", "skew")
"""What the last axis of a parameter table holds."""


class BranchFeatures(Enum):
    """Which features of a branch its parameters are the sum of."""

    SPLIT = "split"
    PSP = "psp"


class BranchDensity(Enum):
    """Lognormal or exponentiated Weibull branch lengths; see `vbpi_mix.branches.densities`."""

    LOGNORMAL = "lognormal"
    SKEWED = "skewed"


@dataclass(frozen=True)
class BranchParameters:
    """Branch-length parameters of all components. The table itself is updated in place by training.

    Attributes:
        table: location, log scale and skew of every feature; the last row is the dummy. In memory the
            components are side by side; a table in another order is copied.
        features: model that the features were numbered for.
        density: family; the skew column of a lognormal is zero and gets no gradient.
    """

    table: Float64[np.ndarray, "component feature_and_dummy 3"]
    features: BranchFeatures
    density: BranchDensity

    def __post_init__(self) -> None:
        if not self.by_feature.flags.c_contiguous:
            object.__setattr__(self, "table", np.ascontiguousarray(self.by_feature).transpose(2, 0, 1))
        if self.table[:, -1].any():
            raise ValueError("expected zeros in the last row (the dummy) of the branch table, found others")
        if self.density is BranchDensity.LOGNORMAL and self.table[:, :, 2].any():
            raise ValueError(
                "expected a zero skew column for lognormal branches, found others; use BranchDensity.SKEWED"
            )

    @classmethod
    def initial(
        cls,
        num_components: int,
        num_splits: int,
        num_psps: int,
        features: BranchFeatures = BranchFeatures.PSP,
        density: BranchDensity = BranchDensity.SKEWED,
    ) -> "BranchParameters":
        """Table at the start of training: the initial values sit in the split rows, everything else is zero.

        Args:
            num_components: A.
            num_splits: splits of the support; their rows are 0 .. num_splits - 1.
            num_psps: PSPs of the support, whose rows follow; unused (no rows) in the model ``split``.
            features: which features there are.
            density: family of the log branch lengths.
        """
        if num_components < 1 or num_splits < 1 or num_psps < 0:
            raise ValueError(
                "expected at least one component and one split and no negative number of PSPs, "
                f"got {num_components} components, {num_splits} splits, {num_psps} PSPs"
            )
        num_features = num_splits + (num_psps if features is BranchFeatures.PSP else 0)
        table = np.zeros((num_features + 1, len(COLUMNS), num_components)).transpose(2, 0, 1)
        table[:, :num_splits, 0] = INITIAL_LOCATION
        table[:, :num_splits, 1] = INITIAL_LOG_SCALE
        return cls(table, features, density)

    @property
    def by_feature(self) -> Float64[np.ndarray, "feature_and_dummy 3 component"]:
        """The table as it is in memory, and as the kernels take it."""
        return self.table.transpose(1, 2, 0)

    @property
    def num_components(self) -> int:
        """Mixture components, A."""
        return self.table.shape[0]

    @property
    def num_features(self) -> int:
        """Rows of the table without the dummy; also the dummy's row number."""
        return self.table.shape[1] - 1

    @property
    def is_skewed(self) -> bool:
        """Whether the skew column is in use: the argument ``skewed`` of the kernels."""
        return self.density is BranchDensity.SKEWED

    def branch_parameters(
        self, feature_index: Int32[np.ndarray, "tree edge 3"]
    ) -> Float64[np.ndarray, "component tree edge 3"]:
        """Location, log scale and skew of every branch of these trees under every component.

        Raises:
            ValueError: if a feature is negative or beyond the dummy row.
        """
        if feature_index.size and not 0 <= feature_index.min() <= feature_index.max() <= self.num_features:
            raise ValueError(
                f"expected features 0 .. {self.num_features} (the last is the dummy), got "
                f"{feature_index.min()} .. {feature_index.max()}; are the features of another support?"
            )
        return self.table[:, feature_index].sum(axis=-2)
