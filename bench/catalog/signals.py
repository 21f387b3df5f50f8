"""Signals and evidence: what log lines, arguments and variables mean, read from TOML and checked on loading."""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from bench import paths, schema


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
        for entry in tomllib.loads(path.read_text(encoding="utf-8"))["signal"]:
            schema.check(entry, "signal", f"{path} [{entry.get('id')}]")
            values = entry | {name: tuple(entry.get(name, ())) for name in ("only", "names")}
            found.append(Signal(category=path.stem, **values))
    return tuple(found)


@functools.cache
def evidence() -> tuple[Evidence, ...]:
    """Return all evidence entries.

    Raises:
        InvalidDocument: an entry breaks ``schemas/evidence.json``.
    """
    path = paths.CATALOG / "evidence.toml"
    found = []
    for entry in tomllib.loads(path.read_text(encoding="utf-8"))["evidence"]:
        schema.check(entry, "evidence", f"{path} [{entry.get('id')}]")
        found.append(Evidence(**(entry | {"required": tuple(entry["required"])})))
    return tuple(found)


@functools.cache
def triaged() -> tuple[Triaged, ...]:
    """Return the messages that were looked at and need no signal.

    Raises:
        InvalidDocument: an entry violates ``schemas/triage.json``.
    """
    path = paths.CATALOG / "triage.toml"
    messages = []
    for entry in tomllib.loads(path.read_text(encoding="utf-8"))["message"]:
        schema.check(entry, "triage", f"{path} [{entry.get('because')}]")
        pieces = {"says": tuple(entry.get("says", ())), "within": tuple(entry.get("in", ()))}
        messages.append(Triaged(kind=entry["is"], because=entry["because"], **pieces))
    return tuple(messages)
