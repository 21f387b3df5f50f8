"""Tables as data: a title, a sentence, columns and rows of text; the layout is the renderer's."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column: ``right`` aligns figures; ``wide`` ones are left out where there is little room."""

    name: str
    right: bool = False
    wide: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table with a title, a sentence that says how to read it, columns, and rows of text."""

    title: str
    note: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]


def columns(text: str) -> tuple[Column, ...]:
    """Return columns from ``name | >figure | ?wide | >?wide figure``: a compact way to write many."""
    found = []
    for name in text.split("|"):
        bare = name.strip()
        marks = bare[: len(bare) - len(bare.lstrip(">?"))]
        found.append(Column(name=bare.lstrip(">?"), right=">" in marks, wide="?" in marks))
    return tuple(found)
