"""What a change did to the files of an engine: the lines that are new, and the places where lines only went."""

from __future__ import annotations

import ast
import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.engine import code, source
from bench.reach import lines

if TYPE_CHECKING:
    from pathlib import Path

    from bench.engine.find import Engine

PYTHON = ".py"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A file that differs: its name, and its text and its path on each side; None where that side lacks it."""

    name: str
    before: str | None
    after: str | None
    path_before: str | None = None
    """Of the file in the tree that the base runs from, where that is known."""
    path_after: str | None = None

    @property
    def is_python(self) -> bool:
        """Whether its lines can be traced."""
        return self.name.endswith(PYTHON)

    @property
    def only_comments(self) -> bool:
        """Whether both sides are the same program."""
        if self.before is None or self.after is None or not self.is_python:
            return False
        try:
            return ast.dump(ast.parse(self.before)) == ast.dump(ast.parse(self.after))
        except (SyntaxError, ValueError):
            return False

    def new_lines(self) -> list[int]:
        """Return the numbers of the lines of code that the change brought, on its own side."""
        if not self.is_python or self.only_comments:
            return []
        return _of_code(self.after, [line for _, _, low, high in self._pieces() for line in range(low + 1, high + 1)])

    def gone_lines(self) -> list[int]:
        """Return the numbers, on the base's side, of lines of code that went without others in their place.

        A comment does not count: code that was commented out is gone.
        """
        if not self.is_python or self.only_comments:
            return []
        new = set(self.new_lines())
        gone = [piece for piece in self._pieces() if new.isdisjoint(range(piece[2] + 1, piece[3] + 1))]
        return _of_code(self.before, [line for first, last, *_ in gone for line in range(first + 1, last + 1)])

    def _pieces(self) -> list[tuple[int, int, int, int]]:
        before, after = lines.split(self.before or ""), lines.split(self.after or "")
        matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
        return [piece[1:] for piece in matcher.get_opcodes() if piece[0] != "equal"]


def _of_code(text: str | None, numbers: list[int]) -> list[int]:
    """Return the lines that hold code, of a text that Python cannot parse all of them."""
    module = lines.read(text or "")
    return numbers if module is None else [number for number in numbers if number in module.code_lines]


def in_checkout(folder: Path, base: str) -> list[Change]:
    """Return what code differs between a commit and the files of the checkout as they are now.

    Raises:
        UsageError: not a checkout.
    """
    root = source.top(folder)
    found = []
    for old, new in source.differing(root, base):
        name = new or old or ""
        if not _may_run(name):
            continue
        python = name.endswith(PYTHON)
        found.append(
            Change(
                name=name,
                before=source.text_at(root, base, old) if old and python else None,
                after=_text(root / new) if new and python else None,
                path_before=old,
                path_after=str(root / new) if new else None,
            )
        )
    return found


def between(base: Engine, head: Engine) -> list[Change]:
    """Return what differs between the packages of two engines, as their files are now."""
    packages = base.code[0], head.code[0]
    hashes = [code.read([package]).hashes for package in packages]
    found = []
    for name in sorted(hashes[0].keys() | hashes[1].keys()):
        if hashes[0].get(name) == hashes[1].get(name):
            continue
        places = [
            package.parent / name if name in known else None for package, known in zip(packages, hashes, strict=True)
        ]
        before, after = (_text(place) if place and name.endswith(PYTHON) else None for place in places)
        found.append(
            Change(
                name=name,
                before=before,
                after=after,
                path_before=None if places[0] is None else str(places[0]),
                path_after=None if places[1] is None else str(places[1]),
            )
        )
    return found


def _may_run(name: str) -> bool:
    """Tell whether a file is code; pages and the bytecode that Python writes are not."""
    return name.endswith(code.SUFFIXES) and "__pycache__" not in name.split("/")


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
