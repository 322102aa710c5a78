"""Variational Bayesian phylogenetic inference with mixtures of subsplit Bayesian networks."""

__version__ = "0.1.0"
__all__ = ["__version__"]
