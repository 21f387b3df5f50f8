"""Where everything is printed: the one kind of console, table, line and JSON, safe for a terminal and without secrets.

What is printed may come from others (a log, a label, a record, a preset, a trace): nothing in it is markup, controls
the terminal, or is a secret that can be known as one.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.segment import Segment
from rich.table import Table

from bench import redact, safe_text

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from rich.console import ConsoleOptions, RenderableType


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
        for segment in super().render(renderable, options):
            yield segment if segment.control else _safe(segment)


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


def line(console: Console, text: object) -> None:
    """Print text as it is, on one line however narrow the terminal: a path can be copied."""
    console.print(safe_text.shown(text), soft_wrap=True)


def prose(console: Console, text: object) -> None:
    """Print text of words: wrapped between them on a terminal, on one line elsewhere."""
    console.print(safe_text.shown(text), soft_wrap=not console.is_terminal)


def write(text: object) -> None:
    """Write text and a line end to stdout as it is, for a program or a shell to read."""
    sys.stdout.write(f"{safe_text.shown(text)}\n")


def table(*titles: str, right: Collection[str] = ()) -> Table:
    """Return an empty table without rules; the columns named in ``right`` are aligned to the right."""
    made = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for title in titles:
        made.add_column(title, justify="right" if title in right else "left", overflow="fold")
    return made


def facts() -> Table:
    """Return an empty table of two columns, a dim name and what it is."""
    made = Table.grid(padding=(0, 2))
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
