"""The values that options may have, read from what is here: never checked, since a TAB must not wait."""

from __future__ import annotations

import collections
import re
import shutil
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import paths
from bench.options import LABEL

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bench.options import Option

    Values = Callable[[], Mapping[str, str]]

RECORDS_SHOWN = 20
"""The newest; a person who wants an older one has its path."""


def _tables(folder: str) -> dict[str, dict[str, Any]]:
    """Return the tables of a catalog folder as they stand there: checking them against schemas takes too long."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted((paths.CATALOG / folder).glob("*.toml")):
        found |= {key: table for key, table in tomllib.loads(path.read_text("utf-8")).items() if type(table) is dict}
    return found


def presets() -> dict[str, str]:
    """Return every preset of this repository with its description."""
    return {key: str(table.get("description", "")) for key, table in _tables("presets").items()}


def tags() -> dict[str, str]:
    """Return the tags of the presets, with how many have each."""
    counted: collections.Counter[str] = collections.Counter()
    for table in _tables("presets").values():
        counted.update(table.get("tags", ()))
    return {tag: f"{count} presets" for tag, count in sorted(counted.items())}


def built_engines() -> dict[str, str]:
    """Return the configurations that are built here."""
    from bench.engine import find  # noqa: PLC0415 - only for an engine's name

    return dict.fromkeys(find.built(), "built here")


def engines() -> dict[str, str]:
    """Return what `--engine` takes: what is built, and how the others begin."""
    on_path = {"path": "the sglang on PATH"} if shutil.which("sglang") else {}
    return {**built_engines(), **on_path, "source:": "a checkout of SGLang: source:PATH"}


def arms() -> dict[str, str]:
    """Return the words of an arm: engines, switches, and what takes a value."""
    from bench.compare import arms as words  # noqa: PLC0415 - only for an arm

    named = dict.fromkeys(words.SWITCHES, "changes the arm")
    return {**engines(), **named, **{f"{name}=": "takes a value" for name in (*words.NUMBERS, *words.TEXTS)}}


def records(*names: str) -> dict[str, str]:
    """Return the newest run directories that have one of these files, as one would type them here."""
    try:
        folders = sorted((path for path in paths.runs().iterdir() if path.is_dir()), reverse=True)
    except OSError:
        return {}
    found: dict[str, str] = {}
    for folder in folders:
        if len(found) == RECORDS_SHOWN:
            break
        if (name := next((name for name in names if (folder / name).exists()), None)) is not None:
            found[paths.typed(folder)] = name
    newest = {"last": "the newest"} if found else {}
    return newest | found | {label: "label" for label in map(_label, found) if label and LABEL.fullmatch(label)}


SAID = re.compile(rb'"label": "([^"\\]+)"')
HEAD_BYTES = 1024
"""A record's label is among its first lines: a TAB cannot wait for the whole."""


def _label(folder: str) -> str | None:
    """Return the label of a run, None if it has none."""
    for name in ("run.json", "run.partial.json"):
        try:
            with Path(folder, name).open("rb") as file:
                seen = SAID.search(file.read(HEAD_BYTES))
        except OSError:
            continue
        return None if seen is None else seen[1].decode("utf-8", "replace")
    return None


def finished() -> dict[str, str]:
    """Return the newest runs that have a record."""
    return records("run.json", "run.partial.json")


def cut_off() -> dict[str, str]:
    """Return the newest runs that can be resumed."""
    return records("run.partial.json", "campaign.json")


def categories() -> dict[str, str]:
    """Return the categories of signals."""
    return {path.stem: "signals" for path in sorted((paths.CATALOG / "signals").glob("*.toml"))}


def tour_steps() -> dict[str, str]:
    """Return the steps of the tour."""
    from bench.tour.steps import STEPS  # noqa: PLC0415 - only for a step's name

    return {step.name: step.title for step in STEPS}


LISTS: Mapping[str, Values] = {
    values.__name__: values
    for values in (presets, tags, built_engines, engines, arms, finished, cut_off, categories, tour_steps)
}
"""By the name that an option's ``completes`` gives."""


def offered(option: Option) -> Mapping[str, str]:
    """Return the values that an option may have with a word about each; none where only the user can know them."""
    if option.completes:
        return LISTS[option.completes]()
    return option.choices
