"""What others may want of a trace: its GPU events as CSV, and one step as a small trace that Perfetto opens at once."""

from __future__ import annotations

import csv
import gzip
import io
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from bench import redact, safe_text
from bench.errors import UsageError
from bench.profiling.table import module_path
from bench.profiling.trace import KERNEL, MEMCPY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from bench.profiling.attribution import Attribution
    from bench.profiling.trace import Trace

COLUMNS = (
    "step",
    "start_us",
    "duration_us",
    "launch_us",
    "device",
    "stream",
    "category",
    "kernel",
    "operator",
    "shape",
    "module",
    "instance",
)
"""The columns of the events: times since the trace's origin; ``step`` is empty for what belongs to none,
``launch_us`` for the backlog; ``instance`` is the module path with the instances' numbers."""

KINETO = {KERNEL: "kernel", MEMCPY: "gpu_memcpy"}


def _open(path: Path) -> IO[str]:
    try:
        # no name and no time in the header: equal contents are equal files
        return io.TextIOWrapper(gzip.GzipFile("", "wb", 6, path.open("xb"), mtime=0), encoding="utf-8", newline="")
    except OSError as error:
        raise UsageError(f"cannot be written: {error.strerror}", where=path, todo="choose another folder") from error


def into(directory: Path) -> Callable[[Attribution, dict[str, Any]], None]:
    """Return what ``analysis.analyse`` calls with each trace to export it to a folder.

    It writes ``events.csv.gz`` and ``step.trace.json.gz`` for a trace with GPU events, with the rank before them
    (``rank1-events.csv.gz``) where the job has several.
    """

    def export(attribution: Attribution, document: dict[str, Any]) -> None:
        if document["gpu"] is None:
            return
        rank, size = document["source"]["rank"], document["source"]["world_size"]
        prefix = f"rank{rank}-" if rank is not None and (size or 1) > 1 else ""
        events_csv(attribution, directory / f"{prefix}events.csv.gz")
        if (label := typical_step(document["gpu"])) is not None:
            slim_trace(attribution, label, directory / f"{prefix}step.trace.json.gz")

    return export


def events_csv(attribution: Attribution, path: Path) -> None:
    """Write one line for each GPU event to ``path``, a new gzip file.

    Raises:
        UsageError: the file is there already, or cannot be written.
    """
    trace = attribution.trace
    gpu, names, signatures = trace.gpu, trace.names, trace.signatures
    classes = [_cell(module_path(one)) for one in attribution.paths]
    instances = [_cell(" > ".join(one)) for one in attribution.paths]
    operators = [_cell(signature.operator) for signature in signatures]
    shapes = [_cell(signature.shape) for signature in signatures]
    kernels = [_cell(name) for name in names]
    labels = [_cell(label) for label in attribution.steps.labels]
    launched = attribution.launched
    launch_us = np.full(len(gpu), np.nan)
    launch_us[launched] = trace.calls.start_us[attribution.call[launched]]
    signature = attribution.signature
    with _open(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in np.argsort(gpu.start_us, kind="stable").tolist():
            step, called, where = int(attribution.step[row]), int(signature[row]), int(attribution.path[row])
            writer.writerow(
                (
                    labels[step] if step >= 0 else "",
                    f"{gpu.start_us[row]:.3f}",
                    f"{gpu.duration_us[row]:.3f}",
                    f"{launch_us[row]:.3f}" if launched[row] else "",
                    int(gpu.device[row]),
                    int(gpu.stream[row]),
                    attribution.categories[attribution.category[row]],
                    kernels[gpu.name[row]],
                    operators[called] if called >= 0 else "",
                    shapes[called] if called >= 0 else "",
                    classes[where],
                    instances[where],
                )
            )


def _cell(text: str) -> str:
    """Return text of a trace for a cell: no formula, no secret."""
    return safe_text.csv_cell(redact.text(text))


def typical_step(gpu: Mapping[str, Any]) -> str | None:
    """Return the label of the counted step whose busy time is nearest to the median; None without steps."""
    counted = [step for step in gpu["steps"] if step["role"] == "counted"]
    usual = gpu["median_step"]["busy_ms"]
    return min(counted, key=lambda step: abs(step["busy_ms"] - usual))["label"] if counted else None


def slim_trace(attribution: Attribution, label: str, path: Path) -> None:
    """Write the step with this label to ``path``, a new gzip file.

    It is a trace like Kineto's, with the category and the module path in the arguments of every GPU event, arrows from
    launches to kernels, and the number of queued events as a counter.

    Raises:
        UsageError: the file is there already, or cannot be written.
    """
    import orjson  # noqa: PLC0415 - see bench.profiling.events

    head = {
        name: attribution.trace.head[name]
        for name in ("schemaVersion", "deviceProperties", "distributedInfo", "with_stack", "record_shapes")
        if name in attribution.trace.head
    }
    with _open(path) as file:
        secrets = redact.known()
        shown = redact.document(head, secrets)
        file.write("{" + "".join(f'\n  "{name}": {orjson.dumps(value).decode()},' for name, value in shown.items()))
        file.write('\n  "displayTimeUnit": "ms",\n  "traceEvents": [')
        for number, event in enumerate(_events(attribution, attribution.steps.labels.index(label))):
            shown = redact.document(event, secrets)
            members = ", ".join(f'"{name}": {orjson.dumps(value).decode()}' for name, value in shown.items())
            file.write(("," if number else "") + "\n  {\n    " + members + "\n  }")
        file.write("\n  ]\n}\n")


def _events(attribution: Attribution, step: int) -> Iterator[dict[str, Any]]:
    trace, steps = attribution.trace, attribution.steps
    low, high = float(steps.start_us[step]), float(steps.end_us[step])
    threads = [(index, *thread) for index, thread in enumerate(trace.threads)]
    process = threads[0][1] if threads else 0
    yield {"name": "process_name", "ph": "M", "pid": process, "tid": 0, "args": {"name": "CPU"}}
    label = f"ProfilerStep#{steps.labels[step]}"
    where = {"pid": process, "tid": threads[0][2] if threads else 0}
    yield _span("user_annotation", label, low, high - low) | where
    # every span of the CPU that touches the step: a module frame may have been opened before it
    for category, spans, told in (
        ("cpu_op", trace.operators, _operator),
        ("python_function", trace.modules, _module),
        ("cuda_runtime", trace.calls, _call),
    ):
        for row in np.flatnonzero((spans.start_us <= high) & (spans.end_us >= low)).tolist():
            name, more = told(trace, row)
            thread = trace.threads[spans.thread[row]]
            event = _span(category, name, float(spans.start_us[row]), float(spans.duration_us[row]))
            yield event | {"pid": thread[0], "tid": thread[1]} | more
    yield from _gpu_events(attribution, step, process)


def _span(category: str, name: str, start_us: float, duration_us: float) -> dict[str, Any]:
    return {"ph": "X", "cat": category, "name": name, "ts": round(start_us, 3), "dur": round(duration_us, 3)}


def _operator(trace: Trace, row: int) -> tuple[str, dict[str, Any]]:
    """Return the name of an operator's event and its arguments; `_module` and `_call` likewise."""
    signature = trace.signatures[trace.operators.signature[row]]
    arguments: dict[str, Any] = {"External id": int(trace.operators.external[row])}
    arguments |= {"Input Dims": list(signature.dims), "Input type": list(signature.types)}
    if signature.concrete:
        arguments["Concrete Inputs"] = list(signature.concrete)
    return signature.operator, {"args": arguments}


def _module(trace: Trace, row: int) -> tuple[str, dict[str, Any]]:
    return f"nn.Module: {trace.names[trace.modules.name[row]]}", {}


def _call(trace: Trace, row: int) -> tuple[str, dict[str, Any]]:
    return trace.names[trace.calls.name[row]], {"args": {"correlation": int(trace.calls.correlation[row])}}


def _gpu_events(attribution: Attribution, step: int, process: Any) -> Iterator[dict[str, Any]]:
    trace = attribution.trace
    gpu, calls = trace.gpu, trace.calls
    rows = np.flatnonzero(attribution.step == step)
    for device in np.unique(gpu.device[rows]).tolist():
        yield {"name": "process_name", "ph": "M", "pid": device, "tid": 0, "args": {"name": f"GPU {device}"}}
    for row in rows.tolist():
        call = int(attribution.call[row])
        correlation = int(gpu.correlation[row])
        start = float(gpu.start_us[row])
        place = {"pid": int(gpu.device[row]), "tid": int(gpu.stream[row])}
        category = KINETO.get(int(gpu.kind[row]), "gpu_memset")
        arguments = {
            "External id": int(gpu.external[row]),
            "device": int(gpu.device[row]),
            "stream": int(gpu.stream[row]),
            "correlation": correlation,
            "category": attribution.categories[attribution.category[row]],
            "module": " > ".join(attribution.paths[attribution.path[row]]),
        }
        event = _span(category, trace.names[gpu.name[row]], start, float(gpu.duration_us[row]))
        yield event | place | {"args": arguments}
        thread = trace.threads[calls.thread[call]]
        arrow = {"id": correlation, "cat": "ac2g", "name": "ac2g"}
        launched = round(float(calls.start_us[call]), 3)
        yield {"ph": "s"} | arrow | {"pid": thread[0], "tid": thread[1], "ts": launched}
        yield {"ph": "f"} | arrow | place | {"ts": round(start, 3), "bp": "e"}
    yield from _queue(attribution, rows.tolist(), process)


def _queue(attribution: Attribution, rows: list[int], process: Any) -> Iterator[dict[str, Any]]:
    """Yield how many events of the step were launched and had not begun, each time it changes."""
    gpu, calls = attribution.trace.gpu, attribution.trace.calls
    changes = [(float(calls.start_us[attribution.call[row]]), 1) for row in rows]
    changes += [(float(gpu.start_us[row]), -1) for row in rows]
    depth = 0
    for time_us, change in sorted(changes):
        depth += change
        yield {
            "ph": "C",
            "name": "queued GPU events",
            "pid": process,
            "ts": round(time_us, 3),
            "args": {"queued": depth},
        }
