"""A profile report in the terminal, as Markdown, and as one HTML file without script, font or network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text

from bench.report.profile_plots import plots
from bench.safe_text import markdown as escaped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console, RenderableType

    from bench.report.profile_cells import Table
    from bench.report.profile_view import View

WIDE_COLUMNS = 150
"""From this width on the terminal shows the wide columns too."""

FIRST_TABLES = 2
"""How many tables a short report has; all are in Markdown and HTML."""

TEMPLATES = Path(__file__).resolve().parent / "templates"


def show(shown: View, console: Console, *, full: bool = False) -> None:
    """Print a profile report: verdict, actions, warnings and the most telling tables; all tables when ``full``."""
    console.print(Text(shown.title, style="bold"))
    facts = Grid.grid(padding=(0, 2))
    for name, value in shown.facts:
        facts.add_row(Text(name, style="dim"), Text(value, overflow="fold"))
    console.print(Padding(facts, (0, 0, 1, 2)))
    console.print(Text.assemble(("verdict  ", "bold green"), shown.verdict))
    if shown.todos:
        console.print(Text("\nwhat to do first, and what it saves in a step at most", style="bold"))
    for number, todo in enumerate(shown.todos, 1):
        console.print(
            Text.assemble(f" {number}. ", (todo.saving, "bold"), f"  {todo.title} ", (f"[{todo.state}]", "cyan"))
        )
        console.print(Padding(Text(f"{todo.todo}\n{todo.evidence}", style="dim"), (0, 0, 0, 6)))
    for warning in shown.warnings:
        console.print(Text.assemble(("warning  ", "yellow"), warning))
    for table in shown.tables if full else shown.tables[:FIRST_TABLES]:
        console.print()
        console.print(grid(table, wide=console.width >= WIDE_COLUMNS))


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


def markdown(shown: View) -> str:
    """Return a profile report as Markdown."""
    return "\n".join(_lines(shown)) + "\n"


def _lines(shown: View) -> Iterator[str]:
    yield f"# {escaped(shown.title)}"
    yield ""
    yield f"**{escaped(shown.verdict)}**"
    yield ""
    for number, todo in enumerate(shown.todos, 1):
        yield f"{number}. **{todo.saving}** {escaped(todo.title)} ({todo.state}): {escaped(todo.todo)}."
        yield f"   {escaped(todo.evidence)}"
    if shown.todos:
        yield ""
    yield from (f"- {name}: {escaped(value)}" for name, value in shown.facts)
    if shown.warnings:
        yield ""
        yield "## Warnings"
        yield ""
        yield from (f"- {escaped(warning)}" for warning in shown.warnings)
    for table in shown.tables:
        yield from table_lines(table)


def table_lines(table: Table) -> Iterator[str]:
    """Yield the lines of a table under its title."""
    yield ""
    yield f"## {table.title}"
    yield ""
    yield escaped(table.note)
    yield ""
    yield "| " + " | ".join(escaped(column.name) for column in table.columns) + " |"
    yield "|" + "|".join("--:" if column.right else ":--" for column in table.columns) + "|"
    for row in table.rows:
        yield "| " + " | ".join(map(escaped, row)) + " |"


def html(shown: View) -> str:
    """Return a profile report as HTML."""
    import jinja2  # noqa: PLC0415 - only a report need pay for it
    import markupsafe  # noqa: PLC0415 - see above

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    gpu = shown.trace["gpu"]
    pictures = [
        {"name": plot.name, "title": plot.title, "caption": plot.caption, "svg": markupsafe.Markup(plot.svg)}  # noqa: S704 - our own plot, whose text matplotlib escapes
        for plot in (plots(gpu) if gpu else ())
    ]
    return environment.get_template("profile.html.j2").render(view=shown, plots=pictures)
