"""What of a change ran: each line's fate, why the rest did not run, and what follows for a measurement."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from bench.reach import lines, trace

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bench.reach.changes import Change
    from bench.reach.lines import Statement
    from bench.reach.trace import Trace

NEVER, COMPILED, UNTRACED = "never", "compiled", "untraced"
FATES = (trace.REQUEST, trace.WARMUP, trace.LOAD, trace.IMPORT, NEVER, COMPILED, UNTRACED)
"""From the measured path outwards. Compiled: a kernel's lines, which do not run as Python. Untraced: not Python."""

NEW, GONE = "new", "gone"
"""Lines that the change brought, and lines of the base that it took away without others in their place."""

REACHED, NOT_REACHED, UNKNOWN, NOTHING = "reached", "not-reached", "unknown", "nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One tree's lines to judge: what was traced there, and the changes by the paths of their files in it.

    ``what`` is `NEW` or `GONE`.
    """

    what: str
    trace: Trace
    changes: Mapping[str, Change]


def parts(side: Side) -> Iterator[dict[str, Any]]:
    """Yield the changed lines of a side as a document holds them, lines in a row that fared alike together."""
    is_new = side.what == NEW
    for path, change in side.changes.items():
        numbers = change.new_lines() if is_new else change.gone_lines()
        module = lines.read((change.after if is_new else change.before) or "")
        if module is None:
            span = range(numbers[0], numbers[-1] + 1)
            yield _part(side, change, span, UNTRACED, "this Python cannot parse the file")
            continue
        with_code = [(number, known) for number in numbers if (known := module.at(number)) is not None]
        fates = [(number, *_fate(side, path, known)) for number, known in with_code]
        for (fate, because, who), group in groupby(fates, key=lambda row: row[1:]):
            yield _part(side, change, [row[0] for row in group], fate, because, who)


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
    side: Side, change: Change, members: Sequence[int], fate: str, because: str | None, who: tuple[str, ...] = ()
) -> dict[str, Any]:
    return {
        "file": change.name,
        "side": side.what,
        "first": members[0],
        "last": members[-1],
        "lines": len(members),
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
