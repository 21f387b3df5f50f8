"""All patterns in one pass: RE2's set matching, in time linear in the text whatever the line holds."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import re2

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
DFA_BYTES = 64 << 20


def clean(text: str) -> str:
    """Return ``text`` without ANSI codes."""
    return ANSI.sub("", text) if "\x1b" in text else text


def lines(block: str, first_line: int) -> Iterator[tuple[int, str]]:
    """Yield (line number, line) for each line of a block; pieces between carriage returns share their line's number."""
    for offset, line in enumerate(block.split("\n")):
        if "\r" in line:
            for piece in line.split("\r"):
                if piece:
                    yield first_line + offset, piece
        elif line:
            yield first_line + offset, line


class Matcher:
    """A compiled set of patterns.

    Raises:
        re2.error: a pattern is not RE2.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        options = re2.Options()
        options.max_mem = DFA_BYTES
        options.log_errors = False
        self._set = re2.Set.SearchSet(options)
        for pattern in patterns:
            self._set.Add(f"(?m){pattern}")
        self._set.Compile()
        self._single = [re2.compile(pattern, options) for pattern in patterns]
        self._any = bool(patterns)

    def find(self, text: str) -> list[int]:
        """Return the indices of the patterns that occur in ``text``, in order."""
        return sorted(self._set.Match(text) or ()) if self._any else []

    def groups(self, index: int, line: str) -> dict[str, str]:
        """Return the named groups of one pattern in ``line`` (empty where it does not occur)."""
        found = self._single[index].search(line)
        return {} if found is None else {name: value for name, value in found.groupdict().items() if value is not None}
