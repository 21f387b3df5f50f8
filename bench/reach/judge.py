"""What of a change ran: each line's fate, why the rest did not run, and what follows for a measurement."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from bench.reach import lines, trace

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bench.reach.changes import Change
    from bench.reach.lines import Module, Statement
    from bench.reach.trace import Trace

NEVER, COMPILED, UNTRACED = "never", "compiled", "untraced"
FATES = (trace.REQUEST, trace.WARMUP, trace.LOAD, trace.IMPORT, NEVER, COMPILED, UNTRACED)
"""From the measured path outwards. Compiled: a kernel's lines, which do not run as Python. Untraced: not Python."""

NEW, GONE = "new", "gone"
"""Lines that the change brought, and lines of the base that it took away without others in their place."""

REACHED, NOT_REACHED, UNKNOWN, NOTHING = "reached", "not-reached", "unknown", "nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One tree's lines to judge: what was traced there, and the numbers of the changed lines by file.

    ``what`` is `NEW` or `GONE`.
    """

    what: str
    trace: Trace
    wanted: dict[str, list[int]]
    texts: dict[str, str]
    names: dict[str, str]


def parts(side: Side) -> Iterator[dict[str, Any]]:
    """Yield the changed lines of a side as a document holds them, lines in a row that fared alike together."""
    for path, numbers in side.wanted.items():
        module = lines.read(side.texts[path])
        if module is None:
            yield _part(side, path, (numbers[0], numbers[-1]), UNTRACED, "this Python cannot parse the file")
            continue
        fates = [(number, *_fate(side, path, known)) for number, known in _with_code(module, numbers)]
        for (fate, because, who), group in groupby(fates, key=lambda row: row[1:]):
            members = [row[0] for row in group]
            yield _part(side, path, (members[0], members[-1]), fate, because, who, count=len(members))


def _with_code(module: Module, numbers: Sequence[int]) -> Iterator[tuple[int, Statement]]:
    for number in numbers:
        if (known := module.at(number)) is not None:
            yield number, known


def _fate(side: Side, path: str, known: Statement) -> tuple[str, str | None, tuple[str, ...]]:
    """Return how a statement fared, why it did not run in the request, and in which processes it ran."""
    if known.is_compiled:
        return COMPILED, "a kernel: its lines do not run as Python", ()
    for phase in (trace.REQUEST, trace.WARMUP, trace.LOAD, trace.IMPORT):
        who = tuple(
            _called(process)
            for process in side.trace.processes
            if path in process.lines and known.ran(process.lines[path].get(phase, ()))
        )
        if who:
            because = None
            if phase in (trace.WARMUP, trace.LOAD):
                in_request = side.trace.lines(path, trace.REQUEST)
                because = f"in the request: {lines.why_not(known, in_request)}"
            return phase, because, tuple(dict.fromkeys(who))
    ever = set().union(*(side.trace.lines(path, phase) for phase in (*trace.LETTERS.values(), trace.IMPORT)))
    return NEVER, lines.why_not(known, ever) if ever else "no process loaded this file", ()


def _called(process: trace.Process) -> str:
    return process.name if process.rank is None else f"rank {process.rank}: {process.name}"


def _part(
    side: Side,
    path: str,
    span: tuple[int, int],
    fate: str,
    because: str | None,
    who: tuple[str, ...] = (),
    *,
    count: int | None = None,
) -> dict[str, Any]:
    return {
        "file": side.names[path],
        "side": side.what,
        "first": span[0],
        "last": span[1],
        "lines": count if count is not None else span[1] - span[0] + 1,
        "ran": fate,
        "because": because,
        "processes": list(who),
    }


def untraced(changes: Sequence[Change]) -> list[str]:
    """Return the changed files that are not Python."""
    return [change.name for change in changes if not change.is_python]


def counts(found: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Return how many changed lines fared how."""
    return {fate: sum(part["lines"] for part in found if part["ran"] == fate) for fate in FATES}


def never_ran(document: Mapping[str, Any]) -> bool:
    """Tell whether a reach record has no line that ran in any launch, and nothing of which no line can be traced.

    A line that ran only at import may change what is measured, too.
    """
    return not document["not_python"] and not any(lines for fate, lines in document["lines"].items() if fate != NEVER)


def outcome(found: Sequence[dict[str, Any]], others: Sequence[str], measured: Sequence[str]) -> str:
    """Return whether the change is on the measured path, whose phases are given.

    Reached: a line of it ran there. Unknown: none did, and what is not Python (or a kernel) can be judged by traces of
    kernels only. Not reached: none did. Nothing: the change holds no code.
    """
    if any(part["ran"] in measured for part in found):
        return REACHED
    if others or any(part["ran"] in (COMPILED, UNTRACED) for part in found):
        return UNKNOWN
    return NOT_REACHED if found else NOTHING
