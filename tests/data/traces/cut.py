"""Cut the last steps out of a trace in Kineto's layout, byte for byte: how flux-h200 and flux-h100 were made.

    python tests/data/traces/cut.py flux_eager_5_steps.trace.json.gz flux-h200.trace.json.gz 4
    python tests/data/traces/cut.py flux_0523_h100_5_steps.trace.json.gz flux-h100.trace.json.gz 4

What was launched before the first kept step is left out, and what of it still ran after its start is kept: it is the
backlog, as the profiler itself produces it. Python frames that are not modules, the arrows between launches and
kernels, and the strides of operators are left out, for size.
"""

from __future__ import annotations

import gzip
import re
import sys
from pathlib import Path

SEPARATOR = b"\n  },\n  {"
END = b"\n  }\n  ]"
CATEGORY = re.compile(rb'"cat": "(\w+)"')
ARRAY = re.compile(rb'"traceEvents": \[\s*\{')
MODULE = re.compile(rb'"name": "nn\.Module: ')
STRIDES = re.compile(rb', "Input Strides": \[.*?\](?=, "Input Dims")')
CONCRETE = re.compile(rb'"Concrete Inputs": \[.*?\], (?="Input type")')


def main() -> None:
    """Read the first argument, write the second, keep the steps from the third on."""
    source, target, first = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    text = gzip.decompress(source.read_bytes())
    start = ARRAY.search(text).end()
    head, body = text[:start], text[start:]
    end = body.index(END)
    events, tail = body[:end].split(SEPARATOR), body[end:]
    named = re.compile(rb'"cat": "user_annotation",\s+"name": "ProfilerStep#%d"' % first)
    low = _number(next(event for event in events if named.search(event)), b"ts")
    kept = [event for event in map(_shortened, events) if _keep(event, low, first)]
    target.write_bytes(gzip.compress(head + SEPARATOR.join(kept) + tail, 9, mtime=0))


def _number(event: bytes, name: bytes) -> float:
    return float(re.search(rb'"%s": ([0-9.]+)' % name, event)[1])


def _shortened(event: bytes) -> bytes:
    return CONCRETE.sub(b"", STRIDES.sub(b"", event)) if b'"cat": "cpu_op"' in event else event


def _keep(event: bytes, low: float, first: int) -> bool:
    found = CATEGORY.search(event)
    if found is None:
        return True
    category = found[1]
    if category == b"ac2g" or (category == b"python_function" and not MODULE.search(event)):
        return False
    if category == b"gpu_user_annotation":
        return int(re.search(rb"ProfilerStep#(\d+)", event)[1]) >= first
    return category == b"Trace" or _number(event, b"ts") >= low


if __name__ == "__main__":
    main()
