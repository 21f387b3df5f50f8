"""Cut the last steps of the profiler out of a trace and keep what a receipt reads: how two traces here were made.

    python tests/data/traces/cut_receipts.py flux_0523_h100_5_steps.trace.json.gz flux-h100-0.5.23.trace.json.gz 1
    python tests/data/traces/cut_receipts.py 12_steps.trace.json.gz cache-dit-cpu-0.5.23.trace.json.gz 12

The second is of `invoke bench --prove-kernels` on flux-tiny with cache-dit at a threshold of 0.9.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

ARGUMENTS = {"correlation", "External id"}
KINDS = {"kernel", "cpu_op", "cuda_runtime", "cuda_driver", "user_annotation"}


def main() -> None:
    """Read the first argument and write the second."""
    document = json.loads(gzip.decompress(Path(sys.argv[1]).read_bytes()))
    events = document["traceEvents"]
    starts = {e["ts"] for e in events if e.get("cat") == "user_annotation" and e["name"].startswith("ProfilerStep#")}
    low = sorted(starts)[-int(sys.argv[3])]
    kept = [
        {name: event[name] for name in ("ph", "cat", "name", "pid", "tid", "ts", "dur")}
        | {"args": {name: value for name, value in event.get("args", {}).items() if name in ARGUMENTS}}
        for event in events
        if (event.get("cat") in KINDS or event["name"].startswith("nn.Module: "))
        and event["ph"] == "X"
        and event["ts"] >= low
    ]
    cut = {"schemaVersion": 1, "deviceProperties": document.get("deviceProperties", [])[:1], "traceEvents": kept}
    Path(sys.argv[2]).write_bytes(gzip.compress(json.dumps(cut).encode(), 9, mtime=0))


if __name__ == "__main__":
    main()
