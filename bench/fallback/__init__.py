"""The shared fallback-detection module: what stands between the engine and every number.

`Guard` watches a launch (arguments, environment, log) and stops it at the first invalid line; `verdict.conclude` joins
what it saw with the perf dump and the outputs into the verdict that a record carries.
"""
