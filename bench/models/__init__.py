"""Model weights and inputs: checkpoints, the hub's cache, private caches, input images."""
