"""The summary of several presets on the terminal: one table, and how many are native."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.text import Text

from bench.fallback.verdict import NATIVE_VERDICT
from bench.report import text
from bench.report.figures import number
from bench.report.verdict import STYLES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rich.console import Console


def show(summary: Mapping[str, Any], path: Path, console: Console) -> None:
    """Print how each preset ended; the last line is the summary's path."""
    table = text.table("preset", "verdict", "denoise", "end to end", "why not", right=("denoise", "end to end"))
    for row in summary["rows"]:
        style = STYLES.get(row["outcome"], "dim")
        table.add_row(
            row["preset"],
            Text(row["outcome"], style=style),
            number(row["denoise_ms"], "ms"),
            number(row["total_ms"], "ms"),
            row["reason"] or "",
        )
    console.print(table)
    native = sum(row["outcome"] == NATIVE_VERDICT for row in summary["rows"])
    console.print(f"\n{native} of {len(summary['rows'])} native")
    text.line(console, f"summary: {path}")
