"""The history of a preset on the terminal: a trend, a table, what changed where."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from bench import paths
from bench.compare import history
from bench.errors import UsageError
from bench.report.run import number
from bench.report.verdict import STYLES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.compare.history import Point

BARS = "▁▂▃▄▅▆▇█"


def show(model: str, root: Path | None) -> None:
    """Print the history of a preset.

    Raises:
        UsageError: there is no record of it.
    """
    root = root or paths.runs()
    points, faults = history.read(root, model)
    console, messages = Console(highlight=False), Console(stderr=True, highlight=False)
    for fault in faults:
        messages.print(f"left out: {fault}", soft_wrap=True, markup=False)
    if not points:
        raise UsageError(f"no complete record of {model} that counts", where=root, todo="`invoke bench` makes one")
    console.print(f"{model}: {trend(points)}", soft_wrap=True)
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for title in ("started", "engine", "verdict", "n", "denoise", "change", "marks", "run"):
        table.add_column(title, justify="right" if title in {"n", "denoise", "change"} else "left", overflow="fold")
    before: dict[str, float] = {}
    engine = points[0].engine
    for point in points:
        last = before.get(point.cell)
        change = "" if last is None else f"{100 * (point.denoise_ms / last - 1):+.1f} %"
        before[point.cell] = point.denoise_ms
        marks = [text for text, on in (("new level", point.changed), ("engine", point.engine != engine)) if on]
        marks += ["baseline"] if point.is_baseline else []
        engine = point.engine
        outcome = f"[{STYLES[point.outcome]}]{point.outcome}[/]"
        row = (point.started[:16].replace("T", " "), point.engine, outcome, str(point.requests))
        table.add_row(*row, number(point.denoise_ms, "ms"), change, ", ".join(marks), str(point.path.parent.name))
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


def set_baseline(record: Path) -> None:
    """Make a record the baseline of its workload and devices."""
    place = history.name_baseline(paths.runs(), record)
    Console(highlight=False).print(f"baseline: {place}", soft_wrap=True, markup=False)


def show_baselines() -> None:
    """Print the baselines that were named."""
    named = history.baselines(paths.runs())
    console = Console(highlight=False)
    for place in named.values():
        console.print(place, soft_wrap=True, markup=False)
    if not named:
        console.print("no baseline is named; `invoke baseline.set RECORD` names one", markup=False)
