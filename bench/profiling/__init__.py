"""Traces of torch.profiler: read, attribute, analyse and compare them."""
