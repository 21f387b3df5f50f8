"""The operator view: CPU time by operator and shape, for a trace that has no GPU events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

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
    chosen = steps.of(rows.start_us) >= 0 if len(steps) else np.ones(len(rows), np.bool_)
    count = max(1, len(steps))
    width = len(trace.signatures)
    signature = rows.signature[chosen]
    own = np.bincount(signature, self_us(rows.start_us, rows.duration_us, rows.thread)[chosen], width)
    total = np.bincount(signature, rows.duration_us[chosen], width)
    calls = np.bincount(signature, minlength=width)
    merged: dict[tuple[str, str], list[float]] = {}
    for index in np.flatnonzero(calls):
        called = trace.signatures[index]
        sums = merged.setdefault((called.operator, called.shape), [0.0, 0.0, 0.0])
        for at, value in enumerate((calls[index], own[index], total[index])):
            sums[at] += float(value)
    found = [
        OperatorTime(
            operator=name,
            shape=shape,
            per_step=sums[0] / count,
            self_ms=sums[1] / count / 1e3,
            total_ms=sums[2] / count / 1e3,
        )
        for (name, shape), sums in merged.items()
    ]
    return tuple(sorted(found, key=lambda one: (-one.self_ms, one.operator, one.shape)))


def modules(trace: Trace, steps: Steps) -> tuple[ModuleTime, ...]:
    """Return the classes of modules in a step, most time first; one that contains itself counts at each level."""
    frames = trace.modules
    chosen = steps.of(frames.start_us) >= 0 if len(steps) else np.ones(len(frames), np.bool_)
    count = max(1, len(steps))
    merged: dict[str, list[float]] = {}
    for name, start, end in zip(
        frames.name[chosen].tolist(), frames.start_us[chosen].tolist(), frames.end_us[chosen].tolist(), strict=True
    ):
        sums = merged.setdefault(class_of(trace.names[name]), [0.0, 0.0])
        sums[0] += 1
        sums[1] += end - start
    found = [
        ModuleTime(module=name, per_step=sums[0] / count, total_ms=sums[1] / count / 1e3)
        for name, sums in merged.items()
    ]
    return tuple(sorted(found, key=lambda one: (-one.total_ms, one.module)))
