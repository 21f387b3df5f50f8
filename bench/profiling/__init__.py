"""Traces of torch.profiler: read, attribute, analyse, compare."""
