"""Documents: every one that is read or written is checked against ``schemas/`` here.

A violation says which value, which rule and which file, for each place at once.
"""

from __future__ import annotations

import difflib
import functools
import json
import tomllib
from typing import TYPE_CHECKING, Any

from bench import files, paths, redact
from bench.errors import BenchError, InvalidDocument

if TYPE_CHECKING:
    from pathlib import Path

    from jsonschema import ValidationError
    from jsonschema.protocols import Validator

SHOWN_VIOLATIONS = 5
UNKNOWN_KEY = "additionalProperties"
"""The rule that a mistyped key violates: it comes first, since the key that it should have been may be missing too."""
LARGEST_NUMBER = 1e100
"""Every quantity is smaller, and so the sums and squares of quantities are finite."""


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
    """Return one line for each place where ``document`` violates ``schemas/<kind>.json``: value, then rule."""
    found = sorted(
        _validator(kind).iter_errors(document), key=lambda error: (error.json_path, error.validator != UNKNOWN_KEY)
    )
    return [
        f"{error.json_path}: {error.message[:200]}{_meant(error)}"
        f" (rule: {'/'.join(map(str, error.absolute_schema_path))})"
        for error in found
    ]


def _meant(error: ValidationError) -> str:
    """Return the known keys that unknown ones are most like, as a question; nothing where none is like one."""
    if error.validator != UNKNOWN_KEY:
        return ""
    given: Any = error.instance
    known: dict[str, Any] = error.schema.get("properties", {}) if isinstance(error.schema, dict) else {}
    unknown = [key for key in given if key not in known][:SHOWN_VIOLATIONS]
    close = [like for key in unknown for like in difflib.get_close_matches(key, known, n=1)]
    return f"; did you mean {' and '.join(dict.fromkeys(close))}?" if close else ""


def check(document: Any, kind: str, source: str | Path, error: type[BenchError] = InvalidDocument) -> None:
    """Raise ``error`` unless ``document`` conforms to ``schemas/<kind>.json``; ``source`` is named in the message."""
    if found := violations(document, kind):
        shown = "\n         ".join(found[:SHOWN_VIOLATIONS])
        more = f"\n         and {len(found) - SHOWN_VIOLATIONS} more" if len(found) > SHOWN_VIOLATIONS else ""
        raise error(f"not a valid {kind}: {shown}{more}", where=source)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def bounded(text: str) -> float:
    """Return a number.

    Raises:
        ValueError: it is not one, or so large that sums and squares of it would overflow.
    """
    value = float(text)
    if not abs(value) < LARGEST_NUMBER:
        raise ValueError(f"{text[:20]} is too large a number")
    return value


def _bounded_integer(text: str) -> int:
    bounded(text)
    return int(text)


def parse(text: str | bytes, source: str | Path, error: type[BenchError] = InvalidDocument) -> Any:
    """Return the JSON value in ``text``; NaN, Infinity and what is nearly infinite are refused.

    Raises:
        InvalidDocument: or the ``error`` asked for, with line and column.
    """
    try:
        return json.loads(text, parse_constant=_no_constant, parse_float=bounded, parse_int=_bounded_integer)
    except json.JSONDecodeError as failure:
        raise error(
            f"not JSON: {failure.msg} at line {failure.lineno}, column {failure.colno}", where=source
        ) from failure
    except UnicodeDecodeError as failure:
        raise error("not JSON: it is not text", where=source) from failure
    except (ValueError, RecursionError) as failure:
        raise error(f"not JSON: {failure}", where=source) from failure


def read(path: Path, error: type[BenchError] = InvalidDocument) -> Any:
    """Return the JSON document in a file, not yet checked against a schema."""
    return parse(files.read_bytes(path, error=error), path, error)


def read_toml(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file that a person wrote, not yet checked against a schema.

    Raises:
        UsageError: the file cannot be read.
        InvalidDocument: it is not TOML.
    """
    text = files.read_bytes(path, files.SETTINGS_BYTES)
    try:
        return tomllib.loads(text.decode(), parse_float=bounded)
    except ValueError as error:
        raise InvalidDocument(f"not TOML: {error}", where=path) from error
    except RecursionError as error:
        raise InvalidDocument("not readable as TOML: nested too deeply", where=path) from error


def write(document: object, kind: str, path: Path, *, replace: bool = False) -> None:
    """Check ``document`` and write it to ``path``, whole or not at all; a file that exists is only replaced if asked.

    No secret is written that can be known as one.

    Raises:
        InvalidDocument: it violates its schema.
        UsageError: the file is there already, or cannot be written.
    """
    document = redact.document(document)
    check(document, kind, path)
    files.write_text(path, json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n", replace=replace)
