"""A matrix on the terminal: the numbers, the pictures, and why a cell has none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.padding import Padding
from rich.text import Text

from bench.record import disturbance
from bench.report import next_step, text
from bench.report.figures import NOT_AVAILABLE, change, interval, number
from bench.report.verdict import STYLES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rich.console import Console
    from rich.table import Table


def show(document: Mapping[str, Any], records: Mapping[str, Mapping[str, Any]], path: Path, console: Console) -> None:
    """Print a matrix (``records`` by cell) and what to type next; the last line is its path."""
    rows = document["cells"]
    console.print(_numbers(rows))
    console.print(Text(f"\npictures{_not_compared(rows)}"), style="dim")
    if not _not_compared(rows):
        console.print(_pictures(rows))
    reasons: dict[tuple[str, str | None], list[str]] = {}
    for row in rows:
        if row["reason"] is not None:
            reasons.setdefault((row["reason"], row["todo"]), []).append(row["name"])
    for (reason, todo), names in reasons.items():
        console.print(Text(f"\n{', '.join(names)}: {reason}"))
        if todo is not None:
            console.print(Padding(Text(f"to do: {todo}"), (0, 0, 0, 2), expand=False))
    told = [row for row in rows if row["against_eager"] is not None]
    if told:
        console.print()
    for row in told:
        comparison = row["against_eager"]
        under = " (measured under disturbance)" if disturbance.of(records[row["name"]]) else ""
        console.print(Text(f"{row['name']} against eager: {comparison['verdict']}{under}: {comparison['reason']}"))
    console.print()
    for name, record in records.items():
        if phrases := disturbance.of(record):
            text.line(console, f"disturbed, {name}: {'; '.join(phrases)}")
    text.line(console, f"next: {next_step.after_matrix(document, records)}")
    text.line(console, f"record: {path}")


def _not_compared(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return why no cell's pictures are compared; empty where some are."""
    if any(row["reference"] or row["same_pixels_as_eager"] is not None for row in rows):
        return ""
    made = [row["name"] for row in rows if row["requests"]]
    return f": not compared, {f'only {made[0]}' if made else 'no cell'} has any"


def _numbers(rows: Sequence[Mapping[str, Any]]) -> Table:
    figures = ("denoise", "95 % interval", "end to end", "graphs")
    table = text.table("cell", "verdict", *figures, right=figures)
    for row in rows:
        outcome = row["outcome"]
        told = row["against_eager"]
        table.add_row(
            row["name"],
            Text(outcome, style=STYLES.get(outcome, "dim")),
            number(row["denoise_ms"], "ms"),
            interval(row["denoise_interval_ms"]),
            number(row["total_ms"], "ms"),
            "" if told is None else change(1.0, told["effect"]["ratio"]),
        )
    return table


def _pictures(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = text.table("cell", "pixels", "against", "PSNR", "SSIM", right=("PSNR", "SSIM"))
    for row in rows:
        likeness = row["likeness"]
        if row["same_pixels_as_eager"] is not None:
            pixels = "as eager" if row["same_pixels_as_eager"] else "NOT as eager"
        elif row["outputs_identical"] is not None:
            pixels = "all requests alike" if row["outputs_identical"] else "differ between requests"
        elif row["reference"] is not None:
            pixels = "one request"
        else:
            continue
        psnr = ssim = ""
        if likeness is not None:
            fault, same = likeness["fault"], likeness["identical"]
            psnr = fault or ("identical" if same else number(likeness["psnr_db"], "dB"))
            ssim = NOT_AVAILABLE if likeness["ssim"] is None else f"{likeness['ssim']:.4f}"
        table.add_row(row["name"], pixels, row["reference"] or "", psnr, ssim)
    return table
