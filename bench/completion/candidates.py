"""What may stand at the cursor of a line that begins with `invoke`."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

from bench.completion import values
from bench.options import Kind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.options import Option, Verb

ASSIGNMENT = re.compile(r"\w+=\S*")


def split(line: str) -> tuple[list[str], str]:
    """Return the whole words of a line up to the cursor, and the one that is being typed (perhaps empty)."""
    for closing in ("", "'", '"'):
        try:
            words = shlex.split(line + closing)
        except ValueError:
            continue  # a quote is still open
        if not closing and (not line or (line[-1].isspace() and not line.endswith("\\ "))):
            return words, ""
        return words[:-1], words[-1] if words else ""
    return line.split(), ""


def complete(line: str, verbs: Mapping[str, Verb]) -> dict[str, str]:
    """Return the whole words that may stand where the last word of the line is, with a text for each, in order."""
    words, current = split(line)
    while words and ASSIGNMENT.fullmatch(words[0]):
        words = words[1:]
    found, current, prefix = _invoke(words[1:], current, verbs)
    return {prefix + value: text for value, text in found.items() if value.startswith(current)}


def _invoke(words: Sequence[str], current: str, verbs: Mapping[str, Verb]) -> tuple[Mapping[str, str], str, str]:
    """Return candidates, the part of the current word that they continue, and what stands before that part."""
    if "--" in words:
        return {}, current, ""  # the engine's own flags
    place = next((place for place in reversed(range(len(words))) if words[place] in verbs), None)
    if place is None or words[max(0, place - 1)] in ("--help", "-h"):
        core = {"--list": "show all tasks", "--help": "show a task's options"}
        return core if current.startswith("-") else {name: verb.text for name, verb in verbs.items()}, current, ""
    verb, given = verbs[words[place]], words[place + 1 :]
    before = verb.option(given[-1]) if given and "=" not in given[-1] else None
    positional = next((option for option in verb.options if option.positional), None)
    if before is not None and before.takes_value:
        return _values(before, current, "")
    if "=" in current and (own := verb.option(current)) is not None:
        name, _, value = current.partition("=")
        return _values(own, value, f"{name}=")
    if positional is None or current.startswith("-"):
        return _options(verb, given), current, ""
    return _values(positional, current, "")


def _options(verb: Verb, given: Sequence[str]) -> dict[str, str]:
    """Return the options that were not given yet."""
    seen = {word.partition("=")[0] for word in given}
    listed = {f"--{option.name}": option.help for option in verb.options if f"--{option.name}" not in seen}
    return listed if given else {"--help": "show the options"} | listed


def _values(option: Option, current: str, prefix: str) -> tuple[Mapping[str, str], str, str]:
    known = values.offered(option)
    if option.kind is Kind.NAMES and "," in current:
        done, _, current = current.rpartition(",")
        known = {value: text for value, text in known.items() if value not in done.split(",")}
        prefix += f"{done},"
    return known, current, prefix
