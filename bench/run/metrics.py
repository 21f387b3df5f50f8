"""The metrics: one row each. Record, report and comparison read this table; adding a metric is adding a row."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.catalog.stages import stages

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Dump = Mapping[str, Any]

RUNTIME_CHECKPOINTS = ("after_forward", "runtime_peak")
"""Memory checkpoints of the request itself; the maximum over all checkpoints would include loading and warm-up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """How a number is computed from a perf dump; ``value`` returns None where the dump cannot tell."""

    key: str
    title: str
    unit: str
    value: Callable[[Dump], float | None]


def denoise_ms(dump: Dump) -> float | None:
    """Return the time of all native denoising stages in ms, None if the dump has none."""
    times = [step["duration_ms"] for step in dump["steps"] if stages().denoises(step["name"])]
    return sum(times) if times else None


def steps_ms(dump: Dump) -> list[float]:
    """Return each denoise step's time in ms, in order; empty for the stages that do not record steps."""
    return [step["duration_ms"] for step in dump["denoise_steps_ms"]]


def _median_step(dump: Dump) -> float | None:
    steps = steps_ms(dump)
    return statistics.median(steps) if steps else None


def percentile_95(values: list[float]) -> float | None:
    """Return the 95th percentile, linearly interpolated (the method of numpy and of R's type 7), None for none."""
    if not values:
        return None
    ordered = sorted(values)
    position = 0.95 * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (position - low) * (ordered[high] - ordered[low])


def _peak(field: str) -> Callable[[Dump], float | None]:
    def value(dump: Dump) -> float | None:
        found = [
            dump["memory_checkpoints"][name][field]
            for name in RUNTIME_CHECKPOINTS
            if name in dump["memory_checkpoints"]
        ]
        return max(found) if found else None

    return value


METRICS = (
    Metric(
        key="total_ms",
        title="end to end",
        unit="ms",
        value=lambda dump: float(dump["total_duration_ms"]),
    ),
    Metric(key="denoise_ms", title="denoise", unit="ms", value=denoise_ms),
    Metric(key="step_median_ms", title="denoise step, median", unit="ms", value=_median_step),
    Metric(
        key="step_p95_ms",
        title="denoise step, p95",
        unit="ms",
        value=lambda dump: percentile_95(steps_ms(dump)),
    ),
    Metric(
        key="peak_allocated_mib",
        title="peak memory, allocated",
        unit="MiB",
        value=_peak("peak_allocated_mb"),
    ),
    Metric(
        key="peak_reserved_mib",
        title="peak memory, reserved",
        unit="MiB",
        value=_peak("peak_reserved_mb"),
    ),
)


FEWEST_FOR_P95 = 20
"""Of fewer steps the 95th percentile is about the slowest one."""


def shown(steps: int | None) -> tuple[Metric, ...]:
    """Return the metrics that are shown of a request with so many denoise steps (None: unknown, taken for many)."""
    few = steps is not None and steps < FEWEST_FOR_P95
    return tuple(metric for metric in METRICS if not (few and metric.key == "step_p95_ms"))


def stage_kind(name: str) -> str:
    """Return what an entry of the dump's stage list is: ``denoise``, ``transport`` (no stage), or ``other``."""
    if stages().denoises(name):
        return "denoise"
    return "transport" if stages().is_transport(name) else "other"


def compute(dump: Dump) -> dict[str, float | None]:
    """Return every metric of a perf dump by key; None is unknown, never 0."""
    return {metric.key: metric.value(dump) for metric in METRICS}
