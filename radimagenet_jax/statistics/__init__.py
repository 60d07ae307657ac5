"""Figures from scores: areas, intervals, comparisons, calibration; no files, no drawing."""
