"""MISVAE: autoencoders of binary images with a mixture of encoders, on the package's objectives."""
