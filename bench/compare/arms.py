"""The arms of a comparison: what a SPEC on the command line means."""

from __future__ import annotations

import difflib
import re
import shlex
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bench.engine import find
from bench.errors import UsageError
from bench.run import plan

if TYPE_CHECKING:
    from bench.run.options import Options

VARIABLE = re.compile(r"([A-Z][A-Z0-9_]*)=(.*)")
NUMBERS = ("steps", "seed", "width", "height")
TEXTS = ("engine", "model-path", "attention-backend", "quality")
SWITCHES = {
    "compile": {"torch_compile": True},
    "eager": {"torch_compile": False, "cuda_graph": False},
    "cuda-graph": {"cuda_graph": True},
}


def options_of(spec: str, common: Options) -> Options:
    """Return the options of an arm: the common ones, changed by the words of its SPEC.

    Words: ``engine=NAME`` (or the bare name of an engine), ``steps=N``, ``seed=``, ``width=``, ``height=``,
    ``attention-backend=``, ``model-path=``, ``quality=``, ``compile``, ``cuda-graph``, ``eager``, ``NAME=VALUE`` in
    capitals for a variable, and ``--flag`` or ``--flag=value`` for the engine. An empty SPEC changes nothing.

    Raises:
        UsageError: a word is not one of these.
    """
    changes: dict[str, Any] = {"extra": common.extra, "environment": common.environment}
    try:
        words = shlex.split(spec)
    except ValueError as error:
        raise UsageError(f"cannot be split into words: {error}", where=spec) from error
    for word in words:
        name, equals, value = word.partition("=")
        if word.startswith("--"):
            changes["extra"] += (word,)
        elif variable := VARIABLE.fullmatch(word):
            changes["environment"] += ((variable[1], variable[2]),)
        elif word in SWITCHES:
            changes |= SWITCHES[word]
        elif equals and name in NUMBERS:
            changes[name] = _number(value, word)
        elif equals and name in TEXTS and value:
            changes[name.replace("-", "_")] = value
        elif name.startswith(find.SOURCE_PREFIX) or (not equals and (word == find.ON_PATH or word in find.built())):
            changes["engine"] = word
        else:
            raise _unknown(word, spec)
    return replace(common, **changes)


def placed(spec: str) -> str:
    """Return a SPEC that means the same arm in any working directory."""
    try:
        words = shlex.split(spec)
    except ValueError:
        return spec  # `options_of` says why
    made = [_placed(word) for word in words]
    return spec if made == words else shlex.join(made)


def _placed(word: str) -> str:
    name, equals, value = word.partition("=")
    if equals and name == "engine":
        return f"{name}={find.placed(value)}"
    if equals and name == "model-path":
        return f"{name}={plan.placed(value)}"
    return find.placed(word)


def _unknown(word: str, spec: str) -> UsageError:
    """Return the error for a word that an arm does not know, with the one that is most like it."""
    name, equals, value = word.partition("=")
    known = [f"{key}=" for key in (*NUMBERS, *TEXTS)] if equals else [*SWITCHES, *find.built(), find.ON_PATH]
    close = difflib.get_close_matches(name + equals, known, n=1)
    listed = [*(f"{key}=" for key in (*NUMBERS, *TEXTS)), *SWITCHES, "NAME=VALUE", "--flag", *find.built()]
    todo = f"did you mean {close[0]}{value}?" if close else f"known: {', '.join(listed)}"
    if not close and not equals:
        todo += f"; an engine must be built: `{find.build_command(word)}`"
    return UsageError(f"unknown word in an arm: {word!r}", where=None if spec == word else spec, todo=todo)


def _number(value: str, word: str) -> int:
    try:
        return int(value)
    except ValueError as error:
        raise UsageError(f"{word!r} needs a whole number") from error
