"""The operator view: CPU time by operator and shape, for a trace that has no GPU events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bench.profiling import timeline
from bench.profiling.steps import class_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bench.profiling.steps import Steps
    from bench.profiling.trace import Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorTime:
    """One operator on one shape in a step: how often, its own time and that with what it calls, in milliseconds."""

    operator: str
    shape: str
    per_step: float
    self_ms: float
    total_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleTime:
    """One class of modules in a step: how often one was called, and the time in them, in milliseconds."""

    module: str
    per_step: float
    total_ms: float


def self_us(
    start_us: NDArray[np.float64], duration_us: NDArray[np.float64], thread: NDArray[np.uint32]
) -> NDArray[np.float64]:
    """Return each span's duration less that of the spans directly inside it on its thread."""
    own = duration_us.copy()
    order = np.lexsort((-duration_us, start_us, thread))
    ends = (start_us + duration_us).tolist()
    starts, lengths, threads = start_us.tolist(), duration_us.tolist(), thread.tolist()
    stack: list[int] = []
    for row in order.tolist():
        while stack and (threads[stack[-1]] != threads[row] or ends[stack[-1]] <= starts[row]):
            stack.pop()
        if stack:
            own[stack[-1]] -= lengths[row]
        stack.append(row)
    return np.maximum(own, 0.0)


def operators(trace: Trace, steps: Steps) -> tuple[OperatorTime, ...]:
    """Return the operators of a step, most own time first; of the whole trace when it has no steps."""
    rows = trace.operators
    table: dict[tuple[str, str], int] = {}
    of_signature = [table.setdefault((called.operator, called.shape), len(table)) for called in trace.signatures]
    group = np.array(of_signature, np.int64)[rows.signature] if len(rows) else np.empty(0, np.int64)
    own = self_us(rows.start_us, rows.duration_us, rows.thread)
    step = _step(steps, rows.start_us)
    counts, own_us, total_us = (
        _median(group, step, values, len(table), len(steps)) for values in (None, own, rows.duration_us)
    )
    found = [
        OperatorTime(
            operator=name,
            shape=shape,
            per_step=float(counts[at]),
            self_ms=float(own_us[at]) / 1e3,
            total_ms=float(total_us[at]) / 1e3,
        )
        for (name, shape), at in table.items()
        if counts[at]
    ]
    return tuple(sorted(found, key=lambda one: (-one.self_ms, one.operator, one.shape)))


def modules(trace: Trace, steps: Steps) -> tuple[ModuleTime, ...]:
    """Return the classes of modules in a step, most time first; one that contains itself counts at each level."""
    frames = trace.modules
    table: dict[str, int] = {}
    group = np.array(
        [table.setdefault(class_of(trace.names[name]), len(table)) for name in frames.name.tolist()], np.int64
    )
    step = _step(steps, frames.start_us)
    counts, total_us = (_median(group, step, values, len(table), len(steps)) for values in (None, frames.duration_us))
    found = [
        ModuleTime(module=name, per_step=float(counts[at]), total_ms=float(total_us[at]) / 1e3)
        for name, at in table.items()
        if counts[at]
    ]
    return tuple(sorted(found, key=lambda one: (-one.total_ms, one.module)))


def _step(steps: Steps, start_us: NDArray[np.float64]) -> NDArray[np.int32]:
    return steps.step_at(start_us) if len(steps) else np.zeros(len(start_us), np.int32)


def _median(
    group: NDArray[np.int64], step: NDArray[np.int32], values: NDArray[np.float64] | None, groups: int, steps: int
) -> NDArray[np.float64]:
    """Return for each group the median over the representative steps of the sum in a step; of the count for None."""
    count = max(1, steps)
    inside = step >= 0
    flat = group[inside] * count + step[inside]
    sums = np.bincount(flat, None if values is None else values[inside], minlength=groups * count)
    return np.median(sums.reshape(groups, count)[:, list(timeline.representative(count))].astype(np.float64), axis=1)
