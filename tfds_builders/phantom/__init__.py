"""Synthetic CT-like slices with and without lesions, made from a seed."""
