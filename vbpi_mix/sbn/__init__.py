"""Subsplit Bayesian networks: support, probabilities, sampling, fitting."""
