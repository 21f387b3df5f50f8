"""What a command line that cannot be read was probably meant to be."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from bench.errors import UsageError
from bench.options import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bench.options import Option, Verb


GONE = {
    ("ab", "--co-resident"): "leave it out: the engines of a pair start together unless --alternate is said",
    ("ab", "--blocks"): "--pairs: arms are measured in pairs of engine starts",
}
"""Options of earlier versions, and what to type now."""

ELSEWHERE = {
    "--size": ("width", "--width and --height, in pixels"),
    "--gpus": ("model", "the preset says how many GPUs a run takes; CUDA_VISIBLE_DEVICES chooses which"),
    "--prompt": ("preset-file", "the preset holds the prompt: write one of your own for --preset-file"),
    "--last": ("", "last is a word for the newest run, e.g. `invoke report last`"),
    "--open": ("", "`invoke report last` writes a page and names it: open that in a browser"),
    "--quiet": ("", "progress goes to stderr and results to stdout: 2>/dev/null leaves the results"),
    "--version": ("", "`invoke doctor` names the versions of workbench and engine"),
    **dict.fromkeys(
        ("--csv", "--html", "--svg"),
        (
            "plot",
            "--json prints the points, --plot writes a page; `invoke report --model NAME --csv` prints the values",
        ),
    ),
    **dict.fromkeys(
        ("--warmup", "--warmups", "--warmup-requests"),
        ("repeats", "leave it out: each engine start serves one request that does not count before those that do"),
    ),
    "--yes": ("", "leave it out: this task asks no questions"),
}
"""Options that other tools have: the option that a task has if the answer is for it (empty: any task), the answer."""


def unknown_task(word: str, tasks: Iterable[str]) -> UsageError:
    """Return the error for a word that should be a task."""
    if word.startswith("-"):
        return UsageError(
            f"invoke has no option {word}",
            todo="the options of a task follow its name, e.g. `invoke bench --model flux`; `invoke` alone shows more",
        )
    if word == "help":
        return UsageError(
            "no task is called 'help'", todo="`invoke TASK --help` explains a task; `invoke --list` shows them"
        )
    close = closest(word, tasks)
    return UsageError(
        f"no task is called {word!r}", todo=f"did you mean {close}?" if close else "`invoke --list` shows the tasks"
    )


def unknown_option(verb: Verb, word: str) -> UsageError:
    """Return the error for a word that begins like an option."""
    if (now := GONE.get((verb.name, word))) is not None:
        return UsageError(f"{verb.name} no longer has {word}", todo=now)
    names = {option.name for option in verb.options}
    todo = f"`invoke {verb.name} --help` lists its options"
    if word in ELSEWHERE:
        needed, answer = ELSEWHERE[word]
        todo = answer if not needed or needed in names else todo
    elif close := _abbreviated(word, verb) or closest(word.lstrip("-"), names):
        todo = f"did you mean --{close}?"
    return UsageError(f"{verb.name} has no option {word}", todo=todo)


def _abbreviated(word: str, verb: Verb) -> str | None:
    """Return the first option of a task that begins with the letter of -m, None for any other word."""
    return next((option.name for option in verb.options if word == f"-{option.name[0]}"), None)


def stray_word(verb: Verb, word: str, values: Mapping[str, Iterable[str]]) -> UsageError:
    """Return the error for a word that is neither an option nor the value of one.

    ``values`` holds the values that are known, by the name of the option that takes them.
    """
    option = next((name for name, known in values.items() if word in known), None)
    close = closest(word, (known.name for known in verb.options)) if option is None else None
    if option is not None:
        todo = f"did you mean --{option} {word}?"
    elif close is not None:
        todo = f"did you mean --{close}?"
    else:
        todo = f"`invoke {verb.name} --help` lists its options"
    return UsageError(f"{verb.name} does not take the word {word!r}", todo=todo)


def missing_words(verb: Verb) -> UsageError:
    """Return the error for a task without the words that it needs."""
    needed = " ".join(option.typed for option in verb.options if option.positional)
    return UsageError(f"{verb.name} needs {needed}", todo=f"`invoke {verb.name} --help` explains it")


def missing_value(option: Option) -> UsageError:
    """Return the error for an option at the end of a line, or before another option, that takes a value."""
    allowed = f": {', '.join(option.choices)}" if option.choices else ""
    kind = {Kind.WHOLE: "a whole number", Kind.NUMBER: "a number", Kind.PERCENTAGE: "a percentage such as 1%"}
    return UsageError(
        f"--{option.name} takes {kind.get(option.kind, 'a value')}{allowed}, and none was given",
        todo=f"type {option.typed}: {option.help}",
    )


def given_twice(option: Option, first: str, second: str) -> UsageError:
    """Return the error for an option that takes one value and was given two."""
    return UsageError(
        f"--{option.name} takes one value, and two were given: {first} and {second}", todo="leave one out"
    )


def closest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that is most like this one, whatever its case; None if none is like it."""
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1)
    return by_lower[close[0]] if close else None
