"""Where each GPU event belongs: denoise step, module path, operator, category.

The step is that of the LAUNCH: the GPU lags tens of milliseconds behind the CPU, so that the time at which a kernel
runs says nothing. A GPU event whose launch is not in the trace was queued before the profiler started (the backlog):
it belongs to none of the recorded steps, and is left out and reported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bench.profiling import steps as steps_module
from bench.profiling.categories import categorise
from bench.profiling.trace import ABSENT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bench.profiling.steps import Steps
    from bench.profiling.trace import Frames, Trace

NO_MODULE = 0
"""The path of an event that was launched outside of every module."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """One value for each GPU event of the trace; indices point to the tables here, or to the trace's.

    ``call`` and ``operator`` are rows of the trace's calls and operators, ``signature`` is the operator's; -1 if
    unknown. ``step`` is -1 for what no step launched. ``path`` 0 is outside of every module. ``cut_steps`` are the
    labels of the steps that were left out because the file was cut before all of their events.
    """

    trace: Trace
    steps: Steps
    call: NDArray[np.int64]
    operator: NDArray[np.int64]
    signature: NDArray[np.int64]
    step: NDArray[np.int32]
    path: NDArray[np.int32]
    category: NDArray[np.int32]
    paths: tuple[tuple[str, ...], ...]
    categories: tuple[str, ...]
    cut_steps: tuple[str, ...] = ()

    @property
    def launched(self) -> NDArray[np.bool_]:
        """Which events have their launch in the trace: all but the backlog."""
        return self.call >= 0

    @property
    def counted(self) -> NDArray[np.bool_]:
        """Which events are the work of a step; all that were launched in a trace without steps."""
        return self.step >= 0 if len(self.steps) else self.launched

    def is_in(self, *categories: str) -> NDArray[np.bool_]:
        """Return which events are of these categories."""
        return np.isin(self.category, [index for index, name in enumerate(self.categories) if name in categories])


def lookup(keys: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each wanted value the first row of ``keys`` that has it; -1 where none has, and for ``ABSENT``."""
    if not len(keys):
        return np.full(len(wanted), -1, np.int64)
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    at = np.searchsorted(ordered, wanted)
    at[at == len(keys)] = 0
    return np.where((ordered[at] == wanted) & (wanted != ABSENT), order[at], -1)


def attribute(trace: Trace) -> Attribution:
    """Return where each GPU event of a trace belongs."""
    gpu, calls = trace.gpu, trace.calls
    call = lookup(calls.correlation, gpu.correlation)
    operator = lookup(trace.operators.external, gpu.external)
    signature = np.full(len(gpu), -1, np.int64)
    signature[operator >= 0] = trace.operators.signature[operator[operator >= 0]]
    launched = call >= 0
    launch_us = np.full(len(gpu), np.nan)
    launch_us[launched] = calls.start_us[call[launched]]
    thread = np.full(len(gpu), -1, np.int64)
    thread[launched] = calls.thread[call[launched]]
    found = steps_module.find(trace)
    steps = _whole(found, launch_us) if trace.damage and len(gpu) else found
    path, paths = module_paths(trace.modules, trace.names, launch_us, thread)
    category, categories = _categories(trace, signature)
    return Attribution(
        trace=trace,
        steps=steps,
        call=call,
        operator=operator,
        signature=signature,
        step=steps.step_at(launch_us),
        path=path,
        category=category,
        paths=paths,
        categories=categories,
        cut_steps=found.labels[len(steps) :],
    )


def _whole(steps: Steps, launch_us: NDArray[np.float64]) -> Steps:
    """Return the steps that a cut file has whole.

    Kineto writes launches and GPU events in the order of time, side by side: the last step that has any may lack some.
    """
    present = steps.step_at(launch_us)
    return steps.first(int(present.max()) if len(present) and present.max() > 0 else 0)


def module_paths(
    modules: Frames, names: tuple[str, ...], time_us: NDArray[np.float64], thread: NDArray[np.int64]
) -> tuple[NDArray[np.int32], tuple[tuple[str, ...], ...]]:
    """Return the module path at each time on a thread, and the table of paths (outermost first).

    Module frames nest on their thread, so that a sweep over their starts and ends gives the open frames between any
    two; a time is then looked up among these edges.
    """
    table: dict[tuple[int, ...], int] = {(): NO_MODULE}
    found = np.zeros(len(time_us), np.int32)
    for number in np.unique(modules.thread):
        mine = thread == number
        if not mine.any():
            continue
        edges, states = _sweep(modules, np.flatnonzero(modules.thread == number), table)
        at = np.searchsorted(edges, time_us[mine], side="right") - 1
        found[mine] = np.where(at >= 0, states[np.clip(at, 0, None)], NO_MODULE)
    return found, tuple(tuple(names[name] for name in path) for path in table)


def _sweep(
    modules: Frames, rows: NDArray[np.intp], table: dict[tuple[int, ...], int]
) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Return the times at which the open frames of a thread change, and the path from each on."""
    rows = rows[np.lexsort((-modules.end_us[rows], modules.start_us[rows]))]
    starts, ends, labels = (column[rows].tolist() for column in (modules.start_us, modules.end_us, modules.name))
    times: list[float] = []
    states: list[int] = []
    open_ends: list[float] = []
    path: tuple[int, ...] = ()

    def close_until(time: float) -> None:
        nonlocal path
        while open_ends and open_ends[-1] <= time:
            times.append(open_ends.pop())
            path = path[:-1]
            states.append(table.setdefault(path, len(table)))

    for start, end, label in zip(starts, ends, labels, strict=True):
        close_until(start)
        path = (*path, label)
        open_ends.append(min(end, open_ends[-1]) if open_ends else end)
        times.append(start)
        states.append(table.setdefault(path, len(table)))
    close_until(float("inf"))
    return np.array(times), np.array(states, np.int32)


def _categories(trace: Trace, signature: NDArray[np.int64]) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """Categorise each distinct (name, kind, signature) once."""
    gpu = trace.gpu
    width = len(trace.signatures) + 1
    key = (gpu.name.astype(np.int64) * 3 + gpu.kind) * width + signature + 1
    distinct, inverse = np.unique(key, return_inverse=True)
    table: dict[str, int] = {}
    of_key = np.empty(len(distinct), np.int32)
    for index, value in enumerate(distinct.tolist()):
        named, at = divmod(value, width)
        name, kind = divmod(named, 3)
        category = categorise(trace.names[name], kind, trace.signatures[at - 1] if at else None)
        of_key[index] = table.setdefault(category, len(table))
    return of_key[inverse], tuple(table)
