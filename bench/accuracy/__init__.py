"""Is it still right? Native components, latents and images against a reference, with gates that prove themselves."""
