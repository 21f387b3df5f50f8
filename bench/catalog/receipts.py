"""Receipts: the optional features that a run can ask for, and what shows that each engaged (``receipts.toml``)."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench import paths
from bench.catalog import entries

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A setting that asks for a feature; the fields are described in ``schemas/receipt.json``."""

    on: str
    names: tuple[str, ...]
    when: str
    pattern: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    """A line, a resolved argument, steps that reuse earlier ones, or kernels: what shows or denies a feature."""

    pattern: str = ""
    resolved: str = ""
    reuses_steps: bool = False
    kernels: tuple[tuple[str, str], ...] = ()
    quality_paths: bool = False
    versions: str | None = None
    example: str = ""
    example_is: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """One optional feature; the fields are described in ``schemas/receipt.json``."""

    id: str
    feature: str
    kind: str
    asked: tuple[Ask, ...]
    means: str
    todo: str
    unless: tuple[str, ...] = ()
    shown: tuple[Sign, ...] = ()
    denied: tuple[Sign, ...] = ()
    silence: str | None = None
    told_by: tuple[str, ...] = ()


def _feature(entry: Mapping[str, Any]) -> Feature:
    signs = {name: tuple(map(_sign, entry.get(name, ()))) for name in ("shown", "denied")}
    asked = tuple(Ask(**entries.frozen(ask)) for ask in entry["asked"])
    return Feature(**(dict(entry) | signs | {"asked": asked}))


def _sign(entry: Mapping[str, Any]) -> Sign:
    return Sign(**(dict(entry) | {"kernels": tuple(entry.get("kernels", {}).items())}))


@functools.cache
def features() -> tuple[Feature, ...]:
    """Return all features.

    Raises:
        InvalidDocument: an entry violates ``schemas/receipt.json``.
    """
    return tuple(map(_feature, entries.read(paths.CATALOG / "receipts.toml", "receipt", "receipt")))
