"""Comparisons of arms and records, history, calibration."""
