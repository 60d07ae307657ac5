"""Damaged, crafted and senseless inputs, by a seed: `python -m tests.fuzz --help`."""
