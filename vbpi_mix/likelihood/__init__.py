"""Substitution models, priors and the phylogenetic likelihood with its gradients."""
