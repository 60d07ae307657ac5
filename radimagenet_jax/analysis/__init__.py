"""Figures, intervals and reports, computed from files that anyone can recompute."""
