"""Where everything is printed: the one kind of console, table, line and JSON, safe for a terminal and without secrets.

What is printed may come from others (a log, a label, a record, a preset, a trace): nothing in it is markup, controls
the terminal, or is a secret that can be known as one.
"""

from __future__ import annotations

import json
import os
import re
import sys
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from bench import redact, safe_text

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from rich.console import ConsoleOptions, RenderableType, RenderResult
    from rich.table import Column


UNBROKEN = re.compile(r"\s*(?:invoke .*?(?:[.:;](?=\s|$)|$)|[^\s`]*`[^`]*`[^\s`]*|\S+(?: %\S*)?)")
"""What stays on one line: a command in backticks or to the end of its sentence, a path, a word, a percentage; after its
blanks."""

GAP = 2
"""Blanks between two columns of a table."""

UNLIMITED_COLUMNS = 10_000
"""Outside a terminal nothing is wrapped, so that grep finds whole names and a path can be copied."""


class SafeConsole(Console):
    """A console that takes no text for markup and lets through no control sequence but those of its own styles."""

    def __init__(self, *, stderr: bool = False) -> None:
        stream = sys.stderr if stderr else sys.stdout
        wide = None if stream.isatty() or "COLUMNS" in os.environ else UNLIMITED_COLUMNS
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False, width=wide)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments of what is printed; everything that rich prints comes through here."""
        safe = (segment if segment.control else _safe(segment) for segment in super().render(renderable, options))
        return _without_trailing_blanks(safe)

    def print(self, *objects: Any, **more: Any) -> None:
        """Print as rich does, except that a word which is longer than the line is not cut."""
        super().print(*objects, **{"crop": False, **more})

    def on_broken_pipe(self) -> None:
        """Leave the end to the task, which knows its exit code: rich would end the program with its own."""
        raise BrokenPipeError


def _without_trailing_blanks(segments: Iterable[Segment]) -> Iterator[Segment]:
    """Yield segments without the blanks that end a line: a table fills its last column up."""
    blanks: list[Segment] = []
    for segment in segments:
        content = segment.text if segment.control else re.sub(" +\n", "\n", segment.text)
        bare = content if segment.control else content.rstrip(" ")
        if not bare:
            blanks.append(segment)
            continue
        if not bare.startswith("\n"):
            yield from blanks
        yield segment if segment.control else Segment(bare, segment.style)
        blanks = [Segment(content[len(bare) :], segment.style)] if content != bare else []
    yield from blanks


def _safe(segment: Segment) -> Segment:
    style = segment.style
    if style is not None and style.link is not None:
        style = style.update_link(None)  # rich writes an address as it is
    return Segment(safe_text.terminal(segment.text), style)


def is_one_stream() -> bool:
    """Tell whether stdout and stderr go to one place, a terminal or a log of both: they are then read together."""
    try:
        ends = [os.fstat(stream.fileno()) for stream in (sys.stdout, sys.stderr)]
    except OSError:  # not a file: a test, or a program that takes them
        return False
    return os.path.samestat(*ends)


def stdout() -> Console:
    """Return the console for results."""
    return SafeConsole()


def stderr() -> Console:
    """Return the console for progress and messages, which never mix with a result."""
    return SafeConsole(stderr=True)


def line(console: Console, text: object, *, head: str = "", style: str = "") -> None:
    """Print text of one line: on a terminal broken between words, never in a path or a command that can be copied.

    ``head`` comes before it in ``style``; further lines begin below its end.
    """
    shown = safe_text.shown(text)
    if console.is_terminal:
        shown = wrapped(shown, console.width - len(head)).replace("\n", "\n" + " " * len(head))
    console.print(Text.assemble((head, style), shown), soft_wrap=True)


def wrapped(text: str, columns: int) -> str:
    """Return text broken at blanks to so many columns; a word or a command that is longer stays whole."""
    return "\n".join(piece for whole in text.split("\n") for piece in _broken(whole, columns))


def _broken(whole: str, columns: int) -> list[str]:
    if cell_len(whole) <= columns:
        return [whole]
    indent = whole[: len(whole) - len(whole.lstrip())]
    pieces = [""]
    for token in UNBROKEN.findall(whole):
        bare = token.lstrip()
        gains = bare.startswith("invoke ") or cell_len(bare) <= columns  # a command of its own line can be copied
        if pieces[-1].strip() and cell_len(pieces[-1] + token) > columns and gains:
            pieces.append(f"{indent and indent + '  '}{bare}")
        else:
            pieces[-1] += token
    return pieces


def write(text: object) -> None:
    """Write text and a line end to stdout as it is, for a program or a shell to read."""
    sys.stdout.write(f"{safe_text.shown(text)}\n")


class WholeWords(Table):
    """A table that breaks no word: where its columns are too narrow for that, each row is printed below the last."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table, or its rows as lines."""
        least, most = zip(*(self._range(console, options, column) for column in self.columns), strict=True)
        room = options.max_width - GAP * (len(self.columns) - 1)
        if sum(least) > room:
            yield from (Text(piece, overflow="ignore", no_wrap=True) for piece in self._stacked(options.max_width))
            return
        if sum(most) > room:
            for column, width in zip(self.columns, _widths(least, most, room), strict=True):
                column.width = width
        yield from super().__rich_console__(console, options)

    def _range(self, console: Console, options: ConsoleOptions, column: Column) -> tuple[int, int]:
        """Return the widths of a column's longest word and of its longest cell; a figure keeps its unit beside it."""
        titles = [column.header] if self.show_header else []
        cells = [Measurement.get(console, options, cell) for cell in (*titles, *column.cells)]
        most = max((cell.maximum for cell in cells), default=0)
        return most if column.justify == "right" else max((cell.minimum for cell in cells), default=0), most

    def _stacked(self, columns: int) -> Iterator[str]:
        """Yield each row as lines: its first cell, its figures on one line, and every other that is not empty."""
        titles = [str(column.header) for column in self.columns]
        for row in zip(*(column.cells for column in self.columns), strict=True):
            cells = [
                (title, str(cell).strip(), column.justify)
                for title, cell, column in zip(titles, row, self.columns, strict=True)
            ]
            yield from _broken(cells[0][1], columns)
            figures = [f"{title} {told}".strip() for title, told, justify in cells[1:] if justify == "right" and told]
            yield from _filled(figures, columns)
            for title, told, justify in cells[1:]:
                if told and justify != "right":
                    yield from _broken(f"  {title}: {told}" if title else f"  {told}", columns)


def _filled(figures: Sequence[str], columns: int) -> list[str]:
    """Return figures one after the other, indented, as many to a line as it holds."""
    lines: list[str] = []
    for figure in figures:
        if lines and cell_len(lines[-1]) + cell_len(figure) + len(",  ") <= columns:
            lines[-1] += f", {figure}"
        else:
            lines.append(f"  {figure}")
    return lines


def _widths(least: Sequence[int], most: Sequence[int], room: int) -> list[int]:
    """Return a width for each column between its least and most: what room there is goes to those that want it."""
    widths = list(least)
    while (spare := room - sum(widths)) > 0 and (growing := [i for i, width in enumerate(widths) if width < most[i]]):
        for place in growing[:spare]:
            widths[place] += min(max(1, spare // len(growing)), most[place] - widths[place])
    return widths


def table(*titles: str, right: Collection[str] = ()) -> Table:
    """Return an empty table without rules; the columns named in ``right`` are aligned to the right."""
    made = WholeWords(box=None, pad_edge=False, header_style="dim", padding=(0, GAP, 0, 0))
    for title in titles:
        made.add_column(title, justify="right" if title in right else "left", overflow="fold")
    return made


def facts() -> Table:
    """Return an empty table of two columns, a dim name and what it is."""
    made = WholeWords.grid(padding=(0, GAP))
    made.add_column(style="dim")
    made.add_column(overflow="fold")
    return made


def json_of(document: Any, default: Callable[[Any], Any] | None = None) -> str:
    """Return a document as JSON text that a terminal may show."""
    text = json.dumps(redact.document(document), indent=2, ensure_ascii=False, default=default)
    return safe_text.json(text) + "\n"


def write_json(document: Any, default: Callable[[Any], Any] | None = None) -> None:
    """Write a document to stdout, where it is the only thing."""
    sys.stdout.write(json_of(document, default))
