"""Fused kernel families and how a trace shows them: ``fast_paths.toml``."""

from __future__ import annotations

import functools
import re
import tomllib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bench import paths, schema
from bench.catalog import entries
from bench.errors import InvalidDocument

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """What shows that a path is on: a kernel, an operator, or a runtime or driver call; all None: nothing can."""

    kernel: re.Pattern[str] | None = None
    operator: re.Pattern[str] | None = None
    launch: re.Pattern[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One thing that is seen when the path is off; the fields are described in ``schemas/fast-path.json``."""

    kernel: re.Pattern[str] | None = None
    operator: re.Pattern[str] | None = None
    module: re.Pattern[str] | None = None
    operands: str | None = None
    least_bytes: float | None = None
    least_per_step: float | None = None
    sites: bool = False
    structure: str | None = None
    metric: str | None = None
    above: float | None = None
    equals: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FastPath:
    """One fused kernel family; the fields are described in ``schemas/fast-path.json``."""

    id: str
    title: str
    stage: str
    models: tuple[str, ...]
    conditions: str
    on: Pattern
    when_off: str
    action: str
    confidence: str
    off: tuple[Rule, ...] = ()
    least_sm: int | None = None
    least_gpus: int | None = None
    quality: tuple[str, ...] | None = None
    since: Mapping[str, str] = field(default_factory=dict)
    saving: Mapping[str, Any] | None = None
    arm: str | None = None
    group: str | None = None
    rank: int = 0

    def since_for(self, family: str | None) -> str | None:
        """Return the first SGLang version that has this path for a model family; None when no version lacks it."""
        return self.since.get(family or "*", self.since.get("*"))


def _compiled(entry: Mapping[str, Any], where: str) -> dict[str, Any]:
    values: dict[str, Any] = dict(entry)
    for name in ("kernel", "operator", "module", "launch"):
        if name in values:
            try:
                values[name] = re.compile(values[name])
            except re.error as error:
                raise InvalidDocument(f"{name}: not a regular expression: {error}", where=where) from error
    return values


def parse(content: Mapping[str, Any], source: str) -> tuple[FastPath, ...]:
    """Return the fast paths of a TOML document.

    Raises:
        InvalidDocument: an entry violates ``schemas/fast-path.json``, or a pattern is not a regular expression.
    """
    found = []
    for entry in content["fast_path"]:
        where = f"{source} [{entry.get('id')}]"
        schema.check(entry, "fast-path", where)
        on = Pattern(**_compiled(entry["on"], where))
        off = tuple(Rule(**_compiled(rule, where)) for rule in entry.get("off", ()))
        found.append(FastPath(**(entries.frozen(entry) | {"on": on, "off": off})))
    return tuple(found)


@functools.cache
def _content() -> dict[str, Any]:
    return tomllib.loads((paths.CATALOG / "fast_paths.toml").read_text(encoding="utf-8"))


@functools.cache
def fast_paths() -> tuple[FastPath, ...]:
    """Return all fast paths of the table.

    Raises:
        InvalidDocument: see ``parse``.
    """
    return parse(_content(), str(paths.CATALOG / "fast_paths.toml"))


@functools.cache
def families() -> Mapping[str, re.Pattern[str]]:
    """Return the model families that the table knows, with the pattern of their modules' class names."""
    return {family: re.compile(pattern) for family, pattern in _content()["families"].items()}


def family_for(classes: Iterable[str]) -> str | None:
    """Return the model family whose modules have these class names; None when the table knows none of them."""
    classes = tuple(classes)
    return next((family for family, pattern in families().items() if any(map(pattern.search, classes))), None)
