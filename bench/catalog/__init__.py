"""Data that engineers add to, and the loaders that check it: presets, signals, evidence, flags and stages."""
