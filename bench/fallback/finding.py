"""What was found, as data: the pieces that a verdict is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.errors import BY_EXIT_CODE, EngineFailed, EvidenceMissing, FallbackDetected, InvalidPerfDump, TimedOut

if TYPE_CHECKING:
    from pathlib import Path

    from bench.errors import BenchError

INVALID = "invalid"
DEGRADED = "degraded"
INFO = "info"

ENGINE_FAILED = EngineFailed.exit_code
FALLBACK = FallbackDetected.exit_code
EVIDENCE_MISSING = EvidenceMissing.exit_code
INVALID_DUMP = InvalidPerfDump.exit_code
TIMED_OUT = TimedOut.exit_code


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that speaks against a run, or about it.

    ``source`` is where it was seen: log, argument, environment, dump, output, process or device. ``line`` is the
    1-based line of the log, ``at_s`` the seconds since the launch when it arrived; both None where they mean nothing.
    """

    id: str
    category: str
    severity: str
    source: str
    text: str
    means: str
    todo: str
    line: int | None = None
    at_s: float | None = None
    component: str | None = None
    exit_code: int = FALLBACK
    count: int = 1

    def error(self, where: str | Path | None = None) -> BenchError:
        """Return the error that an invalid finding ends a launch with; ``where`` is the log, if it is known."""
        place = self.text if self.line is None else f"log line {self.line}: {self.text}"
        if where is not None:
            place = f"{place}\n         {where}"
        kind = BY_EXIT_CODE.get(self.exit_code, FallbackDetected)
        return kind(f"{self.id}: {self.means}", where=place, todo=self.todo)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """A required piece of evidence: what it shows, and where it was seen first (None: it was not)."""

    id: str
    proves: str
    seen: int
    needed: int
    line: int | None
    text: str | None

    @property
    def holds(self) -> bool:
        """Whether it was seen often enough."""
        return self.seen >= self.needed


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One loaded component: its class, whose implementation it is, and the line that says so."""

    name: str
    cls: str
    implementation: str
    line: int
