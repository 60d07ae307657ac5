"""What is tried: a module a group of surfaces, each with `SURFACES`, a tuple of `harness.Surface`."""
