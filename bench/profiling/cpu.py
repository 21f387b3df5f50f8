"""The operator view: CPU time by operator and shape, for a trace that has no GPU events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bench.profiling import timeline
from bench.profiling.steps import class_of

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator

    from numpy.typing import NDArray

    from bench.profiling.steps import Steps
    from bench.profiling.trace import Trace


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


def operators(trace: Trace, steps: Steps) -> list[dict[str, Any]]:
    """Return the operators of a step by their shapes, most own time first; of the whole trace when it has no steps."""
    rows = trace.operators
    own = self_us(rows.start_us, rows.duration_us, rows.thread)
    called = [(signature.operator, signature.shape) for signature in trace.signatures]
    found = [
        {"operator": operator, "shape": shape} | figures
        for (operator, shape), figures in _per_step(
            called, rows.signature, steps, rows.start_us, self_ms=own, total_ms=rows.duration_us
        )
    ]
    return sorted(found, key=lambda one: (-one["self_ms"], one["operator"], one["shape"]))


def modules(trace: Trace, steps: Steps) -> list[dict[str, Any]]:
    """Return the classes of modules in a step, most time first; one that contains itself counts at each level."""
    rows = trace.modules
    classes = map(class_of, trace.names)
    found = [
        {"module": module} | figures
        for module, figures in _per_step(classes, rows.name, steps, rows.start_us, total_ms=rows.duration_us)
    ]
    return sorted(found, key=lambda one: (-one["total_ms"], one["module"]))


def _per_step(
    labels: Iterable[Any],
    label: NDArray[np.uint32],
    steps: Steps,
    start_us: NDArray[np.float64],
    **columns_us: NDArray[np.float64],
) -> Iterator[tuple[Any, dict[str, float]]]:
    """Yield each label that a step has, with how often it has it and the milliseconds in each column.

    All are medians over the representative steps; ``label`` is the place of each row's label among the labels.
    """
    table: dict[Hashable, int] = {}
    group = np.array([table.setdefault(each, len(table)) for each in labels], np.int64)[label]
    step = steps.step_at(start_us) if len(steps) else np.zeros(len(start_us), np.int32)
    inside = step >= 0
    count = max(1, len(steps))
    flat = group[inside] * count + step[inside]

    def medians(values: NDArray[np.float64] | None) -> NDArray[np.float64]:
        sums = np.bincount(flat, values, minlength=len(table) * count).reshape(len(table), count)
        return np.median(sums[:, list(timeline.representative(count))].astype(np.float64), axis=1)

    counts = medians(None)
    times = {name: medians(values[inside]) / 1e3 for name, values in columns_us.items()}
    for each, at in table.items():
        if counts[at]:
            yield each, {"per_step": float(counts[at])} | {name: float(values[at]) for name, values in times.items()}
