"""Array types with named axes, used in the signatures of public functions.

Legend of the axis names:

=================  =====================================================================================
``taxon``          taxa, n of them, in the order of the alignment
``site``           columns of the alignment
``pattern``        distinct site patterns
``state``          nucleotides A, C, G, T
``internal``       internal nodes of an unrooted binary topology, n - 2
``edge``           branches of an unrooted binary topology, 2n - 3
``tree``           trees of a batch
``component``      mixture components, A
``sampled``        components drawn in a step, S
``particle``       particles of a component in a step, K
``denominator``    components in the mixture density of a step: A, or S for the estimator S2S
``category``       rate categories
=================  =====================================================================================

The tests check these shapes at run time (see ``tests/conftest.py``); a user's program pays nothing for them.
"""

from typing import TypeAlias

import numpy as np
from jaxtyping import Float64, Int32, UInt8

Topologies: TypeAlias = Int32[np.ndarray, "tree internal 2"]
"""Child nodes of every internal node; the data model is in ``vbpi_mix.trees.topology``."""

BranchLengths: TypeAlias = Float64[np.ndarray, "tree edge"]
"""Expected substitutions per site on every branch; branch e joins node e to its parent."""

States: TypeAlias = UInt8[np.ndarray, "taxon site"]
"""Sets of nucleotides as bit masks: A=1, C=2, G=4, T=8; 15 is missing."""

LogWeights: TypeAlias = Float64[np.ndarray, "sampled particle"]
"""One value in nats for each particle of each sampled component."""
