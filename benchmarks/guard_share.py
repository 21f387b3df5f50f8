"""The guard's share of a real flux-tiny run: the time spent in it, and paired runs with and without matching."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from _ratio import show  # noqa: E402

from bench.engine import command, find, launch  # noqa: E402
from bench.fallback.guard import Guard  # noqa: E402
from bench.run import plan  # noqa: E402

PAIRS = 2


class Timed(Guard):
    """A guard that adds up the time it takes."""

    spent_s = 0.0

    def observe(self, block: bytes, first_line: int) -> None:
        """Match a block and add the time."""
        start = time.perf_counter()
        super().observe(block, first_line)
        self.spent_s += time.perf_counter() - start


class Blind(Guard):
    """A guard that matches nothing: the baseline. Only here."""

    def observe(self, block: bytes, first_line: int) -> None:
        """Look away."""


def run(planned: plan.Plan, kind: type[Guard]) -> tuple[float, Guard]:
    """Return the wall time in seconds of one launch under this kind of guard, and the guard."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / command.OUTPUTS).mkdir()
        made = command.build(planned.engine, planned.workload, Path(folder))
        guard = kind(planned.expectation)
        attempt = launch.guarded(made, guard=guard, log=Path(folder) / "log")
    return attempt.ended.wall_s, guard


def main() -> None:
    """Print the share; without a built engine say what is missing."""
    built = list(find.built())
    if not built:
        print(f"the guard's share of a real run: not measured, no engine is built ({find.build_command('...')})")
        return
    planned = plan.plan(plan.Options(model="flux-tiny", engine=find.DEFAULT_CONFIGURATION))
    watched, blind, spent = [], [], []
    for pair in range(PAIRS):
        for kind in (Timed, Blind) if pair % 2 == 0 else (Blind, Timed):
            wall_s, guard = run(planned, kind)
            if isinstance(guard, Timed):
                watched.append(wall_s)
                spent.append(guard.spent_s)
            else:
                blind.append(wall_s)
    share = statistics.median(spent) / statistics.median(watched)
    baseline = f"the whole run: {statistics.median(watched):.1f} s"
    show(
        "time in the guard, a real flux-tiny run",
        f"{statistics.median(spent) * 1e3:.0f} ms",
        baseline,
        share,
        "< 0.005",
    )
    paired = statistics.median(w / b for w, b in zip(watched, blind, strict=True))
    show(f"paired runs, with / without ({PAIRS} pairs)", f"{statistics.median(watched):.1f} s",
         f"without matching: {statistics.median(blind):.1f} s", paired, "1 within noise")  # fmt: skip


if __name__ == "__main__":
    main()
