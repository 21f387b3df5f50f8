"""Where text and JSON are printed: the one kind of console, table and line that every report uses."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Collection


def stdout() -> Console:
    """Return the console for results."""
    return Console(highlight=False)


def stderr() -> Console:
    """Return the console for progress and messages, which never mix with a result."""
    return Console(stderr=True, highlight=False)


def line(console: Console, text: object) -> None:
    """Print text as it is, on one line however narrow the terminal: a path can be copied."""
    console.print(str(text), soft_wrap=True, highlight=False, markup=False)


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


def write_json(document: Any, default: Callable[[Any], Any] | None = None) -> None:
    """Write a document to stdout, where it is the only thing."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False, default=default) + "\n")
