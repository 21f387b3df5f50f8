"""How similar outputs are: pixels, frames, thresholds, goldens."""
