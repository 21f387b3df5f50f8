"""Arguments and variables by their values, as the engine's own parser reads them: ``5e-1`` and ``0.5`` are one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import re2

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bench.catalog.receipts import Ask
    from bench.catalog.signals import Signal

ABSENT = ""
"""The value of a flag that stands alone."""
FALSE_WORDS = frozenset({"0", "false", "no", "n", "off", "f"})
"""Anything else but an empty variable counts as true: a word that one version rejects may mean true to another."""
NEGATIVE_NUMBER = re.compile(r"-\.?\d")


def of_arguments(argv: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield (flag, value) for each flag and each of its values; names are spelled with dashes, as the engine does."""
    flag, told = None, False
    for word in argv:
        if word.startswith("-") and not NEGATIVE_NUMBER.match(word):
            if flag is not None and not told:
                yield flag, ABSENT
            name, equals, value = word.partition("=")
            flag, told = name.replace("_", "-"), bool(equals)
            if equals:
                yield flag, value
        elif flag is not None:
            yield flag, word
            told = True
    if flag is not None and not told:
        yield flag, ABSENT


def holds(condition: Signal | Ask, value: str) -> bool:
    """Tell whether a value is one that the condition is about."""
    word = value.strip().strip("\"'").lower()
    if condition.when == "set":
        return bool(word)
    if condition.when == "true":
        return word not in FALSE_WORDS and (bool(word) or condition.on == "argument")
    if condition.when == "false":
        return word in FALSE_WORDS
    if condition.when == "below-1":
        return bool(word) and _below_one(word)
    if condition.when == "above-1":
        return _above_one(word)
    return re2.search(condition.pattern, value.strip()) is not None


def _above_one(word: str) -> bool:
    try:
        return float(word) > 1
    except ValueError:
        return False


def _below_one(word: str) -> bool:
    try:
        return not float(word) >= 1  # so written, NaN is below
    except ValueError:
        return True  # whatever it means to an engine, it is not the neutral 1
