"""A profile report, or a diff of two, in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text

from bench.report.tables import Table

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from bench.report.page import Page

WIDE_COLUMNS = 150
"""From this width on the terminal shows the wide columns too."""

FIRST_TABLES = 2
"""How many tables a short report has; all are in Markdown and HTML."""


def show(shown: Page, console: Console, *, full: bool = False) -> None:
    """Print a report: verdict, actions, warnings and the most telling tables; all tables when ``full``."""
    console.print(Text(shown.title, style="bold"))
    if shown.facts:
        facts = Grid.grid(padding=(0, 2))
        for name, value in shown.facts:
            facts.add_row(Text(name, style="dim"), Text(value, overflow="fold"))
        console.print(Padding(facts, (0, 0, 1, 2), expand=False))
    console.print(Text.assemble(("verdict  ", "bold green"), shown.headline))
    if shown.todos:
        console.print(Text("\nwhat to do first, and what it saves in a step at most", style="bold"))
    for number, todo in enumerate(shown.todos, 1):
        console.print(
            Text.assemble(f" {number}. ", (todo.saving, "bold"), f"  {todo.title} ", (f"[{todo.state}]", "cyan"))
        )
        console.print(Padding(Text(f"{todo.todo}\n{todo.evidence}", style="dim"), (0, 0, 0, 6), expand=False))
    for warning in shown.warnings:
        console.print(Text.assemble(("warning  ", "yellow"), warning))
    tables = [block for block in shown.blocks if isinstance(block, Table)]
    for table in tables if full else tables[:FIRST_TABLES]:
        console.print()
        console.print(grid(table, wide=console.width >= WIDE_COLUMNS))
    if not full and (rest := tables[FIRST_TABLES:]):
        console.print(Text(f"\nin the report, or with --full: {', '.join(table.title for table in rest)}", style="dim"))


def grid(table: Table, *, wide: bool) -> RenderableType:
    """Return a table for the terminal."""
    laid = Grid(title=table.title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    laid.caption, laid.caption_justify, laid.caption_style = table.note, "left", "dim"
    shown = [index for index, column in enumerate(table.columns) if wide or not column.wide]
    for index in shown:
        column = table.columns[index]
        laid.add_column(
            Text(column.name),
            justify="right" if column.right else "left",
            no_wrap=column.right,
            overflow="fold",
        )
    for row in table.rows:
        laid.add_row(*(Text(row[index]) for index in shown))
    return laid
