"""The entries of the catalogue's TOML files, checked against their schemas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench import schema

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def read(path: Path, table: str, kind: str, *, name: str = "id") -> list[dict[str, Any]]:
    """Return the entries of a file's array of tables, lists as tuples; ``name`` is the key that tells one from another.

    Raises:
        InvalidDocument: the file is not TOML, or an entry violates ``schemas/KIND.json``.
    """
    found = schema.read_toml(path)[table]
    for entry in found:
        schema.check(entry, kind, f"{path} [{entry.get(name)}]")
    return [frozen(entry) for entry in found]


def frozen(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table with its own lists as tuples; what is in a table below it stays."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in table.items()}
