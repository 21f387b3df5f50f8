"""The workbench's own code: how a benchmark of SGLang Diffusion is run, guarded, recorded and reported."""
