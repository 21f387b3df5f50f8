"""What the benchmarks share: timing a callable, and printing a figure beside its baseline of the same run."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def median_s(action: Callable[[], object], times: int) -> float:
    """Return the median wall time of ``action`` in seconds, after one call that does not count."""
    action()
    samples = []
    for _ in range(times):
        start = time.perf_counter()
        action()
        samples.append(time.perf_counter() - start)
    return statistics.median(samples)


def show(what: str, value: str, baseline: str, ratio: float, aim: str) -> None:
    """Print one line: the figure, its baseline in this run, the ratio, and what is aimed at."""
    print(f"{what:<44} {value:>12}   {baseline:<38} x{ratio:<9.3g} aim: {aim}")
