"""Mixture bounds and their gradients, from log weights alone: nothing here knows what a particle is."""
