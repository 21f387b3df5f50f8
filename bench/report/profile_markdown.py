"""A profile report or diff as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.report.profile_cells import Table
    from bench.report.profile_view import View

ESCAPED = str.maketrans({"|": "\\|", "<": "&lt;", "*": "\\*", "_": "\\_", "\n": " "})


def render(shown: View) -> str:
    """Return a profile report as Markdown."""
    return "\n".join(_lines(shown)) + "\n"


def escaped(text: str) -> str:
    """Return text in which nothing is Markdown."""
    return text.translate(ESCAPED)


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
