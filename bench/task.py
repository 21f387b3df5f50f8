"""Invoke tasks that end as people expect: the only module that imports invoke.

Every task of this repository is a `GuardedTask`: an error that a person can mend becomes one short text on stderr and
the exit code of its class; a fault of ours keeps its traceback.
"""

from __future__ import annotations

import re
import shlex
import signal
import sys
from typing import TYPE_CHECKING, Any

from invoke.collection import Collection
from invoke.context import Context
from invoke.exceptions import Exit
from invoke.parser.argument import Argument
from invoke.tasks import Task
from invoke.tasks import task as invoke_task

from bench.errors import BenchError, Interrupted, UnknownName, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.completion.candidates import Verb

__all__ = ["Collection", "Context", "GuardedTask", "described", "extra_arguments", "number", "one_of", "share", "task"]


class GuardedTask(Task[Any]):
    """A task whose errors become exit codes, and that can take a list of files."""

    many: str | None = None
    """The name of the parameter that takes all positional arguments."""

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Argument]:
        """Return the parser's arguments; Invoke knows no list of positionals, so one is made for each word given."""
        helps = dict(self.help)
        arguments = super().get_arguments(ignore_unknown_help)
        self.help.update(helps)  # Invoke takes away what it used, and a second call would have no help
        if self.many is None:
            return arguments
        first = next(argument for argument in arguments if argument.name == self.many)
        others = [
            Argument(names=(f"{self.many}-{position}",), attr_name=f"{self.many}_{position}", positional=True)
            for position in range(1, len(self._words(arguments)))
        ]
        place = arguments.index(first) + 1
        return [*arguments[:place], *others, *arguments[place:]]

    def _words(self, arguments: list[Argument]) -> list[str]:
        """Return the words of the command line that are this task's, without options and their values."""
        names = {self.name, self.name.replace("_", "-")}
        start = next((place + 1 for place, word in enumerate(sys.argv) if place and word in names), len(sys.argv))
        takes_value = {f"--{name}" for argument in arguments if argument.takes_value for name in argument.names}
        words: list[str] = []
        previous = ""
        for word in sys.argv[start:]:
            if word == "--":
                break
            if not word.startswith("-") and previous not in takes_value:
                words.append(word)
            previous = word
        return words

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task's body.

        Raises:
            Exit: with the message and code of a `BenchError`, of Ctrl-C (130), or of a refusal by the system (1).
        """
        if self.many is not None:
            others = sorted((name for name in kwargs if name.startswith(f"{self.many}_")), key=_position)
            kwargs[self.many] = [kwargs[self.many], *(kwargs.pop(name) for name in others)]
        # a batch system ends a job with SIGTERM: the engine is stopped and what was begun is closed as after Ctrl-C
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            return super().__call__(*args, **kwargs)
        except BenchError as error:
            raise Exit(f"error: {error}", code=error.exit_code) from error
        except KeyboardInterrupt as error:
            raise Exit("interrupted: the engine and all its processes were stopped", Interrupted.exit_code) from error
        except OSError as error:
            place = f"\n  where: {error.filename}" if error.filename else ""
            raise Exit(f"error: the system refused: {error.strerror or error}{place}", code=1) from error


def _position(name: str) -> int:
    return int(name.rpartition("_")[2])


def task(
    help: dict[str, str] | None = None,  # noqa: A002 - invoke's word
    many: str | None = None,
    repeated: Sequence[str] = (),
) -> Callable[[Callable[..., None]], Any]:
    """Return the decorator that makes a function a `GuardedTask` with long options only.

    ``many`` names the parameter that takes all words of the command line that are no options, as a list; ``repeated``
    the options that may be given several times, as lists.
    """

    def decorate(body: Callable[..., None]) -> Any:
        # short flags would go to whichever option comes first in the signature: adding one would move another's
        made: Any = invoke_task(
            body, klass=GuardedTask, help=help or {}, auto_shortflags=False, iterable=list(repeated)
        )
        made.many = many
        return made

    return decorate


def described(collection: Collection) -> dict[str, Verb]:
    """Return the tasks of a collection as plain data, by the names that are typed."""
    from bench.completion.candidates import Option, Verb  # noqa: PLC0415 - only at a TAB

    verbs = {}
    for name in sorted(collection.task_names):
        made: Any = collection[name]
        text = (made.__doc__ or "").strip().partition("\n")[0]
        options = tuple(
            Option(
                name=argument.names[0],
                takes_value=argument.takes_value,
                positional=argument.positional,
                help=argument.help or "",
            )
            for argument in made.get_arguments()
            if not re.search(r"-\d+$", argument.names[0])  # the further words of a list of positionals
        )
        verbs[name] = Verb(name=name, text=text, options=options)
    return verbs


def extra_arguments(context: Context) -> tuple[str, ...]:
    """Return what the user wrote behind ``--``.

    Raises:
        UsageError: a quote is not closed.
    """
    try:
        return tuple(shlex.split(context.remainder))
    except ValueError as error:
        raise UsageError(f"cannot be split into arguments: {error}", where=f"-- {context.remainder}") from error


def share(text: str | None, option: str) -> float | None:
    """Return an option's percentage (1 or 1%) as a share of one, None for None.

    Raises:
        UsageError: it is no percentage above 0 and below 100.
    """
    value = number(None if text is None else text.removesuffix("%"), option, least=0, kind=float)
    if value is not None and not 0 < value < 100:  # noqa: PLR2004 - percent
        raise UsageError(f"{option} takes a percentage such as 1%, not {text!r}")
    return None if value is None else value / 100


def one_of(text: str, option: str, choices: Sequence[str]) -> str:
    """Return an option's text if it is one of the choices.

    Raises:
        UnknownName: it is none of them.
    """
    if text not in choices:
        raise UnknownName(f"value of {option}", text, choices)
    return text


def number(text: str | None, option: str, *, least: float = 1, kind: type[int | float] = int) -> Any:
    """Return an option's text as a number, None for None (invoke types an option only by its default).

    Raises:
        UsageError: it is no number, or smaller than ``least``.
    """
    if text is None:
        return None
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not value >= least:
        what = "a whole number" if kind is int else "a number"
        raise UsageError(f"{option} takes {what} of at least {least:g}, not {text!r}")
    return value
