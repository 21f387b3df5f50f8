"""Invoke tasks that end as people expect: the only module that imports invoke.

Every task of this repository is a `GuardedTask`. Its options are the fields of one dataclass, declared with
`bench.options.option`. An error that the user can mend becomes one short text on stderr and the exit code of its
class; a bug keeps its traceback.
"""

from __future__ import annotations

import shlex
import signal
import sys
from itertools import groupby
from typing import TYPE_CHECKING, Any

from invoke.collection import Collection
from invoke.context import Context
from invoke.exceptions import Exit
from invoke.parser.argument import Argument
from invoke.parser.context import ParserContext
from invoke.tasks import Task
from invoke.tasks import task as invoke_task

from bench import options as declarations
from bench import orphans
from bench.errors import BenchError, Interrupted, UsageError
from bench.options import Verb

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bench.options import Option

__all__ = ["VERBS", "Collection", "Context", "GuardedTask", "extra_arguments", "namespace", "task"]


class Declared(Argument):
    """The parser's side of an option."""

    def __init__(self, option: Option, position: int = 0) -> None:
        name = f"{option.name}-{position}" if position else option.name
        kind = list if option.repeated else str if option.takes_value else bool
        super().__init__(name=name, kind=kind, help=option.help, positional=option.positional)
        self.option = option
        self.position = position


class GuardedTask(Task[Any]):
    """A task with declared options, whose errors become exit codes."""

    options: type | None = None
    example: str = ""

    @property
    def summary(self) -> str:
        """What the task does, in one line."""
        return (self.body.__doc__ or "").strip().partition("\n")[0]

    def declared(self) -> tuple[Option, ...]:
        """Return the options in the order in which they are shown."""
        return () if self.options is None else declarations.declared(self.options)

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Argument]:  # noqa: ARG002 - Invoke's
        """Return the parser's arguments; a list of words is as many arguments as the command line has words."""
        arguments: list[Argument] = []
        for option in self.declared():
            arguments += [Declared(option, place) for place in range(self._words() if option.many else 1)]
        return arguments

    def _words(self) -> int:
        """Return how many words of the command line are not options of this task: Invoke has no list of words."""
        names = {self.name, self.name.replace("_", "-")}
        words = sys.argv[: sys.argv.index("--")] if "--" in sys.argv else sys.argv
        start = next((place for place, word in enumerate(words) if place and word in names), len(words))
        valued = {f"--{option.name}" for option in self.declared() if option.takes_value}
        pairs = zip(words[start:], words[start + 1 :], strict=False)
        return max(1, sum(not word.startswith("-") and before not in valued for before, word in pairs))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Convert what was typed and run the task's body.

        Raises:
            Exit: with the message and code of a `BenchError`, of Ctrl-C (130), or of a refusal by the system (1).
        """
        # a batch system ends a job with SIGTERM: the engine is stopped and what was begun is closed as after Ctrl-C
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            if self.options is None:
                return super().__call__(*args)
            return super().__call__(*args, declarations.build(self.options, self._texts(kwargs)))
        except BenchError as error:
            raise Exit(self._text(error), code=error.exit_code) from error
        except KeyboardInterrupt as error:
            left = orphans.left_running()
            end = f"still running: {', '.join(left)}" if left else "the engine and all its processes were stopped"
            raise Exit(f"interrupted: {end}", Interrupted.exit_code) from error
        except OSError as error:
            place = f"\n  where: {error.filename}" if error.filename else ""
            raise Exit(f"error: the system refused: {error.strerror or error}{place}", code=1) from error
        finally:
            signal.signal(signal.SIGTERM, before)

    def _texts(self, given: dict[str, Any]) -> dict[str, Any]:
        """Return option name -> what was typed, the arguments of a list of words as one list."""
        texts: dict[str, Any] = {}
        for option in self.declared():
            if option.many:
                rest = [given[name] for place in range(1, len(given)) if (name := f"{option.name}-{place}") in given]
                texts[option.name] = [given[option.name], *rest]
            else:
                texts[option.name] = given.get(option.name)
        return texts

    def _text(self, error: BenchError) -> str:
        """Return an error's message, with the option of this task that mends it."""
        mending = next((option for option in self.declared() if error.field and option.path[-1] == error.field), None)
        if mending is None:
            return f"error: {error}"
        return f"error: {error}{' ' if error.todo else chr(10) + '  to do: see '}(--{mending.name})"


def task(options: type | None = None, *, example: str = "") -> Callable[[Callable[..., None]], GuardedTask]:
    """Return the decorator that makes a function a `GuardedTask`.

    The function takes Invoke's context and, if ``options`` names a dataclass, an object of it. ``example`` is what one
    would type behind `invoke`; `--help` shows it.
    """

    def decorate(body: Callable[..., None]) -> GuardedTask:
        made: Any = invoke_task(body, klass=GuardedTask, positional=[], auto_shortflags=False)
        made.options, made.example = options, example
        if example:
            made.__doc__ = f"{made.__doc__}\n\nExample: invoke {example}"
        task: GuardedTask = made
        return task

    return decorate


def namespace(*tasks: GuardedTask, **collections: Mapping[str, GuardedTask]) -> Collection:
    """Return the root collection of these tasks and of named collections of tasks."""
    root = Collection(*tasks)
    for name, members in collections.items():
        root.add_collection(Collection(name, **members))
    VERBS.update(
        (name, Verb(name=name, text=root[name].summary, options=root[name].declared())) for name in root.task_names
    )
    return root


VERBS: dict[str, Verb] = {}
"""The tasks of the namespace by the names that are typed, for completion and the documentation."""


def _help_by_group(self: ParserContext) -> list[tuple[str, str | None]]:
    """Return the rows of `--help`: declared options group by group, everything else as Invoke sorts it."""
    arguments = [argument for argument in self.flags.values() if not getattr(argument, "position", 0)]
    if not all(isinstance(argument, Declared) for argument in arguments):
        return invoke_help(self)
    rows: list[tuple[str, str | None]] = []
    for group, members in groupby(arguments, key=lambda argument: argument.option.group):
        rows += [("", None)] if rows else []
        rows += [(f"{group}:", None), *((f"  {member.option.typed}", member.option.explained) for member in members)]
    return rows


# Invoke sorts options by name and makes its parser contexts itself, so its method is the only place to group them.
invoke_help: Callable[[ParserContext], list[tuple[str, str | None]]] = ParserContext.help_tuples
setattr(ParserContext, "help_tuples", _help_by_group)  # noqa: B010 - mypy takes no assignment to a method


def extra_arguments(context: Context) -> tuple[str, ...]:
    """Return what the user wrote behind ``--``.

    Raises:
        UsageError: a quote is not closed.
    """
    try:
        return tuple(shlex.split(context.remainder))
    except ValueError as error:
        raise UsageError(f"cannot be split into arguments: {error}", where=f"-- {context.remainder}") from error
