"""Run directories and run records: made fresh, written whole or not at all, never overwritten."""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from bench import paths, redact, schema
from bench.errors import InvalidDocument, UsageError
from bench.record.upgrade import READABLE, upgrade

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bench.record.types import File, Record

# Format history of run records:
#   1  the first; later `quality`, `workload.quality`, `workload.cuda_graph`, `launches[].stopped` and
#      `outputs[].frames` were added to it as optional fields
#   2  all of these are required; `quality` is `fidelity`; new are `instrument` (of the record and of each launch),
#      `stages`, `instrument_cost_percent`, `workload.quality_meaning`, `host.identity`, `launches[].load_s` and
#      `first_answer_s`, their medians in `timings`, and `launches[].left_out`; `receipts` in each verdict; `evidence`
#      names every file that the record rests on, `code` the engine's files
SCHEMA_VERSION = READABLE[-1]

# Methodology history:
#   1  each stage waited for its device in every timed request
#   2  timed requests run as a user's do, after a first one of each session that is left out; synchronised stages are a
#      launch of their own
METHODOLOGY = 2
"""Raised by every change of the workbench that makes earlier numbers incomparable with later ones."""

RECORD = "run.json"
PARTIAL = "run.partial.json"
"""The record of a run that is going on or was cut off; the one file that is ever replaced."""

LOAD_RECORD = "load.json"
"""The record of a load test."""

ARMS, SERVERS = "comparison.json", "load-comparison.json"
"""The comparison of two arms, and that of two servers."""

ANALYSIS = "report/report.json"
"""All that `invoke profile --trace` leaves in its folder; other profiles have a record too."""

RUN = re.compile(r"\d{8}T\d{6}Z-")
"""How the id of a run begins that is a run by itself; arms of a comparison and cells of a matrix have other names."""

REFERENCE = "reference"
"""The kind of a run that proved the diffusers backend: the slow arm of a speed-up, never a baseline or a trend."""

LOG = "engine.log"
REJECTED_DUMP = "perf.rejected.json"


def now() -> datetime:
    """Return the present time in UTC."""
    return datetime.now(UTC)


def safe(name: str) -> str:
    """Return a name as a run directory's name has it."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-") or "run"


def new_run(kind: str, name: str, root: Path | None) -> Path:
    """Make and return a fresh run directory: ``<root>/<UTC time>-<kind>-<name>-<random>``.

    Raises:
        UsageError: it cannot be made.
    """
    root = (root or paths.runs()).absolute()
    folder = root / f"{now():%Y%m%dT%H%M%SZ}-{kind}-{safe(redact.text(name))}-{secrets.token_hex(3)}"
    try:
        folder.mkdir(parents=True, exist_ok=False)
    except OSError as error:
        raise UsageError(
            f"no run directory can be made: {error.strerror}",
            where=folder,
            todo="choose another folder",
            field="output_dir",
        ) from error
    return folder


def file_entry(path: Path, directory: Path) -> File | None:
    """Return a file's name below the run directory, hash and size in bytes; None if none can be read."""
    if not path.is_file():  # a folder or FIFO, which an engine may have left there, costs its own entry only
        return None
    try:
        digest, size = paths.sha256(path), path.stat().st_size
    except OSError:
        return None
    return {"file": str(path.relative_to(directory)), "sha256": digest, "size_bytes": size}


def write(record: Record, folder: Path) -> Path:
    """Write a finished record into its run directory, take the partial one away, and return its path.

    Raises:
        InvalidDocument: it violates its schema, which is an internal error.
        UsageError: it cannot be written.
    """
    path = folder / RECORD
    schema.write(record, "run-record", path)
    (folder / PARTIAL).unlink(missing_ok=True)
    return path


def write_partial(record: Record, folder: Path) -> Path:
    """Write what is known of an unfinished run over what was known before, and return its path."""
    path = folder / PARTIAL
    schema.write(record, "run-record", path, replace=True)
    return path


def read(path: Path) -> Record:
    """Return a record from its file or run directory, in the present format whatever its own is.

    Raises:
        InvalidDocument: it is not a record, or of an unknown version.
    """
    if path.is_dir():
        path = path / PARTIAL if (path / PARTIAL).exists() else path / RECORD
    document = schema.read(path)
    version = document.get("schema_version") if isinstance(document, dict) else None
    if type(version) is not int or version not in READABLE:  # True equals 1, and a float names no schema
        known = " and ".join(map(str, READABLE))
        raise InvalidDocument(f"a run record of version {version!r}; this workbench reads {known}", where=path)
    schema.check(document, "run-record" if version == SCHEMA_VERSION else f"run-record-{version}", path)
    _check_times(document, path)
    return upgrade(document)


def _check_times(document: Mapping[str, Any], path: Path) -> None:
    """Raise InvalidDocument unless each moment can be read and has a zone: the schema's format is not enforced."""
    for entry in (document, *document["launches"]):
        for name in ("started", "finished"):
            try:
                has_zone = datetime.fromisoformat(entry[name]).tzinfo is not None
            except ValueError:
                has_zone = False
            if not has_zone:
                raise InvalidDocument(f"{name}: {entry[name]!r} is not a timestamp with a time zone", where=path)
