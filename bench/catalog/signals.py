"""Signals and evidence: what log lines, arguments and variables mean, read from TOML and checked on loading."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from bench import paths
from bench.catalog import entries


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """A pattern that means something for a run; the fields are described in ``schemas/signal.json``."""

    id: str
    category: str
    severity: str
    means: str
    todo: str
    example: str
    example_is: str
    pattern: str = ""
    on: str = "log"
    names: tuple[str, ...] = ()
    when: str | None = None
    by_component: bool = False
    only: tuple[str, ...] = ()
    versions: str | None = None
    shows: str | None = None
    emitter: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A line that must be there; the fields are described in ``schemas/evidence.json``."""

    id: str
    proves: str
    required: tuple[str, ...]
    pattern: str
    example: str
    shows: str | None = None
    at_least: int = 1
    versions: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Triaged:
    """Messages that read like a degradation and need no signal; the fields are described in ``schemas/triage.json``."""

    kind: str
    because: str
    says: tuple[str, ...] = ()
    within: tuple[str, ...] = ()

    def covers(self, text: str, file: str) -> bool:
        """Tell whether a message of a file of ``multimodal_gen/`` is one of them."""
        return (not self.within or file.startswith(self.within)) and (
            not self.says or any(piece in text for piece in self.says)
        )


def applies(versions: str | None, version: str | None) -> bool:
    """Tell whether an entry with this version specifier judges an engine; an unknown version is judged by all."""
    if versions is None or version is None:
        return True
    try:
        return SpecifierSet(versions).contains(Version(version), prereleases=True)
    except InvalidVersion:
        return True


@functools.cache
def signals() -> tuple[Signal, ...]:
    """Return all signals; the category is the name of the file.

    Raises:
        InvalidDocument: an entry breaks ``schemas/signal.json``.
    """
    found = []
    for path in sorted((paths.CATALOG / "signals").glob("*.toml")):
        found += [Signal(category=path.stem, **entry) for entry in entries.read(path, "signal", "signal")]
    return tuple(found)


@functools.cache
def evidence() -> tuple[Evidence, ...]:
    """Return all evidence entries.

    Raises:
        InvalidDocument: an entry breaks ``schemas/evidence.json``.
    """
    return tuple(Evidence(**entry) for entry in entries.read(paths.CATALOG / "evidence.toml", "evidence", "evidence"))


@functools.cache
def triaged() -> tuple[Triaged, ...]:
    """Return the messages that were looked at and need no signal.

    Raises:
        InvalidDocument: an entry violates ``schemas/triage.json``.
    """
    messages = entries.read(paths.CATALOG / "triage.toml", "message", "triage", name="because")
    return tuple(
        Triaged(kind=entry["is"], because=entry["because"], says=entry.get("says", ()), within=entry.get("in", ()))
        for entry in messages
    )
