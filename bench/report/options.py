"""The options of every verb as the page docs/options.md."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bench.options import Verb

HEAD = """\
# Options

Every option of every verb, written from the fields that declare them (`option(...)` in bench/run/options.py,
bench/accuracy/options.py and bench/verbs/). `invoke --help VERB` shows the same. To write this page anew:
`UPDATE_GOLDEN=1 pytest tests/test_options.py`.
"""


def page(verbs: Mapping[str, Verb]) -> str:
    """Return the page as Markdown: a table for each verb, group by group."""
    return "\n".join([HEAD, *(line for verb in verbs.values() for line in _verb(verb))])


def _verb(verb: Verb) -> Iterator[str]:
    yield f"## {verb.name}"
    yield ""
    yield verb.text
    yield ""
    if verb.options:
        yield "| | option | what it does |"
        yield "|---|---|---|"
        for group, members in groupby(verb.options, key=lambda option: option.group):
            for place, option in enumerate(members):
                title = "" if place else group
                yield f"| {title} | `{option.typed}` | {option.explained} |"
        yield ""
