"""Which document a file holds, and whether it conforms to its schema."""

from __future__ import annotations

import functools
import shlex
from typing import TYPE_CHECKING, Any

from bench import paths, schema
from bench.catalog import presets
from bench.errors import InvalidDocument, InvalidPerfDump, UsageError
from bench.record import store

if TYPE_CHECKING:
    from pathlib import Path


IN_DIRECTORIES = (
    "comparison.json",
    "summary.json",
    "matrix.json",
    "accuracy.json",
    "golden.json",
    store.LOAD_RECORD,
    "probe.json",
    "reach.json",
    "bisect.json",
    "sweep.json",
    "load-comparison.json",
)
"""Where such a document is in the directory of what made it."""

BY_FIELDS = (
    ("perf-dump", {"total_duration_ms", "steps", "denoise_steps_ms"}),
    ("profile-report", {"context", "traces", "ranks"}),
    ("profile-diff", {"verdict", "buckets"}),
)
"""Documents that do not name their schema, by fields that tell them: for a dump one is enough, it may be broken."""


@functools.cache
def _naming_themselves() -> frozenset[str]:
    """Return the kinds of documents that name their schema: it demands its own name of them."""
    schemas = {path.stem: schema.read(path)["properties"] for path in paths.SCHEMAS.glob("*.json")}
    return frozenset(kind for kind, fields in schemas.items() if fields.get("schema", {}).get("const") == kind)


def validate(path: Path) -> str:
    """Return the kind of the document in ``path``: one that names its schema, preset, or one of `BY_FIELDS`.

    Raises:
        UsageError: it cannot be read.
        InvalidDocument: it violates its schema, or is not one of these.
        InvalidPerfDump: likewise for a perf dump.
    """
    if path.is_dir():
        path = _in_directory(path)
        if path.name in (store.RECORD, store.PARTIAL):
            store.read(path)
            return "run-record"
    if not path.exists():
        raise UsageError("no such file", where=path)
    if path.suffix == ".toml":
        presets.read_file(path)
        return "preset"
    document = schema.read(path)
    kind = document.get("schema") if isinstance(document, dict) else None
    if kind == "run-record":
        store.read(path)
        return "run-record"
    if isinstance(kind, str) and kind in _naming_themselves():
        earlier = kind == "ab-record" and document.get("schema_version") == 1
        schema.check(document, "ab-record-1" if earlier else kind, path)
        return str(kind)
    for told, fields in BY_FIELDS:
        known = fields & document.keys() if isinstance(document, dict) else set()
        if known == fields or (known and told == "perf-dump"):
            schema.check(document, told, path, InvalidPerfDump if told == "perf-dump" else InvalidDocument)
            return told
    raise InvalidDocument("neither a perf dump nor a document of this tool", where=path)


def _in_directory(folder: Path) -> Path:
    """Return the document in a directory, which has one by what made it.

    Raises:
        UsageError: it has none.
    """
    known = (*IN_DIRECTORIES, store.PARTIAL, store.RECORD, store.ANALYSIS)
    found = next((folder / name for name in known if (folder / name).is_file()), None)
    if found is None:
        raise UsageError("this folder has no record", where=folder, todo="name a run's own folder, or last")
    return found


def arms(folder: Path) -> dict[str, Any]:
    """Return the comparison of two arms in a folder.

    Raises:
        InvalidDocument: it does not conform to its schema.
        UsageError: it is of version 1, which had other metrics and pairs.
    """
    validate(folder)
    document: dict[str, Any] = schema.read(folder / store.ARMS)
    if document["schema_version"] == 1:
        sides = shlex.join(["invoke", "attest", *(str(folder / name) for name in ("baseline", "candidate"))])
        raise UsageError(
            "comparisons of version 1 cannot be judged or shown any more",
            where=folder / store.ARMS,
            todo=f"`{sides}` judges its two runs; `invoke ab` compares anew",
        )
    return document
