"""Array types with named axes, used in the signatures of public functions.

Legend of the axis names (terms are in ``docs/glossary.md``):

=========================  ===================================================================================
``taxon``                  taxa, n of them, in the order of the alignment
``site``                   columns of the alignment
``pattern``                distinct site patterns
``internal``               internal nodes of an unrooted binary topology, n - 2
``edge``                   branches of an unrooted binary topology, 2n - 3
``tree``                   trees of a batch, or of a sample
``distinct``, ``unique``   distinct topologies of a sample, of importance draws
``topology``               topologies of a reference, or of a corrected posterior
``undrawn``                distinct topologies that no importance draw has
``steps``                  leaves that stepwise addition adds, n - 3
``found``                  trees found in a text
``chosen``                 nearest-neighbour interchanges to make
``grafted``                topologies made by adding a leaf
``word``, ``words``        64-bit words of a set of taxa, ceil(n / 64)
``split``                  splits of a sample or of a support
``clade``                  clades of a support: two a split
``tripartition``           possible internal nodes of a support
``subsplit``               choices that sampling a rooted tree takes, n - 1
``parent``                 parents of a support, the root included
``parents_and_one``        parents, and an end
``parameter``              rootsplits and PCSPs of a support
``other``                  splits, or tripartitions, of another support
``neighbour``              topologies one interchange outside a support
``parameter_and_two``      parameters, then the constants 0 and 1 (logarithms: -inf and 0)
``feature_and_dummy``      rows of a branch-length table: splits, PSPs, and the dummy
``component``              mixture components, A
``sampled``                components drawn in a step, S
``particle``               particles of a component, in a step K
``denominator``            components in the mixture density of a step: A, or S for the estimator S2S
``draw``                   importance draws of all components, one component after the other; for images any
``repeat``                 repeats of an estimate from disjoint draws
``resampled``              trees resampled from importance draws
``tail``                   largest weights of importance draws
``node``                   nodes of a consensus tree
``category``               rate categories
``image``                  images of a batch, or of a data set
``training``               images of a data set that are trained on
``validation``, ``test``   images of a data set that are set aside
``height``, ``width``      rows and columns of an image
``rows``, ``columns``      of a window on an image, or of a picture of many
``tile``                   images side by side in a picture
``latent``                 latent variables of an image
``channel``, ``channels``  feature maps, or channels of a convolution
``row``                    what a network maps one by one: draws of latent variables, of all images
``coordinate``             free parameters of a substitution model on the unconstrained scale
``coordinate_and_one``     a mean, and a row of a triangular factor with an entry for each coordinate
``skewed``                 coordinates whose density is skewed: all or none
``reported``               parameters of a substitution model as people report them
``*batch``                 independent problems of the same shape
``*draws``                 draws of each image, in an array of any shape
``*branches``              branches, in an array of any shape
=========================  ===================================================================================

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
