"""The arms of a comparison: what a SPEC on the command line means."""

from __future__ import annotations

import difflib
import re
import shlex
from dataclasses import replace
from typing import Any

from bench.engine import find
from bench.errors import UsageError
from bench.options import converted, declared
from bench.run import plan
from bench.run.options import Options

VARIABLE = re.compile(r"([A-Z][A-Z0-9_]*)=(.*)")
NUMBERS = ("steps", "seed", "width", "height")
TEXTS = ("engine", "model-path", "attention-backend", "quality")
NAMED = (*NUMBERS, *TEXTS)
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
        UsageError: a word is not one of these, its value is not one that the option takes, or two of them exclude each
            other.
    """
    try:
        words = shlex.split(spec)
    except ValueError as error:
        raise UsageError(f"cannot be split into words: {error}", where=spec) from error
    changes: dict[str, Any] = {}
    variables: dict[str, str] = {}
    extra = []
    said: dict[str, str] = {}
    for word in words:
        if word.startswith("--"):
            extra.append(word)
            continue
        variable = VARIABLE.fullmatch(word)
        changed = {variable[1]: variable[2]} if variable else _changed(word, spec)
        if (earlier := next((said[name] for name in changed if name in said), word)) != word:
            raise UsageError(f"{earlier} and {word} exclude each other", where=spec, todo="leave one of them out")
        said |= dict.fromkeys(changed, word)
        if variable is None:
            changes |= changed
        elif (name := variable[1].lower().replace("_", "-")) in NAMED:
            raise UsageError(
                f"{word} would set a variable of the engine's environment",
                where=_around(word, spec),
                todo=f"did you mean {name}={variable[2]}?",
            )
        else:
            variables |= changed
    return replace(
        common,
        **changes,
        extra=(*common.extra, *extra),
        environment=(*common.environment, *variables.items()),
    )


def _changed(word: str, spec: str) -> dict[str, Any]:
    """Return what a word that is neither a variable nor a flag changes: fields of the options with their values."""
    name, equals, value = word.partition("=")
    if word in SWITCHES:
        return SWITCHES[word]
    if name.startswith(find.SOURCE_PREFIX) or (not equals and (word == find.ON_PATH or word in find.built())):
        return {"engine": word}
    if not equals or name not in NAMED:
        raise _unknown(word, spec)
    if not value:
        raise UsageError(f"{word} lacks its value", where=_around(word, spec))
    field = name.replace("-", "_")
    known = next(known for known in declared(Options) if known.path == (field,))
    try:
        return {field: converted(known, value, shown=f"{name}=")}
    except UsageError as error:
        error.where = _around(word, spec)
        if "," in value and name in NUMBERS:
            error.todo = "the words of an arm are separated by spaces"
        raise


def _around(word: str, spec: str) -> str | None:
    """Return the arm that a word stands in, None where it is all of it."""
    return None if spec == word else spec


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
    known = [f"{key}=" for key in NAMED] if equals else [*SWITCHES, *find.built(), find.ON_PATH]
    close = difflib.get_close_matches(name + equals, known, n=1)
    listed = [*(f"{key}=" for key in NAMED), *SWITCHES, "NAME=VALUE", "--flag", *find.built()]
    todo = f"did you mean {close[0]}{value}?" if close else f"known: {', '.join(listed)}"
    if not close and not equals:
        todo += f"; an engine must be built: `{find.build_command(word)}`"
    return UsageError(f"unknown word in an arm: {word!r}", where=_around(word, spec), todo=todo)
