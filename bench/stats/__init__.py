"""Arithmetic over durations: samples, intervals, spread, decisions; no option, no record."""
