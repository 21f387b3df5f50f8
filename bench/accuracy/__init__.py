"""Accuracy: native components, latents and images against a reference, with negative controls for every gate."""
