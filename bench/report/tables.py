"""Tables as data: a title, a sentence, columns and rows of text; the layout is the renderer's."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Cells = Mapping[str, Callable[[Any], str]]
    """Each column, as `columns` writes it, with what makes its cell of an entry."""

NAMESPACES = re.compile(r"\(anonymous namespace\)::|\b[a-z_][\w]*::")
FUNCTOR = re.compile(r"\b(\w*(?:Functor\w*|KernelImpl|FlashAttnFwd\w+|_kernel(?:_cuda)?|cuda_out))\b")
NOT_TELLING = frozenset({"gpu_kernel_impl", "elementwise_kernel", "device_kernel"})


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


def listing(title: str, note: str, entries: Iterable[Any], cells: Cells) -> Table:
    """Return a table with one row for each entry."""
    rows = tuple(tuple(cell(entry) for cell in cells.values()) for entry in entries)
    return Table(title=title, note=note, columns=columns(" | ".join(cells)), rows=rows)


@functools.cache
def short_kernel(name: str) -> str:
    """Return a kernel's function and, in angle brackets, the functor that says what it does."""
    plain = NAMESPACES.sub("", name.removeprefix("void "))
    function, found, arguments = plain.partition("<")
    if not found:
        return plain.split("(")[0].strip()
    function = function.split("(")[0].strip()
    for functor in FUNCTOR.findall(arguments):
        if functor not in NOT_TELLING and functor != function:
            return f"{function}<{functor}>"
    return function
