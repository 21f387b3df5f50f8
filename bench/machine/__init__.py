"""What the machine is: GPUs, host identity, locks."""
