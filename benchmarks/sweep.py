"""The time of `invoke sweep --dry-run` over 10,000 cells, against one over a single cell."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from _ratio import median_s, show  # noqa: E402

CELLS = 10_000
FILE = '[[measure]]\naxes = {{ model = ["flux-tiny"], seed = {seeds} }}\n'


def main() -> None:
    """Print the time and the memory of both, and the ratios."""
    from bench.engine import find  # noqa: PLC0415

    engine = next(iter(find.built()), None)
    if engine is None:
        print("no engine is built: nothing to plan for")
        return
    with tempfile.TemporaryDirectory() as folder:

        def plan(count: int) -> None:
            path = Path(folder, f"{count}.toml")
            path.write_text(FILE.format(seeds=list(range(count))), encoding="utf-8")
            subprocess.run(
                (sys.executable, "-m", "invoke", "sweep", str(path), "--dry-run"),
                cwd=ROOT, env=os.environ | {"BENCH_RUNS": folder, "BENCH_ENGINE": engine}, stdout=subprocess.DEVNULL,
                check=True,
            )  # fmt: skip

        def peak_mib() -> float:
            """Return the most memory that any child has had so far."""
            return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024

        alone = median_s(lambda: plan(1), 3)
        little = peak_mib()
        took = median_s(lambda: plan(CELLS), 3)
        much = peak_mib()
    show(f"planning {CELLS:,} cells", f"{took - alone:.2f} s", f"the rest of the command: {alone:.2f} s",
         (took - alone) / alone, "< 2 s")  # fmt: skip
    show("  its memory", f"{much:.0f} MiB", f"one cell: {little:.0f} MiB", much / little, "x1.2")


if __name__ == "__main__":
    main()
