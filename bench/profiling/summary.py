"""The parts of an analysis that are sums over the timeline and the rows: window, categories, scopes, streams, gaps."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.profiling import timeline
from bench.profiling.steps import class_of
from bench.profiling.trace import KERNEL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from bench.profiling.attribution import Attribution
    from bench.profiling.table import Row
    from bench.profiling.timeline import Gaps, Step

GAP_EDGES_US = (0.0, 1.0, 2.0, 5.0, 20.0, 100.0, 1000.0)
"""The lower edges of the idle-gap histogram; the last bar is open."""

OUTSIDE = "(outside modules)"

OF_STEP_AND_WINDOW = (
    *("span_ms", "busy_ms", "host_wait_ms", "kernel_wait_ms"),
    *("overlap_ms", "communication_ms", "exposed_communication_ms"),
)
"""What is known of each step, and of a whole trace, alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MedianStep:
    """Medians over the ``of`` representative steps, times in milliseconds; ``of`` is 0 for a whole trace without steps.

    ``ms`` is first event to first event where it is known, else the span of the step's own events.
    """

    of: int
    ms: float
    span_ms: float
    busy_ms: float
    host_wait_ms: float
    kernel_wait_ms: float
    wait_after_ms: float
    overlap_ms: float
    communication_ms: float
    exposed_communication_ms: float
    synchronisations: float
    events: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Busy, idle and overlapping time from the first to the last counted event, in milliseconds and percent."""

    events: int
    span_ms: float
    busy_ms: float
    kernel_ms: float
    idle_ms: float
    idle_percent: float
    host_wait_ms: float
    kernel_wait_ms: float
    overlap_ms: float
    overlap_percent: float
    communication_ms: float
    exposed_communication_ms: float


def coverage(attribution: Attribution) -> dict[str, float]:
    """Return which share of the counted GPU events is known to belong where, in percent."""
    counted = attribution.counted
    count = max(1, int(counted.sum()))
    named = ~attribution.is_in("other", "elementwise")

    def percent(known: NDArray[np.bool_]) -> float:
        return 100 * float((known & counted).sum()) / count

    return {
        "operator_percent": percent(attribution.operator >= 0),
        "module_percent": percent(attribution.path > 0),
        "category_percent": percent(named),
    }


def excluded(attribution: Attribution) -> dict[str, Any]:
    """Return the GPU events that belong to no step: the backlog, and what was launched outside the steps."""
    gpu = attribution.trace.gpu
    counted_ms = float(gpu.duration_us[attribution.counted].sum()) / 1e3

    def part(chosen: NDArray[np.bool_]) -> dict[str, Any]:
        ms = float(gpu.duration_us[chosen].sum()) / 1e3
        return {
            "events": int(chosen.sum()),
            "ms": ms,
            "percent_of_counted": 100 * ms / counted_ms if counted_ms else None,
        }

    return {
        "backlog": part(~attribution.launched),
        "outside_steps": part(attribution.launched & ~attribution.counted),
        "cut_steps": list(attribution.cut_steps),
    }


def window(attribution: Attribution, idle: Gaps) -> Window:
    """Return the window of all counted events."""
    gpu = attribution.trace.gpu
    counted = attribution.counted
    start, end = gpu.start_us[counted], gpu.end_us[counted]
    span = float(end.max() - start.min()) / 1e3
    busy = timeline.covered_us(start, end) / 1e3
    total = float(gpu.duration_us[counted].sum()) / 1e3
    kernels = counted & (gpu.kind == KERNEL)
    communication = attribution.is_in("communication") & counted
    others = counted & ~communication
    return Window(
        events=int(counted.sum()),
        span_ms=span,
        busy_ms=busy,
        kernel_ms=timeline.covered_us(gpu.start_us[kernels], gpu.end_us[kernels]) / 1e3,
        idle_ms=span - busy,
        idle_percent=100 * (1 - busy / span),
        host_wait_ms=idle.total_ms(idle.host),
        kernel_wait_ms=idle.total_ms(~idle.host),
        overlap_ms=total - busy,
        overlap_percent=100 * (total - busy) / busy,
        communication_ms=timeline.covered_us(gpu.start_us[communication], gpu.end_us[communication]) / 1e3,
        exposed_communication_ms=busy - timeline.covered_us(gpu.start_us[others], gpu.end_us[others]) / 1e3,
    )


def median_step(steps: Sequence[Step], whole: Window) -> MedianStep:
    """Return the medians of the representative steps; a trace without steps is one step, the whole window."""
    if not steps:
        known = {name: getattr(whole, name) for name in (*OF_STEP_AND_WINDOW, "events")}
        return MedianStep(of=0, ms=whole.span_ms, wait_after_ms=0.0, synchronisations=0, **known)
    chosen = [steps[index] for index in timeline.representative(len(steps))]

    def median(name: str) -> float:
        return float(np.median([getattr(step, name) for step in chosen]))

    followed = all(step.period_ms is not None for step in chosen)
    return MedianStep(
        of=len(chosen),
        ms=median("period_ms" if followed else "span_ms"),
        wait_after_ms=median("wait_after_ms") if followed else 0.0,
        **{name: median(name) for name in (*OF_STEP_AND_WINDOW, "synchronisations", "events")},
    )


def idle_by_cause(steps: Sequence[Step], median: MedianStep) -> dict[str, float]:
    """Return the idle time of the median step by cause, milliseconds.

    The medians of the causes do not add up to that of the step, so its idle time is split in proportion to the sums
    over all representative steps.
    """
    chosen = [steps[index] for index in timeline.representative(len(steps))]
    sums = {
        "host wait": sum(step.host_wait_ms for step in chosen),
        "kernel wait": sum(step.kernel_wait_ms for step in chosen),
        "between steps": sum(step.wait_after_ms for step in chosen),
    }
    total = sum(sums.values())
    idle = median.ms - median.busy_ms
    return {cause: idle * ms / total if total else 0.0 for cause, ms in sums.items()}


def categories(rows: Sequence[Row], titles: dict[str, str]) -> list[dict[str, Any]]:
    """Return the categories, most time first: milliseconds, events and FLOPs of a step, and the time in each step."""
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        grouped.setdefault(row.category, []).append(row)
    found = []
    for name, members in grouped.items():
        by_step = np.sum([row.time_ms for row in members], axis=0)
        ms = timeline.median_over(by_step)
        flops = sum(row.per_step * row.work.flops for row in members if row.work.flops)
        found.append(
            {
                "id": name,
                "title": titles[name],
                "ms": ms,
                "per_step": sum(row.per_step for row in members),
                "tflop": flops / 1e12 or None,
                "tflops": flops / ms / 1e9 if flops and ms else None,
                "by_step_ms": by_step.tolist(),
            }
        )
    total = sum(entry["ms"] for entry in found) or 1.0
    for entry in found:
        entry["percent"] = 100 * entry["ms"] / total
    return sorted(found, key=lambda entry: -entry["ms"])


def scopes(attribution: Attribution) -> list[dict[str, Any]]:
    """Return GPU time by the modules directly inside the outermost one, with one value for each instance."""
    gpu = attribution.trace.gpu
    counted = attribution.counted
    labels = [path[1] if len(path) > 1 else path[0] if path else OUTSIDE for path in attribution.paths]
    table: dict[str, int] = {}
    of_path = np.array([table.setdefault(label, len(table)) for label in labels])
    names = list(table)
    step = attribution.step[counted] if len(attribution.steps) else np.zeros(int(counted.sum()), np.int32)
    present = np.unique(step)
    flat = of_path[attribution.path[counted]] * len(present) + np.searchsorted(present, step)
    shape = (len(names), len(present))
    ms = np.bincount(flat, gpu.duration_us[counted], shape[0] * shape[1]).reshape(shape) / 1e3
    events = np.bincount(flat, minlength=shape[0] * shape[1]).reshape(shape)
    usual = list(timeline.representative(len(present)))
    grouped: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        grouped.setdefault(class_of(name), []).append(index)
    found = [
        {
            "module": module,
            "instances": len(members),
            "ms": float(np.median(ms[members][:, usual].sum(axis=0))),
            "per_step": float(np.median(events[members][:, usual].sum(axis=0))),
            "instance_ms": [
                float(np.median(ms[index, usual])) for index in sorted(members, key=lambda i: _number(names[i]))
            ],
        }
        for module, members in grouped.items()
        if events[members].sum()
    ]
    return sorted(found, key=lambda entry: -float(entry["ms"]))


def _number(name: str) -> int:
    tail = name.rpartition("_")[2]
    return int(tail) if tail.isdigit() else 0


def streams(attribution: Attribution) -> list[dict[str, Any]]:
    """Return the device streams with the counted events on each, most time first."""
    gpu = attribution.trace.gpu
    counted = attribution.counted
    found = []
    for device, stream in np.unique(np.stack([gpu.device[counted], gpu.stream[counted]], axis=1), axis=0).tolist():
        rows = counted & (gpu.stream == stream) & (gpu.device == device)
        found.append(
            {
                "device": device,
                "stream": stream,
                "events": int(rows.sum()),
                "busy_ms": timeline.covered_us(gpu.start_us[rows], gpu.end_us[rows]) / 1e3,
            }
        )
    return sorted(found, key=lambda entry: -entry["busy_ms"])


def gap_histogram(idle: Gaps) -> list[dict[str, Any]]:
    """Return how many idle gaps there are of each length, and the milliseconds in them, by cause."""
    edges = [*GAP_EDGES_US, np.inf]
    found = []
    for low, high in itertools.pairwise(edges):
        chosen = (idle.duration_us >= low) & (idle.duration_us < high)
        found.append(
            {
                "from_us": low,
                "to_us": None if high == np.inf else high,
                "host": int((chosen & idle.host).sum()),
                "host_ms": idle.total_ms(chosen & idle.host),
                "kernel": int((chosen & ~idle.host).sum()),
                "kernel_ms": idle.total_ms(chosen & ~idle.host),
            }
        )
    return found
