"""Which document a file holds, and whether it keeps its schema."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import record, schema
from bench.catalog import presets
from bench.errors import InvalidDocument, InvalidPerfDump, UsageError

if TYPE_CHECKING:
    from pathlib import Path


OTHERS = frozenset({"ab-record", "batch-summary"})
"""Documents that name their schema themselves, besides run records."""


def validate(path: Path) -> str:
    """Return the kind of the document in ``path``: run-record, batch-summary, perf-dump or preset.

    Raises:
        UsageError: it cannot be read.
        InvalidDocument: it breaks its schema, or is none of these.
        InvalidPerfDump: likewise for a perf dump.
    """
    if path.is_dir():
        record.read(path)
        return "run-record"
    if not path.is_file():
        raise UsageError("no such file", where=path)
    if path.suffix == ".toml":
        presets.read_file(path)
        return "preset"
    document = schema.read(path)
    if isinstance(document, dict) and document.get("schema") == "run-record":
        record.read(path)
        return "run-record"
    kind = document.get("schema") if isinstance(document, dict) else None
    if kind in OTHERS:
        schema.check(document, kind, path)
        return str(kind)
    if isinstance(document, dict) and {"total_duration_ms", "steps", "denoise_steps_ms"} & document.keys():
        schema.check(document, "perf-dump", path, InvalidPerfDump)
        return "perf-dump"
    raise InvalidDocument("neither a perf dump nor a run record", where=path)
