"""Anybody's own images, named by a CSV."""
