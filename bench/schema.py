"""Documents: every one that is read or written is checked against ``schemas/`` here.

A violation says which value, which rule and which file, for each place at once.
"""

from __future__ import annotations

import errno
import functools
import json
import math
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import paths
from bench.errors import BenchError, InvalidDocument, UsageError

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

SHOWN_VIOLATIONS = 5


@functools.cache
def _validator(kind: str) -> Validator:
    import jsonschema  # noqa: PLC0415 - 60 ms that `invoke --list` need not pay

    path = paths.SCHEMAS / f"{kind}.json"
    schema = json.loads(path.read_text(encoding="utf-8"))
    return jsonschema.Draft202012Validator(
        schema, registry=_registry(), format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    )


@functools.cache
def _registry() -> Any:
    import referencing  # noqa: PLC0415 - see _validator

    documents = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(paths.SCHEMAS.glob("*.json"))]
    return referencing.Registry().with_resources(
        (document["$id"], referencing.Resource.from_contents(document)) for document in documents
    )


def violations(document: Any, kind: str) -> list[str]:
    """Return one line for each place where ``document`` breaks ``schemas/<kind>.json``: value, then rule."""
    found = sorted(_validator(kind).iter_errors(document), key=lambda error: error.json_path)
    return [
        f"{error.json_path}: {error.message[:200]} (rule: {'/'.join(map(str, error.absolute_schema_path))})"
        for error in found
    ]


def check(document: Any, kind: str, source: str | Path, error: type[BenchError] = InvalidDocument) -> None:
    """Raise ``error`` unless ``document`` keeps ``schemas/<kind>.json``; ``source`` is named in the message."""
    if found := violations(document, kind):
        shown = "\n         ".join(found[:SHOWN_VIOLATIONS])
        more = f"\n         and {len(found) - SHOWN_VIOLATIONS} more" if len(found) > SHOWN_VIOLATIONS else ""
        raise error(f"not a valid {kind}: {shown}{more}", where=source)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text} is too large a number")
    return value


def parse(text: str | bytes, source: str | Path, error: type[BenchError] = InvalidDocument) -> Any:
    """Return the JSON value in ``text``; NaN and Infinity, which Python would read or make, are refused.

    Raises:
        InvalidDocument: or the ``error`` asked for, with line and column.
    """
    try:
        return json.loads(text, parse_constant=_no_constant, parse_float=_finite)
    except json.JSONDecodeError as failure:
        raise error(
            f"not JSON: {failure.msg} at line {failure.lineno}, column {failure.colno}", where=source
        ) from failure
    except (ValueError, RecursionError) as failure:
        raise error(f"not JSON: {failure}", where=source) from failure


def read(path: Path, error: type[BenchError] = InvalidDocument) -> Any:
    """Return the JSON document in a file, not yet checked against a schema."""
    try:
        return parse(path.read_bytes(), path, error)
    except OSError as failure:
        raise error(f"cannot be read: {failure.strerror}", where=path) from failure


def write(document: object, kind: str, path: Path, *, replace: bool = False) -> None:
    """Check ``document`` and write it to ``path``, whole or not at all; a file that exists is only replaced if asked.

    Raises:
        InvalidDocument: it breaks its schema.
        UsageError: the file is there already, or cannot be written.
    """
    check(document, kind, path)
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            temporary = Path(file.name)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        if path.exists() and not replace:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        temporary.replace(path)
    except OSError as failure:
        raise UsageError(
            f"cannot be written: {failure.strerror}", where=path, todo="free space or choose --output-dir"
        ) from failure
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
