"""State, step, freezing, checkpoints and logs of a training run."""
