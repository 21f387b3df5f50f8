"""Which document a file holds, and whether it keeps its schema."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import record, schema
from bench.catalog import presets
from bench.errors import InvalidDocument, InvalidPerfDump, UsageError

if TYPE_CHECKING:
    from pathlib import Path


OTHERS = frozenset({"ab-record", "batch-summary", "accuracy-report", "golden"})
"""Documents that name their schema themselves, besides run records."""

IN_DIRECTORIES = ("comparison.json", "summary.json", "accuracy.json", "golden.json")
"""Where such a document is in the directory of what made it."""


def validate(path: Path) -> str:
    """Return the kind of the document in ``path``: run-record, perf-dump, preset, or one of `OTHERS`.

    Raises:
        UsageError: it cannot be read.
        InvalidDocument: it breaks its schema, or is none of these.
        InvalidPerfDump: likewise for a perf dump.
    """
    if path.is_dir():
        # a directory has one of these, by what made it
        other = next((path / name for name in IN_DIRECTORIES if (path / name).is_file()), None)
        if other is None:
            record.read(path)
            return "run-record"
        path = other
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
