"""Is the output still right? Native components, latents and images against a reference, with negative controls."""
