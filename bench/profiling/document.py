"""The parts of the profile report that say what a trace says of itself, and the shape of a row."""

from __future__ import annotations

import contextlib
import datetime as dt
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.profiling.table import Row
    from bench.profiling.trace import Trace


def listed(value: Any) -> Any:
    """Return a document with lists for tuples: JSON has no tuples, and neither has its schema."""
    if isinstance(value, dict):
        return {name: listed(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [listed(member) for member in value]
    return value


def source(trace: Trace) -> dict[str, Any]:
    """Return what is known of the file."""
    base = trace.head.get("baseTimeNanoseconds")
    captured = None
    if isinstance(base, int):
        with contextlib.suppress(OverflowError, ValueError, OSError):  # beyond the year 9999
            moment = base / 1e9 + trace.origin_us / 1e6
            captured = dt.datetime.fromtimestamp(moment, dt.UTC).isoformat(timespec="seconds")
    return {
        "path": str(trace.path),
        "file_bytes": trace.file_bytes,
        "raw_bytes": trace.raw_bytes,
        "parser": trace.parser,
        "events": trace.events,
        "unreadable_events": trace.unreadable,
        "damage": trace.damage,
        "truncated": trace.damage is not None,
        "rank": trace.rank,
        "world_size": trace.world_size,
        "captured": captured,
        "with_stack": bool(trace.head["with_stack"]) if "with_stack" in trace.head else None,
        "record_shapes": bool(trace.head["record_shapes"]) if "record_shapes" in trace.head else None,
    }


def device(trace: Trace) -> dict[str, Any] | None:
    """Return the device of the trace; None for one of the CPU only."""
    properties = trace.device
    if properties is None:
        return None
    major, minor = properties.get("computeMajor"), properties.get("computeMinor")
    return {
        "name": properties.get("name"),
        "compute_capability": f"{major}.{minor}" if major is not None else None,
        "multiprocessors": properties.get("numSms"),
        "memory_bytes": properties.get("totalGlobalMem"),
        "cuda_runtime": trace.head.get("cuda_runtime_version"),
        "cuda_driver": trace.head.get("cuda_driver_version"),
    }


def row_document(row: Row) -> dict[str, Any]:
    """Return a row as the report holds it."""
    return {
        "kernel": row.kernel,
        "operator": row.operator,
        "shape": row.shape,
        "category": row.category,
        "module": row.module,
        "per_step": row.per_step,
        "ms": row.ms,
        "median_us": row.median_us,
        "p95_us": row.p95_us,
        "tflops": row.tflops,
        "tb_s": row.tb_s,
        "flops": row.work.flops,
        "moved_bytes": row.work.moved_bytes,
        "count": list(row.count),
        "time_ms": list(row.time_ms),
    }
