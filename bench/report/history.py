"""The history of a preset on the terminal: a trend, a table, what changed where."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.report import text
from bench.report.figures import change, number
from bench.report.verdict import STYLES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from bench.compare.history import Point

BARS = "▁▂▃▄▅▆▇█"


def show(model: str, points: Sequence[Point], console: Console) -> None:
    """Print the history of a preset, which has at least one point; a run is named by its six digits, never cut."""
    console.print(f"{model}: {trend(points)}", soft_wrap=True)
    titles = ("started", "engine", "verdict", "n", "denoise", "change", "marks", "run")
    table = text.table(*titles, right=("n", "denoise", "change"))
    before: dict[str, float] = {}
    engine = points[0].engine
    for point in points:
        since = change(before.get(point.cell), point.denoise_ms)
        before[point.cell] = point.denoise_ms
        marks = [text for text, on in (("new level", point.changed), ("engine", point.engine != engine)) if on]
        marks += ["baseline"] if point.is_baseline else []
        engine = point.engine
        outcome = f"[{STYLES[point.outcome]}]{point.outcome}[/]"
        row = (point.started[:16].replace("T", " "), point.engine, outcome, str(point.requests))
        table.add_row(*row, number(point.denoise_ms, "ms"), since, ", ".join(marks), point.path.parent.name[-6:])
    console.print(table)


def trend(points: Sequence[Point]) -> str:
    """Return one bar for each point between the fastest and the slowest, with ``|`` where a new level begins."""
    values = [point.denoise_ms for point in points]
    low, high = min(values), max(values)
    bars = ""
    for point in points:
        height = 0 if high == low else (point.denoise_ms - low) / (high - low)
        bars += ("|" if point.changed else "") + BARS[round(height * (len(BARS) - 1))]
    return f"{bars}  {number(low, 'ms')} to {number(high, 'ms')}"
