"""The machine: GPUs, host identity, locks."""
