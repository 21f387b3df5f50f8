"""Arithmetic over durations: samples, intervals, spread, decisions. It knows no option and no record."""
