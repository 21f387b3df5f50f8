"""Ten samples by session against ten `sglang generate` launches, and whether both tell the same denoise time."""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from _ratio import show  # noqa: E402

from bench.engine import find  # noqa: E402
from bench.run import benchmark, plan  # noqa: E402

SAMPLES = 10


def run(folder: Path, repeats: int) -> dict:
    """Return the record of one run of flux-tiny that counts."""
    options = plan.Options(
        model="flux-tiny", engine=find.DEFAULT_CONFIGURATION, repeats=repeats, output_dir=folder, preflight=False
    )
    result = benchmark.run(plan.plan(options))
    if result.error is not None:
        raise result.error
    return result.record


def main() -> None:
    """Print the ratios; without a built engine say what is missing."""
    if find.DEFAULT_CONFIGURATION not in find.built():
        needed = find.build_command(find.DEFAULT_CONFIGURATION)
        print(f"sessions against launches: not measured, the engine is not built ({needed})")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # half of the launches before the session and half after it: a drift of the machine falls on both
        singles = [run(folder, 1) for _ in range(SAMPLES // 2)]
        session = run(folder, SAMPLES)
        singles += [run(folder, 1) for _ in range(SAMPLES - SAMPLES // 2)]
    launches_s = [record["launches"][0]["wall_s"] for record in singles]
    session_s = session["launches"][0]["wall_s"]
    request_s = statistics.median(request["wall_s"] for request in session["requests"])
    ideal_s = statistics.median(launches_s) + (SAMPLES - 1) * request_s
    show(f"{SAMPLES} samples by session", f"{session_s:.1f} s", f"{SAMPLES} launches: {sum(launches_s):.1f} s",
         session_s / sum(launches_s), "< 0.143 (1/7)")  # fmt: skip
    show(f"{SAMPLES} samples by session", f"{session_s:.1f} s", f"a launch and {SAMPLES - 1} requests: {ideal_s:.1f} s",
         session_s / ideal_s, "< 1.1")  # fmt: skip
    denoise = statistics.median(record["timings"]["metrics"]["denoise_ms"] for record in singles)
    told = session["timings"]["metrics"]["denoise_ms"]
    show("denoise time of a session, median", f"{told:.1f} ms", f"of single launches: {denoise:.1f} ms",
         told / denoise, "1 within noise")  # fmt: skip


if __name__ == "__main__":
    main()
