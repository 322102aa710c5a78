"""Branch-length networks: parameters, densities of log branch lengths, draws and gradients."""
