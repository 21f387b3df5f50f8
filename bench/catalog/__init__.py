"""Data that engineers add to, and the loaders that validate it: presets, signals, evidence, flags, stages."""
