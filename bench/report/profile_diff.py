"""A diff of two traces, in the terminal and as Markdown."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from rich.text import Text

from bench.report.figures import figure
from bench.report.page import table_lines
from bench.report.profile_forms import WIDE_COLUMNS, grid
from bench.report.tables import Table, columns, short_kernel
from bench.safe_text import markdown as escaped

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

SHOWN_BUCKETS = 20
LEAST_MS = 0.005
"""Less is written as 0.00."""


def render(document: Mapping[str, Any], console: Console) -> None:
    """Print a diff."""
    console.print(Text(_title(document), style="bold"))
    console.print(Text.assemble(("verdict  ", "bold green"), document["verdict"]["sentence"]))
    for warning in document["warnings"]:
        console.print(Text.assemble(("warning  ", "yellow"), warning))
    for table in _tables(document):
        console.print()
        console.print(grid(table, wide=console.width >= WIDE_COLUMNS))


def markdown(document: Mapping[str, Any]) -> str:
    """Return a diff as Markdown."""
    lines = [f"# {escaped(_title(document))}", "", f"**{escaped(document['verdict']['sentence'])}**"]
    lines += ["", *(f"- {escaped(warning)}" for warning in document["warnings"])] if document["warnings"] else []
    for table in _tables(document):
        lines += table_lines(table)
    return "\n".join(lines) + "\n"


def _title(document: Mapping[str, Any]) -> str:
    a, b = (
        f"{PurePath(side['path']).name} (steps {', '.join(side['steps'])})" for side in (document["a"], document["b"])
    )
    return f"From {a} to {b}"


def _signed(value: float) -> str:
    return figure(0.0) if abs(value) < LEAST_MS else f"{value:+.2f}"


def _tables(document: Mapping[str, Any]) -> tuple[Table, ...]:
    return tuple(
        table
        for table in (_totals(document), _steps(document), _categories(document), _buckets(document))
        if table.rows
    )


def _totals(document: Mapping[str, Any]) -> Table:
    totals = document["totals"]
    changes = (
        ("busy", figure(totals["a_busy_ms"]), figure(totals["b_busy_ms"]), totals["b_busy_ms"] - totals["a_busy_ms"]),
        ("of which work", "", "", totals["work_ms"]),
        ("of which speed", "", "", totals["speed_ms"]),
        ("idle", "", "", totals["idle_ms"]),
        ("span", figure(totals["a_span_ms"]), figure(totals["b_span_ms"]), totals["delta_ms"]),
    )
    return Table(
        title="The step",
        note=f"means, milliseconds; the steps of A differ by {totals['spread_ms']:.2f} ms among themselves",
        columns=columns(" | >A | >B | >change"),
        rows=tuple((name, a, b, _signed(change)) for name, a, b, change in changes),
    )


def _steps(document: Mapping[str, Any]) -> Table:
    return Table(
        title="Each step against the mean step of A",
        note="over the kernels of equal number; broad: which share of the time is slower by its part",
        columns=columns("step | >time | >broad | work | "),
        rows=tuple(
            (
                f"{step['side']} {step['label']}",
                f"{step['ratio']:.3f} x",
                f"{100 * step['broad_share']:.0f} %",
                "same" if step["same_work"] else "other",
                "slower clock" if step["slower_clock"] else "",
            )
            for step in document["steps"]
        ),
    )


def _categories(document: Mapping[str, Any]) -> Table:
    return Table(
        title="By category",
        note="ms per step; the change is parted in work and speed",
        columns=columns("category | >A | >B | >work | >speed"),
        rows=tuple(
            (
                entry["title"],
                figure(entry["a_ms"]),
                figure(entry["b_ms"]),
                _signed(entry["work_ms"]),
                _signed(entry["speed_ms"]),
            )
            for entry in document["categories"]
        ),
    )


def _buckets(document: Mapping[str, Any]) -> Table:
    return Table(
        title="What changed most",
        note=f"the {SHOWN_BUCKETS} largest changes beyond the spread of A's own steps",
        columns=columns("operator | shape | module | state | >n | >A ms | >B ms | >change | ?kernels"),
        rows=tuple(
            (
                bucket["operator"],
                bucket["shape"],
                bucket["module"].rpartition(" > ")[2],
                bucket["state"],
                _counts(bucket),
                figure(bucket["a_ms"]),
                figure(bucket["b_ms"]),
                _signed(bucket["delta_ms"]),
                _kernels(bucket),
            )
            for bucket in _shown(document["buckets"])
        ),
    )


def _shown(buckets: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    telling = [bucket for bucket in buckets if not bucket["within_spread"] and bucket["state"] != "same"]
    return [bucket for bucket in telling if abs(bucket["delta_ms"]) >= LEAST_MS][:SHOWN_BUCKETS]


def _counts(bucket: Mapping[str, Any]) -> str:
    a, b = bucket["a_per_step"], bucket["b_per_step"]
    return f"{a:g}" if a == b else f"{a:g} -> {b:g}"


def _kernels(bucket: Mapping[str, Any]) -> str:
    a, b = (" + ".join(map(_kernel, bucket[name])) or "-" for name in ("a_kernels", "b_kernels"))
    return a if a == b else f"{a} -> {b}"


def _kernel(text: str) -> str:
    name, _, count = text.rpartition(" x")
    return f"{short_kernel(name)} x{count}"
