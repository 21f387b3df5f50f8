"""Model weights: checkpoints, the hub's cache, private caches, input images."""
