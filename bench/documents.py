"""Which document a file holds, and whether it keeps its schema."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import record, schema
from bench.catalog import presets
from bench.errors import InvalidDocument, InvalidPerfDump, UsageError

if TYPE_CHECKING:
    from pathlib import Path


IN_DIRECTORIES = (record.RECORD, "accuracy.json", "golden.json")
PLAIN = ("accuracy-report", "golden")
"""Documents that name their schema in the field `schema`, and that nothing but their schema has to know."""


def validate(path: Path) -> str:
    """Return the kind of the document in ``path``: run-record, accuracy-report, golden, perf-dump or preset.

    Raises:
        UsageError: it cannot be read.
        InvalidDocument: it breaks its schema, or is none of these.
        InvalidPerfDump: likewise for a perf dump.
    """
    if path.is_dir():
        # a run directory has one of these, by what the run was
        path = next((path / name for name in IN_DIRECTORIES if (path / name).is_file()), path / record.RECORD)
    if not path.is_file():
        raise UsageError("no such file", where=path)
    if path.suffix == ".toml":
        presets.read_file(path)
        return "preset"
    document = schema.read(path)
    if isinstance(document, dict) and document.get("schema") == "run-record":
        record.read(path)
        return "run-record"
    if isinstance(document, dict) and document.get("schema") in PLAIN:
        kind = str(document["schema"])
        schema.check(document, kind, path)
        return kind
    if isinstance(document, dict) and {"total_duration_ms", "steps", "denoise_steps_ms"} & document.keys():
        schema.check(document, "perf-dump", path, InvalidPerfDump)
        return "perf-dump"
    raise InvalidDocument("neither a perf dump nor a run record", where=path)
