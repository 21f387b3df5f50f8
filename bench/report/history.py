"""The history of a preset on the terminal: a trend, a table, what changed where."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rich.text import Text

from bench.compare.history import jumps
from bench.report import text
from bench.report.figures import NOT_CLAIMED, change, number
from bench.report.verdict import STYLES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from bench.compare.history import Point
    from bench.compare.metric import Metric

SHOWN_RECORDS = 200
"""The last so many are shown, with earlier baselines and new levels: no screen holds thousands."""
CHANGE = (
    "change: of the median, since the previous record of the same workload that nothing disturbed; `invoke compare`"
    " tells whether it is real"
)
NAMED = 3
"""So many disturbances are named."""
BARS = "▁▂▃▄▅▆▇█"


def show(model: str, points: Sequence[Point], metric: Metric, console: Console) -> None:
    """Print the history of a preset, which has at least one point; a run is named by its six digits, never cut."""
    earlier = len(points) - SHOWN_RECORDS
    if earlier > 0:
        told = f"{len(points):,} records: the last {SHOWN_RECORDS}, earlier baselines and new levels; --json has all"
        text.line(console, told)
    workloads = _workloads(points[-SHOWN_RECORDS:])
    for family, words in workloads.items():
        of_it = [point for point in points[-SHOWN_RECORDS:] if point.family == family]
        text.line(console, f"{model}{f', {words}' if words else ''}, {metric.title}: {trend(of_it, metric.unit)}")
    if doubt := disturbed(points):
        text.line(console, doubt)
    for jumping in jumps(points).values():
        low, high = (number(level, metric.unit) for level in (jumping.low, jumping.high))
        console.print(f"two levels: {jumping.low_count} records at {low}, {jumping.high_count} at {high}")
    several = len(workloads) > 1
    titles = (
        "started",
        "engine",
        *(("workload",) if several else ()),
        "verdict",
        "n",
        metric.name,
        "change",
        "marks",
        "run",
    )
    table = text.table(*titles, right=("n", metric.name, "change"))
    engine = points[0].engine
    for place, (point, since) in enumerate(zip(points, changes(points), strict=True)):
        marked = {
            "new level": point.changed,
            "engine": point.engine != engine,
            "disturbed": bool(point.disturbed),
            "baseline": point.is_baseline,
        }
        marks = [mark for mark, on in marked.items() if on]
        engine = point.engine
        if place < earlier and not (point.changed or point.is_baseline):
            continue
        outcome = Text(point.outcome, style=STYLES[point.outcome])
        workload = (workloads.get(point.family, point.workload),) if several else ()
        row = (point.started[:16].replace("T", " "), point.engine, *workload, outcome, str(point.requests))
        table.add_row(*row, number(point.value, metric.unit), since, ", ".join(marks), point.path.parent.name[-6:])
    console.print(table)
    if any(count > 1 for count in Counter(point.family for point in points).values()):
        text.line(console, CHANGE)


def _workloads(points: Sequence[Point]) -> dict[str, str]:
    """Return what tells each workload of a preset from its others, by family; empty words for the only one."""
    parts = {point.family: point.workload.split(", ") for point in points}
    common = set.intersection(*map(set, parts.values()))
    return {family: ", ".join(part for part in own if part not in common) for family, own in parts.items()}


def changes(points: Sequence[Point]) -> list[str]:
    """Return the change of each point since the last one of its workload that nothing disturbed.

    Of a point that was disturbed itself no size is claimed.
    """
    undisturbed: dict[str, float] = {}
    found = []
    for point in points:
        since = change(undisturbed.get(point.family), point.value)
        found.append(NOT_CLAIMED if since and point.disturbed else since)
        if not point.disturbed:
            undisturbed[point.family] = point.value
    return found


def disturbed(points: Sequence[Point], model: str | None = None) -> str | None:
    """Return how many points were measured under disturbance and what it was, None if none was."""
    found = [point for point in points if point.disturbed]
    if not found:
        return None
    phrases = list(dict.fromkeys(phrase for point in found for phrase in point.disturbed))
    more = f", and {len(phrases) - NAMED} more" if len(phrases) > NAMED else ""
    doubt = "" if len(points) == 1 else ": no size of a change is claimed there"
    return f"{were_disturbed(points, model)} measured under disturbance ({'; '.join(phrases[:NAMED])}{more}){doubt}"


def were_disturbed(points: Sequence[Point], model: str | None = None) -> str:
    """Return how many points were disturbed, as the beginning of a sentence."""
    count = sum(bool(point.disturbed) for point in points)
    which = "the only record" if len(points) == 1 else f"{count} of {len(points)} records"
    if 1 < count == len(points):
        which = "both records" if count == 2 else f"all {count} records"  # noqa: PLR2004
    return f"{which}{f' of {model}' if model else ''} {'was' if count == 1 else 'were'}"


def trend(points: Sequence[Point], unit: str) -> str:
    """Return one bar for each point between the fastest and the slowest, with ``|`` where a new level begins.

    One point has no trend: its value alone.
    """
    if len(points) == 1:
        return number(points[0].value, unit)
    values = [point.value for point in points]
    low, high = min(values), max(values)
    bars = ""
    for point in points:
        height = 0 if high == low else (point.value - low) / (high - low)
        bars += ("|" if point.changed else "") + BARS[round(height * (len(BARS) - 1))]
    return f"{bars}  {number(low, unit)} to {number(high, unit)}"
