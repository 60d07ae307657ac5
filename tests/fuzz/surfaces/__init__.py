"""What is tried: modules with `SURFACES`, a tuple of `harness.Surface`."""
