"""The workbench: run, guard, record and report benchmarks of SGLang Diffusion."""
