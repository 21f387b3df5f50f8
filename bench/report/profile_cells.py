"""Tables as data: a title, a sentence, columns and rows of text; the layout is the renderer's."""

from __future__ import annotations

from dataclasses import dataclass

NO_FIGURE = "-"


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


def figure(value: float | None, digits: int = 2) -> str:
    """Return a figure as text; a dash for what is not known."""
    if value is None:
        return NO_FIGURE
    text = f"{value:,.{digits}f}"
    return text.lstrip("-") if not text.strip("-0.,") else text  # no "-0.00"


def columns(text: str) -> tuple[Column, ...]:
    """Return columns from ``name | >figure | ?wide | >?wide figure``: a compact way to write many."""
    found = []
    for name in text.split("|"):
        bare = name.strip()
        marks = bare[: len(bare) - len(bare.lstrip(">?"))]
        found.append(Column(name=bare.lstrip(">?"), right=">" in marks, wide="?" in marks))
    return tuple(found)
