"""What a quality means, by version of the engine: ``qualities.toml``. The names stayed when the meanings changed."""

from __future__ import annotations

import functools
import tomllib
from typing import Any

from bench import paths
from bench.catalog.signals import applies


@functools.cache
def _rows() -> tuple[dict[str, Any], ...]:
    return tuple(tomllib.loads((paths.CATALOG / "qualities.toml").read_text(encoding="utf-8"))["quality"])


def default(version: str) -> str | None:
    """Return the quality that a version gives a request without one, None if that is not known."""
    return next((str(row["default"]) for row in _rows() if applies(row["versions"], version)), None)


def meaning(version: str, quality: str | None) -> str | None:
    """Return what a quality (None: the engine's default) means in a version, None if that is not known."""
    for row in _rows():
        if applies(row["versions"], version):
            found = row["means"].get(quality or row["default"])
            return None if found is None else str(found)
    return None
