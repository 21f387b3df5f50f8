"""When the GPU worked and when it waited: busy, idle and its cause, overlap, exposed communication; per step.

The vocabulary is HolisticTraceAnalysis': an idle gap is *host wait* when the call that launched the next event
returned only after the previous event had ended (the GPU had nothing to do), else *kernel wait* (the work was queued:
the launch latency between two kernels, or a dependency).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bench.profiling.attribution import Attribution

SYNCHRONISATIONS = ("cudaDeviceSynchronize", "cudaStreamSynchronize", "cudaEventSynchronize", "hipDeviceSynchronize")
"""The calls that make the CPU wait for the GPU."""

OUTLIER_SHARE = 0.05
"""A step that was busy longer or shorter than the median by more than this share is marked; steps of one request do
the same work, and those of the reference trace differ by 2 %."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gaps:
    """The stretches in which no event ran, in time order. ``step`` is the step that follows, -1 outside of steps."""

    start_us: NDArray[np.float64]
    duration_us: NDArray[np.float64]
    host: NDArray[np.bool_]
    step: NDArray[np.int32]
    between: NDArray[np.bool_]

    def total_ms(self, chosen: NDArray[np.bool_]) -> float:
        """Return the sum of the chosen gaps."""
        return float(self.duration_us[chosen].sum()) / 1e3


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One denoise step on the GPU. Times in milliseconds; ``period_ms`` is from its first event to the next step's."""

    label: str
    role: str
    outlier: bool
    busy_ratio: float
    cpu_ms: float
    start_ms: float
    span_ms: float
    period_ms: float | None
    busy_ms: float
    idle_ms: float
    host_wait_ms: float
    kernel_wait_ms: float
    host_waits: int
    wait_after_ms: float
    overlap_ms: float
    communication_ms: float
    exposed_communication_ms: float
    synchronisations: int
    events: int
    launch_lag_median_ms: float
    launch_lag_most_ms: float


def covered_us(start_us: NDArray[np.float64], end_us: NDArray[np.float64]) -> float:
    """Return how long at least one of the spans was running, in microseconds."""
    if not len(start_us):
        return 0.0
    order = np.argsort(start_us, kind="stable")
    start, end = start_us[order], np.maximum.accumulate(end_us[order])
    return float(end[-1] - start[0] - np.maximum(start[1:] - end[:-1], 0).sum())


def gaps(attribution: Attribution) -> Gaps:
    """Return the idle gaps between the counted events of a trace."""
    gpu = attribution.trace.gpu
    rows = np.flatnonzero(attribution.counted)
    rows = rows[np.argsort(gpu.start_us[rows], kind="stable")]
    start, step = gpu.start_us[rows], attribution.step[rows]
    end = np.maximum.accumulate(gpu.end_us[rows])
    width = start[1:] - end[:-1]
    idle = width > 0
    after = rows[1:][idle]
    returned = attribution.trace.calls.end_us[attribution.call[after]]
    return Gaps(
        start_us=end[:-1][idle],
        duration_us=width[idle],
        host=returned > end[:-1][idle],
        step=step[1:][idle],
        between=(step[1:] != step[:-1])[idle],
    )


def representative(count: int) -> range:
    """Return which of the steps stand for the request: 2..n-1.

    The first carries the profiler's start, the last the drain of the queue. Of fewer than three steps all are taken.
    """
    return range(1, count - 1) if count > 2 else range(count)  # noqa: PLR2004 - first, last and one between


def median_over(values: NDArray[np.float64]) -> float:
    """Return the median of a per-step value over the representative steps."""
    chosen = values[list(representative(len(values)))]
    return float(np.median(chosen)) if len(chosen) else 0.0


def steps(attribution: Attribution, idle: Gaps) -> tuple[Step, ...]:
    """Return the steps that have GPU events, in order."""
    gpu = attribution.trace.gpu
    windows = attribution.steps
    present = [index for index in range(len(windows)) if (attribution.step == index).any()]
    members = [np.flatnonzero(attribution.step == index) for index in present]
    busy = np.array([covered_us(gpu.start_us[rows], gpu.end_us[rows]) for rows in members]) / 1e3
    usual = median_over(busy)
    starts = [float(gpu.start_us[rows].min()) for rows in members]
    chosen = representative(len(present))
    found = []
    for place, (index, rows) in enumerate(zip(present, members, strict=True)):
        start, end = gpu.start_us[rows], gpu.end_us[rows]
        span = float(end.max() - start.min())
        mine = idle.step == index
        inside = mine & ~idle.between
        communication = attribution.is_in("communication")[rows]
        lag = start - attribution.trace.calls.start_us[attribution.call[rows]]
        last = place + 1 == len(present)
        following = idle.between & (idle.step == present[place + 1]) if not last else np.zeros_like(idle.between)
        found.append(
            Step(
                label=windows.labels[index],
                role="counted" if place in chosen else "first" if place == 0 else "last",
                outlier=bool(abs(busy[place] - usual) > OUTLIER_SHARE * usual),
                busy_ratio=float(busy[place] / usual) if usual else 1.0,
                cpu_ms=float(windows.end_us[index] - windows.start_us[index]) / 1e3,
                start_ms=float(start.min()) / 1e3,
                span_ms=span / 1e3,
                period_ms=None if last else (starts[place + 1] - starts[place]) / 1e3,
                busy_ms=float(busy[place]),
                idle_ms=span / 1e3 - float(busy[place]),
                host_wait_ms=idle.total_ms(inside & idle.host),
                kernel_wait_ms=idle.total_ms(inside & ~idle.host),
                host_waits=int((inside & idle.host).sum()),
                wait_after_ms=idle.total_ms(following),
                overlap_ms=float(gpu.duration_us[rows].sum()) / 1e3 - float(busy[place]),
                communication_ms=covered_us(start[communication], end[communication]) / 1e3,
                exposed_communication_ms=float(busy[place])
                - covered_us(start[~communication], end[~communication]) / 1e3,
                synchronisations=_synchronisations(attribution, index),
                events=len(rows),
                launch_lag_median_ms=float(np.median(lag)) / 1e3,
                launch_lag_most_ms=float(lag.max()) / 1e3,
            )
        )
    return tuple(found)


def _synchronisations(attribution: Attribution, index: int) -> int:
    calls, names = attribution.trace.calls, attribution.trace.names
    waiting = np.isin(calls.name, [number for number, name in enumerate(names) if name in SYNCHRONISATIONS])
    return int((attribution.steps.step_at(calls.start_us[waiting]) == index).sum())
