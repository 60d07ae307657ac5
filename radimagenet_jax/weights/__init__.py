"""Published and published-style weight files: what they are, and how they are read."""
