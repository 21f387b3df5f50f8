"""GPU time by kernel, operator, shape and module: the rows that shapes, fast paths, diffs and reports are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bench.profiling import timeline, work
from bench.profiling.steps import class_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bench.profiling.attribution import Attribution
    from bench.profiling.trace import Signature
    from bench.profiling.work import Work


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """All events of one kernel, called by one operator with one shape, in one kind of module.

    ``count`` and ``time_ms`` have one value for each step. ``per_step`` and ``ms`` are their medians over the
    representative steps; ``median_us`` and ``p95_us`` are of single events in these. ``work`` is that of one event.
    """

    kernel: str
    signature: Signature | None
    category: str
    module: str
    count: tuple[int, ...]
    time_ms: tuple[float, ...]
    per_step: float
    ms: float
    median_us: float
    p95_us: float
    work: Work

    @property
    def operator(self) -> str:
        """The operator's name, empty where the event has none."""
        return self.signature.operator if self.signature else ""

    @property
    def shape(self) -> str:
        """The operator's input shapes in short."""
        return self.signature.shape if self.signature else ""

    @property
    def tflops(self) -> float | None:
        """Achieved 1e12 FLOP/s of the median event; None where the FLOPs are not known."""
        return self.work.flops / self.median_us / 1e6 if self.work.flops and self.median_us else None

    @property
    def tb_s(self) -> float | None:
        """Achieved 1e12 bytes/s of the median event, of the bytes that must be moved; None where they are not known."""
        return self.work.moved_bytes / self.median_us / 1e6 if self.work.moved_bytes and self.median_us else None


def module_path(path: tuple[str, ...]) -> str:
    """Return a module path as class names, outermost first: ``FluxTransformer2DModel > LayerNorm``."""
    return " > ".join(map(class_of, path))


def rows(attribution: Attribution, *, inside: bool = True) -> tuple[Row, ...]:
    """Return the rows of a trace, most time first: of its steps, or of what was launched outside of them.

    A trace without steps is one step.
    """
    stepped = bool(len(attribution.steps))
    chosen = attribution.counted if inside else attribution.launched & ~attribution.counted
    events = np.flatnonzero(chosen)
    if not len(events):
        return ()
    step = attribution.step[events] if stepped and inside else np.zeros(len(events), np.int32)
    present = np.unique(step)
    place = np.searchsorted(present, step)
    keys, group, modules = _groups(attribution, events)
    duration = attribution.trace.gpu.duration_us[events]
    main = _main_kernels(attribution, events)
    shape = (len(keys), len(present))
    flat = group * len(present) + place
    count = np.bincount(flat, minlength=shape[0] * shape[1]).reshape(shape)
    time_ms = np.bincount(flat, weights=duration, minlength=shape[0] * shape[1]).reshape(shape) / 1e3
    usual = list(timeline.representative(len(present)))
    order = np.lexsort((duration, group))
    order = order[np.isin(place[order], usual)]
    bounds = np.searchsorted(group[order], np.arange(len(keys) + 1))
    is_main = np.bincount(group, weights=main, minlength=len(keys)) * 2 > count.sum(axis=1)
    trace = attribution.trace
    found = []
    for index, (name, signature, category, module) in enumerate(keys.tolist()):
        mine = duration[order[bounds[index] : bounds[index + 1]]]
        called = trace.signatures[signature] if signature >= 0 else None
        kernel = trace.names[name]
        found.append(
            Row(
                kernel=kernel,
                signature=called,
                category=attribution.categories[category],
                module=modules[module],
                count=tuple(count[index].tolist()),
                time_ms=tuple(time_ms[index].tolist()),
                per_step=float(np.median(count[index, usual])),
                ms=float(np.median(time_ms[index, usual])),
                median_us=float(np.median(mine)) if len(mine) else 0.0,
                p95_us=float(np.percentile(mine, 95)) if len(mine) else 0.0,
                work=work.estimate(called, kernel) if is_main[index] else work.Work(),
            )
        )
    return tuple(sorted(found, key=lambda row: (-row.ms, row.kernel, row.module, row.shape)))


def _groups(
    attribution: Attribution, events: NDArray[np.intp]
) -> tuple[NDArray[np.int64], NDArray[np.intp], tuple[str, ...]]:
    """Return the distinct (name, signature, category, module class path), each event's group, and the class paths."""
    table: dict[str, int] = {}
    of_path = np.array([table.setdefault(module_path(path), len(table)) for path in attribution.paths])
    columns = np.stack(
        [
            attribution.trace.gpu.name[events].astype(np.int64),
            attribution.signature[events],
            attribution.category[events].astype(np.int64),
            of_path[attribution.path[events]],
        ]
    )
    packed = np.ravel_multi_index(
        (columns[0], columns[1] + 1, columns[2], columns[3]),
        tuple(int(column.max()) + 2 for column in columns),
    )
    _, first, group = np.unique(packed, return_index=True, return_inverse=True)
    return columns[:, first].T, group, tuple(table)


def _main_kernels(attribution: Attribution, events: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Return which events do their operator's work: of the kernels that one call launched, the longest.

    A split-K GEMM launches the product and a reduction; its FLOPs are to be counted once.
    """
    gpu = attribution.trace.gpu
    external = gpu.external[events]
    order = np.lexsort((-gpu.duration_us[events], external))
    first = np.ones(len(order), np.bool_)
    first[1:] = external[order][1:] != external[order][:-1]
    main = np.zeros(len(events), np.bool_)
    main[order[first]] = True
    return main & (attribution.operator[events] >= 0)
