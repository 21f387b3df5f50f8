"""Similarity of outputs: pixels, frames, thresholds, goldens."""
