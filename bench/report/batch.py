"""The summary of several presets on the terminal: one table, and how many are native."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.text import Text

from bench.fallback.verdict import NATIVE_VERDICT
from bench.record import disturbance
from bench.report import next_step, text
from bench.report.figures import NOT_AVAILABLE, interval, number
from bench.report.verdict import STYLES
from bench.run.timings import PRIMARY

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rich.console import Console


def show(summary: Mapping[str, Any], records: Mapping[str, Mapping[str, Any]], path: Path, console: Console) -> None:
    """Print how each preset ended, with its record if it has one, and what to type next; then the summary's path."""
    figures = ("n", "denoise", "end to end", "interval")
    table = text.table("preset", "verdict", *figures, "run", right=figures)
    for row in summary["rows"]:
        style = STYLES.get(row["outcome"], "dim")
        requests, between, run = _of(records.get(row["preset"]))
        times = (number(row["denoise_ms"], "ms"), number(row["total_ms"], "ms"))
        table.add_row(row["preset"], Text(row["outcome"], style=style), requests, *times, between, run)
    console.print(table)
    console.print()
    for row in summary["rows"]:
        if row["reason"] is not None:
            text.line(console, f"{row['preset']}: {row['reason']}")
    for preset, record in records.items():
        if phrases := disturbance.of(record):
            text.line(console, f"disturbed, {preset}: {'; '.join(phrases)}")
    native = sum(row["outcome"] == NATIVE_VERDICT for row in summary["rows"])
    console.print(f"{native} of {len(summary['rows'])} native")
    text.line(console, f"next: {next_step.after_batch(summary['rows'], records)}")
    text.line(console, f"summary: {path}")


def _of(record: Mapping[str, Any] | None) -> tuple[str, str, str]:
    """Return of a record: how many requests, the interval of the end-to-end time, and its six digits."""
    if record is None:
        return NOT_AVAILABLE, NOT_AVAILABLE, ""
    timings = record["timings"]
    summary = (timings or {}).get("summary")
    known = summary[PRIMARY]["interval"] if summary and summary[PRIMARY] else None
    requests = NOT_AVAILABLE if timings is None else str(timings["requests"])
    return requests, interval(known), record["id"][-6:]
