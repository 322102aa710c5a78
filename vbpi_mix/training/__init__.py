"""Training: configuration, state, engines, loop, checkpoints."""
