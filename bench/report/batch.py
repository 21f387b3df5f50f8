"""Several presets before a person's eyes: progress on stderr, one table (or the summary itself) on stdout."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from bench.fallback.verdict import NATIVE_VERDICT
from bench.report import live
from bench.report.run import number
from bench.report.verdict import STYLES
from bench.sweep import batch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from bench.run.options import Options


def run_and_show(options: Options, keys: Sequence[str], name: str, *, as_json: bool) -> None:
    """Run the presets and print how each ended.

    Raises:
        BenchError: not all of them are native.
    """
    messages = Console(stderr=True)

    @contextmanager
    def display(key: str) -> Iterator[live.Live]:
        messages.print(f"[{keys.index(key) + 1}/{len(keys)}] {key}", markup=False, highlight=False)
        with live.Live(messages) as shown:
            yield shown

    summary, path = batch.run(options, keys, name, display)
    if as_json:
        sys.stdout.write(json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
    else:
        _show(summary, path)
    error = batch.error_of(summary, path)
    if error is not None:
        raise error


def _show(summary: Mapping[str, Any], path: Path) -> None:
    console = Console()
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for title in ("preset", "verdict", "denoise", "end to end", "why not"):
        table.add_column(title, justify="right" if title in ("denoise", "end to end") else "left", overflow="fold")
    for row in summary["rows"]:
        style = STYLES.get(row["outcome"], "dim")
        table.add_row(
            row["preset"],
            f"[{style}]{row['outcome']}[/]",
            number(row["denoise_ms"], "ms"),
            number(row["total_ms"], "ms"),
            row["reason"] or "",
        )
    console.print(table)
    native = sum(row["outcome"] == NATIVE_VERDICT for row in summary["rows"])
    console.print(f"\n{native} of {len(summary['rows'])} native", highlight=False)
    console.print(f"summary: {path}", soft_wrap=True, highlight=False, markup=False)
