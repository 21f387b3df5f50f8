"""Read a torch.profiler trace into typed columns, in bounded memory.

Links and names are Kineto's: a GPU event names its launch by ``correlation`` (a cuda_runtime or cuda_driver event)
and its operator by ``External id`` (the innermost cpu_op); modules are python_function frames called
``nn.Module: ClassName_3``, whose number is the instance's, counted per class.
"""

from __future__ import annotations

from array import array
from collections import Counter
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from bench.errors import InvalidDocument
from bench.profiling.events import UNREADABLE_SHARE, Progress, batches
from bench.profiling.source import NOT_A_TRACE, Source
from bench.profiling.trace import (
    ABSENT,
    KERNEL,
    MEMCPY,
    MEMSET,
    Calls,
    Frames,
    GpuEvents,
    Operators,
    Signature,
    Trace,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

GPU_CATEGORIES = {"kernel": KERNEL, "gpu_memcpy": MEMCPY, "gpu_memset": MEMSET}
CALL_CATEGORIES = ("cuda_runtime", "cuda_driver", "hip_runtime", "xpu_runtime", "xpu_driver", "privateuse1_runtime")
MODULE = "nn.Module: "
LONGEST_US = 1e18
"""A thousand times the microseconds from 1970 until now."""


MOST_DIFFERENT = 1 << 16
"""Names, calls with their shapes, or threads of one trace; a large model's has thousands of each."""
MOST_CHARACTERS = 1 << 28
"""Of all different ones of a kind together."""


class TooManyDifferent(Exception):
    """A trace has more different names than any program: to keep them would take all memory."""


class Interned(dict[Any, int]):
    """The index of each value, in the order of their first sight."""

    characters = 0

    def __missing__(self, value: Any) -> int:
        self.characters += len(str(value))
        if len(self) >= MOST_DIFFERENT or self.characters > MOST_CHARACTERS:
            raise TooManyDifferent
        index = self[value] = len(self)
        return index


class Rows:
    """Columns that grow: one ``array`` each, by name, with its type code."""

    def __init__(self, **codes: str) -> None:
        self.columns = {name: array(code) for name, code in codes.items()}
        self.appends = tuple(column.append for column in self.columns.values())

    def finish(self, origin_us: float) -> dict[str, Any]:
        """Return the columns as numpy arrays that share their memory; starts are counted from the origin."""
        done: dict[str, Any] = {}
        for name, column in self.columns.items():
            done[name] = np.frombuffer(column, dtype=column.typecode) if column else np.empty(0, column.typecode)
        if len(done["start_us"]):
            done["start_us"] -= origin_us
        return done


class Columns:
    """Takes events one by one and keeps what analyses need of them."""

    def __init__(self) -> None:
        import orjson  # noqa: PLC0415 - see bench.profiling.events

        self.dumps = orjson.dumps
        self.gpu = Rows(
            name="I", kind="B", start_us="d", duration_us="d", correlation="q", external="q", stream="i", device="i"
        )
        self.calls = Rows(name="I", start_us="d", duration_us="d", correlation="q", thread="I")
        self.operators = Rows(signature="I", start_us="d", duration_us="d", external="q", thread="I")
        self.modules = Rows(name="I", start_us="d", duration_us="d", thread="I")
        self.annotations = Rows(name="I", start_us="d", duration_us="d", thread="I")
        self.names = Interned()
        self.signatures = Interned()
        self.threads = Interned()
        self.counts: Counter[str] = Counter()

    def take(self, events: list[dict[str, Any]]) -> None:
        """Add a batch of events.

        Raises:
            KeyError: an event lacks a member that its kind always has; also TypeError, AttributeError, OverflowError.
        """
        counts = self.counts
        for event in events:
            category = event.get("cat") or f"({event['ph']})"
            counts[category] += 1
            if event["ph"] != "X":
                continue
            if category == "cpu_op":
                self._operator(event)
            elif category in GPU_CATEGORIES:
                self._gpu_event(event, GPU_CATEGORIES[category])
            elif category in CALL_CATEGORIES:
                self._call(event)
            elif category == "python_function":
                if event["name"].startswith(MODULE):
                    self._frame(self.modules, event, event["name"][len(MODULE) :])
            elif category == "user_annotation":
                self._frame(self.annotations, event, event["name"])

    def _gpu_event(self, event: Mapping[str, Any], kind: int) -> None:
        name, kinds, start, duration, correlation, external, stream, device = self.gpu.appends
        arguments = event.get("args") or {}
        start(event["ts"])
        duration(event["dur"])
        name(self.names[event["name"]])
        kinds(kind)
        correlation(arguments.get("correlation", ABSENT))
        external(arguments.get("External id", ABSENT))
        stream(arguments.get("stream", ABSENT))
        device(arguments.get("device", ABSENT))

    def _call(self, event: Mapping[str, Any]) -> None:
        name, start, duration, correlation, thread = self.calls.appends
        start(event["ts"])
        duration(event["dur"])
        name(self.names[event["name"]])
        correlation((event.get("args") or {}).get("correlation", ABSENT))
        thread(self.threads[event["pid"], event["tid"]])

    def _operator(self, event: Mapping[str, Any]) -> None:
        signature, start, duration, external, thread = self.operators.appends
        arguments = event.get("args") or {}
        name = event["name"]
        dumps = self.dumps
        concrete = dumps(arguments.get("Concrete Inputs", ())) if "conv" in name else b"[]"
        key = (name, dumps(arguments.get("Input Dims", ())), dumps(arguments.get("Input type", ())), concrete)
        start(event["ts"])
        duration(event["dur"])
        signature(self.signatures[key])
        external(arguments.get("External id", ABSENT))
        thread(self.threads[event["pid"], event["tid"]])

    def _frame(self, rows: Rows, event: Mapping[str, Any], label: str) -> None:
        name, start, duration, thread = rows.appends
        start(event["ts"])
        duration(event["dur"])
        name(self.names[label])
        thread(self.threads[event["pid"], event["tid"]])


def read(path: Path) -> Trace:
    """Return the trace in a file, gzip or plain, indented or compact.

    A file that was cut gives the events before the cut, with ``damage`` set.

    Raises:
        UsageError: the file is not there, is empty, or is packed in a way that is not gzip.
        InvalidDocument: it is not a trace, or is broken.
    """
    source, progress, columns = Source(path), Progress(), Columns()
    for batch in batches(source, progress):
        try:
            columns.take(batch)
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            _refuse(source, columns, error)
        except TooManyDifferent:
            raise InvalidDocument(
                f"more than {MOST_DIFFERENT:,} different names, or {MOST_CHARACTERS >> 20} MiB of them",
                where=path,
                todo=NOT_A_TRACE,
            ) from None
    columns.counts.update(progress.dropped)
    damage = source.damage if source.damage or progress.complete else "the file ends in the middle of the events"
    total = sum(columns.counts.values())
    if progress.unreadable > max(8, UNREADABLE_SHARE * total):
        raise InvalidDocument(
            f"the trace is damaged: {progress.unreadable:,} of {total:,} events are not JSON",
            where=path,
            todo="capture it again",
        )
    if total == 0:
        what = f"no event can be read: {damage}" if damage else "the trace has no events"
        raise InvalidDocument(what, where=path, todo=NOT_A_TRACE)
    return _finished(source, progress, columns, damage)


def _refuse(source: Source, columns: Columns, error: Exception) -> NoReturn:
    number = sum(columns.counts.values())
    lacks = f"missing {error}" if isinstance(error, KeyError) else str(error)
    raise InvalidDocument(
        f"event {number:,} is not a torch.profiler event: {lacks}", where=source.path, todo=NOT_A_TRACE
    ) from error


def _signature(key: tuple[str, bytes, bytes, bytes]) -> Signature:
    import orjson  # noqa: PLC0415 - see bench.profiling.events

    operator, dims, types, concrete = key
    return Signature(
        operator=operator,
        dims=tuple(orjson.loads(dims)),
        types=tuple(map(str, orjson.loads(types))),
        concrete=tuple(map(str, orjson.loads(concrete))),
    )


def _check_times(source: Source, rows: Rows) -> None:
    for name, column in rows.columns.items():
        if name.endswith("_us") and column and not max(map(abs, (min(column), max(column)))) < LONGEST_US:
            raise InvalidDocument(
                f"a time in the trace is beyond {LONGEST_US:g} us", where=source.path, todo=NOT_A_TRACE
            )


def _finished(source: Source, progress: Progress, columns: Columns, damage: str | None) -> Trace:
    tables = (columns.gpu, columns.calls, columns.operators, columns.modules, columns.annotations)
    for rows in tables:
        _check_times(source, rows)
    origin = min((min(rows.columns["start_us"]) for rows in tables if rows.columns["start_us"]), default=0.0)
    return Trace(
        path=source.path,
        origin_us=origin,
        gpu=GpuEvents(**columns.gpu.finish(origin)),
        calls=Calls(**columns.calls.finish(origin)),
        operators=Operators(**columns.operators.finish(origin)),
        modules=Frames(**columns.modules.finish(origin)),
        annotations=Frames(**columns.annotations.finish(origin)),
        names=tuple(columns.names),
        signatures=tuple(map(_signature, columns.signatures)),
        threads=tuple(columns.threads),
        head=progress.head,
        counts=dict(columns.counts),
        file_bytes=source.file_bytes,
        raw_bytes=source.raw_bytes,
        parser=progress.parser,
        unreadable=progress.unreadable,
        damage=damage,
    )
