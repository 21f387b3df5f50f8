"""Comparison of two arms or two records, the history of a workload, and calibration of the machine's noise."""
