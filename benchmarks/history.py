"""The time of `invoke history` over 5,000 records that were seen before, against one over a single record."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from _ratio import median_s, show  # noqa: E402

RECORDS = 5_000
RECORD = ROOT / "tests" / "data" / "ab" / "baseline" / "run.json"


def make(runs: Path, count: int) -> str:
    """Write so many records, an hour apart, and return their preset."""
    record = json.loads(RECORD.read_text(encoding="utf-8")) | {"kind": "bench"}
    for number in range(count):
        started = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=number)
        record["id"] = f"{started:%Y%m%dT%H%M%SZ}-bench-flux-tiny-{number:06x}"
        record["started"] = record["finished"] = started.isoformat()
        (runs / record["id"]).mkdir(parents=True)
        (runs / record["id"] / "run.json").write_text(json.dumps(record), encoding="utf-8")
    return str(record["preset"]["key"])


def main() -> None:
    """Print the time of a first and of a second look, and the ratio."""
    with tempfile.TemporaryDirectory() as folder:

        def look(name: str, model: str) -> None:
            subprocess.run(
                (sys.executable, "-m", "invoke", "history", "--model", model),
                cwd=ROOT, env=os.environ | {"BENCH_RUNS": f"{folder}/{name}"}, stdout=subprocess.DEVNULL, check=True,
            )  # fmt: skip

        model = make(Path(folder, "one"), 1)
        alone = median_s(lambda: look("one", model), 3)
        make(Path(folder, "many"), RECORDS)
        start = time.perf_counter()
        look("many", model)
        first = time.perf_counter() - start
        took = median_s(lambda: look("many", model), 3)
    told = f"history of {RECORDS:,} records"
    show(f"{told}, seen before", f"{took:.2f} s", f"one record: {alone:.2f} s", took / alone, "< 2 s")
    show("  the first time", f"{first:.1f} s", f"seen before: {took:.2f} s", first / took, "once")


if __name__ == "__main__":
    main()
