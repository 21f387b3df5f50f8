"""Every failure that a person may see, and its exit code.

    BenchError                  1   an internal error, or usage
    ├── UsageError              1   an unknown name, a wrong value, a file that is not there
    │   ├── UnknownName         1   a model, engine or flag that does not exist, with those that do
    │   └── InvalidDocument     1   a document violates its schema
    ├── EngineFailed            3   the engine could not be started, crashed, or made no output
    ├── FallbackDetected        4   the verdict is invalid: not the native backend, or not the workload
    ├── EvidenceMissing         5   nothing bad was said, but the proof is not there
    │   └── RecordEdited        5   a record and its own evidence disagree
    ├── InvalidPerfDump         6   the engine's perf dump is absent, stale, broken or not of this run
    ├── ThresholdMissed         7   a regression, or a quality gate not met
    ├── TimedOut                8   the launch took longer than it was given
    ├── Inconclusive            9   the measurement cannot decide
    ├── PreflightFailed        10   the machine cannot run this now
    └── Interrupted           130   Ctrl-C

An error says what happened, where, and what to do. The message is put together here, so that all of them read alike.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class BenchError(Exception):
    """What went wrong (one sentence), where, and what to do about it.

    ``field`` names the field of the options that mends it; the verb knows how that option is typed and says so.
    ``instead`` is what that option does, said only by a verb that has it.
    ``is_told`` says that the report on the terminal has said all of it: only the exit code is left.
    """

    exit_code: ClassVar[int] = 1
    prefix: ClassVar[str] = "error: "
    """How its message begins."""
    is_told: bool = False

    def __init__(
        self,
        what: str,
        *,
        where: str | Path | None = None,
        todo: str | None = None,
        field: str | None = None,
        instead: str = "",
    ) -> None:
        self.field = field
        self.instead = instead
        self.what = what
        self.where = None if where is None else str(where)
        self.todo = todo
        super().__init__(what)

    def __str__(self) -> str:
        lines = [self.what]
        if self.where is not None:
            lines.append(f"  where: {self.where}")
        if self.todo is not None:
            lines.append(f"  to do: {self.todo}")
        return "\n".join(lines)


class UsageError(BenchError):
    """The request cannot be understood or fulfilled."""


NAMED_AT_MOST = 20
"""More names than these are not listed in a message."""


class UnknownName(UsageError):
    """A name that is not in the list it should be in.

    ``aliases`` are other words for the known names (word -> name); ``lister`` is the command that lists them all.
    """

    def __init__(
        self,
        kind: str,
        name: str,
        known: Iterable[str],
        *,
        todo: str | None = None,
        aliases: Iterable[tuple[str, str]] = (),
        lister: str | None = None,
    ) -> None:
        known = sorted(known)
        words = [*((key.lower(), key) for key in known), *((alias.lower(), key) for alias, key in aliases)]
        exact = [key for word, key in words if word == name.lower()]
        like = difflib.get_close_matches(name.lower(), dict(words), n=3)
        close = list(dict.fromkeys(exact or (key for match in like for word, key in words if word == match)))[:3]
        if todo is None:
            listed = f"`{lister}` lists the {len(known)}" if lister and len(known) > NAMED_AT_MOST else None
            todo = listed or f"known: {', '.join(known) or 'none'}"
            todo = f"did you mean {' or '.join(close)}?" if close else todo
        super().__init__(f"no {kind} is called {name!r}", todo=todo)


class InvalidDocument(UsageError):
    """A document violates its schema: which value, which rule, which file."""


class EngineFailed(BenchError):
    """The engine did not do its work, and said so or just ended."""

    exit_code = 3


class FallbackDetected(BenchError):
    """The run was not native, or not the workload that was asked for."""

    exit_code = 4


class EvidenceMissing(BenchError):
    """The run cannot be shown to be what was asked for."""

    exit_code = 5


class RecordEdited(EvidenceMissing):
    """A record and its evidence disagree: one of them was edited after the run."""


class InvalidPerfDump(BenchError):
    """The perf dump cannot be the source of a number."""

    exit_code = 6


class ThresholdMissed(BenchError):
    """A gate was not met."""

    exit_code = 7


class TimedOut(BenchError):
    """The launch was stopped at its time limit."""

    exit_code = 8


class Inconclusive(BenchError):
    """The samples do not decide the question: an answer, and nobody's error."""

    exit_code = 9
    prefix = ""


class PreflightFailed(BenchError):
    """The machine lacks something that this run needs."""

    exit_code = 10


class Interrupted(BenchError):
    """Stopped by the user."""

    exit_code = 130


BY_EXIT_CODE: dict[int, type[BenchError]] = {
    kind.exit_code: kind
    for kind in (
        BenchError, EngineFailed, FallbackDetected, EvidenceMissing, InvalidPerfDump, ThresholdMissed, TimedOut,
        Inconclusive, PreflightFailed, Interrupted,
    )
}  # fmt: skip
"""The one table of exit codes, read backwards."""


def worst(exit_codes: Iterable[int]) -> type[BenchError]:
    """Return the kind of error that several failures end with: a fallback if there is one, else the first of them.

    A fallback is graver than any other end: the numbers beside it may be of another backend.
    """
    codes = list(exit_codes)
    decisive = FallbackDetected.exit_code if FallbackDetected.exit_code in codes else next(iter(codes), 1)
    return BY_EXIT_CODE.get(decisive, BenchError)
