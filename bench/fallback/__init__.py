"""Fallback detection, which stands between the engine and every number.

`Guard` watches a launch (arguments, environment, log) and stops it at the first invalid line; `verdict.conclude`
combines its findings with the perf dump and the outputs into the verdict of the record.
"""
