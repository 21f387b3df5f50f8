"""Invoke tasks that end as people expect: the only module that imports invoke.

Every task of this repository is a `GuardedTask`. Its options are the fields of one dataclass, declared with
`bench.options.option`. An error that the user can mend becomes one short text on stderr and the exit code of its
class; a bug keeps its traceback.
"""

from __future__ import annotations

import inspect
import os
import shlex
import shutil
import signal
import sys
import time
import traceback
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke.collection import Collection
from invoke.context import Context
from invoke.exceptions import Exit, ParseError
from invoke.parser.argument import Argument
from invoke.parser.parser import ParseMachine
from invoke.program import Program
from invoke.tasks import Task
from invoke.tasks import task as invoke_task

from bench import interrupts, mistakes, orphans, safe_text, schema
from bench import options as declarations
from bench.catalog import presets
from bench.errors import BenchError, Interrupted, UsageError
from bench.options import Verb
from bench.record import names, store

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bench.options import Option

__all__ = ["VERBS", "Collection", "Context", "GuardedTask", "extra_arguments", "namespace", "task"]


CLOSED_PIPE = 128 + signal.SIGPIPE
"""The exit code when the reader of the output has gone: what a shell shows of a program that SIGPIPE ended."""


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
            count = max(self._words(), not option.optional) if option.many else 1
            arguments += [Declared(option, place) for place in range(count)]
        return arguments

    def _words(self) -> int:
        """Return how many words of the command line are not options of this task: Invoke has no list of words."""
        names = {self.name, self.name.replace("_", "-")}
        words = sys.argv[: sys.argv.index("--")] if "--" in sys.argv else sys.argv
        start = next((place for place, word in enumerate(words) if place and word in names), len(words))
        valued = {f"--{option.name}" for option in self.declared() if option.takes_value}
        pairs = zip(words[start:], words[start + 1 :], strict=False)
        return sum(not word.startswith("-") and before not in valued for before, word in pairs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Convert what was typed and run the task's body.

        Raises:
            Exit: with the message and code of a `BenchError`, of Ctrl-C (130), or of a refusal by the system (1);
                without a message if the reader of the output has gone (141).
        """
        # a batch system ends a job with SIGTERM: the engine is stopped and what was begun is closed as after Ctrl-C
        started = time.time()
        if sys.stdout is None:  # `>&-` leaves none, and the next file that is opened would take its place
            sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - to the end of the program
        before = signal.signal(signal.SIGTERM, interrupts.heard)
        signal.signal(signal.SIGINT, interrupts.heard)
        try:
            given = () if self.options is None else (declarations.build(self.options, self._texts(kwargs)),)
            self._refuse_own(args[0])
            ended = super().__call__(*args, *given)
            interrupts.refuse_unread()
            sys.stdout.flush()  # a closed pipe is noticed here, not when the interpreter has ended
        except BenchError as error:
            raise Exit(None if error.is_told else _shown(self._text(error)), code=error.exit_code) from error
        except KeyboardInterrupt as error:
            left = orphans.left_running()
            end = f"still running: {', '.join(left)}" if left else "the engine and all its processes were stopped"
            notes = "".join(f"\n  {note}" for note in getattr(error, "__notes__", ()))
            told = f"interrupted: {end}{notes or _kept(started)}"
            raise Exit(_shown(told), Interrupted.exit_code) from error
        except BrokenPipeError as error:
            raise Exit(code=CLOSED_PIPE) from error  # whoever closed the pipe wants no message
        except OSError as error:
            place = f"\n  where: {error.filename}" if error.filename else ""
            told = f"error: the system refused: {error.strerror or error}{place}"
            raise Exit(_shown(told), code=1) from error
        except Exception as error:
            raise Exit(safe_text.shown("".join(traceback.format_exception(error))), code=1) from error
        else:
            return ended
        finally:
            signal.signal(signal.SIGTERM, before)
            try:
                sys.stdout.flush()
            except OSError:  # how the task ended stands, whoever read on
                _discard_output()

    def _refuse_own(self, context: Context) -> None:
        """Raise UsageError for an option of this task behind ``--``, where only the engine's flags are."""
        from bench.catalog import flags  # noqa: PLC0415 - few command lines have a --

        own = {f"--{option.name}" for option in self.declared()}
        typed = (word.partition("=")[0] for word in extra_arguments(context))
        if misplaced := next((word for word in typed if word in own and not flags.versions_of(word)), None):
            raise UsageError(
                f"{misplaced} is an option of this task, and what follows -- goes to the engine",
                todo=f"use {misplaced} of this task, before --",
            )

    def _texts(self, given: dict[str, Any]) -> dict[str, Any]:
        """Return option name -> what was typed, the arguments of a list of words as one list."""
        texts: dict[str, Any] = {}
        for option in self.declared():
            if option.many:
                rest = [given[name] for place in range(1, len(given)) if (name := f"{option.name}-{place}") in given]
                texts[option.name] = [given[option.name], *rest] if option.name in given else []
            else:
                texts[option.name] = given.get(option.name)
        return texts

    def _text(self, error: BenchError) -> str:
        """Return an error's message, with the option of this task that mends it."""
        mending = next((option for option in self.declared() if error.field and option.path[-1] == error.field), None)
        if mending is None:
            return f"{error.prefix}{error}"
        return (
            f"{error.prefix}{error}{error.instead}{' ' if error.todo else chr(10) + '  to do: see '}(--{mending.name})"
        )


def task(options: type | None = None, *, example: str = "") -> Callable[[Callable[..., None]], GuardedTask]:
    """Return the decorator that makes a function a `GuardedTask`.

    The function takes Invoke's context and, if ``options`` names a dataclass, an object of it. ``example`` is what one
    would type behind `invoke`; `--help` shows it.
    """

    def decorate(body: Callable[..., None]) -> GuardedTask:
        made: Any = invoke_task(body, klass=GuardedTask, positional=[], auto_shortflags=False)
        made.options, made.example = options, example
        task: GuardedTask = made
        return task

    return decorate


def namespace(start: GuardedTask, *tasks: GuardedTask, **collections: Mapping[str, GuardedTask]) -> Collection:
    """Return the root collection of these tasks and of named collections; `invoke` alone runs ``start``."""
    root = Collection(*tasks)
    root.add_task(start, default=True)
    for name, members in collections.items():
        root.add_collection(Collection(name, **members))
    VERBS.update(
        (name, Verb(name=name, text=root[name].summary, options=root[name].declared())) for name in root.task_names
    )
    return root


VERBS: dict[str, Verb] = {}
"""The tasks of the namespace by the names that are typed, for completion and the documentation."""


NARROWEST = 20
"""Columns that the explanation of an option is given at least."""


def _print_help(self: Program, name: str) -> None:
    """Print what a task does, an example, and its options group by group; lines break between words only."""
    from bench.report import text  # noqa: PLC0415 - rich is for people only

    task: GuardedTask = self.collection[name]
    options = task.declared()
    words = [f"[{known.typed}]" if known.optional else known.typed for known in options if known.positional]
    words = [name, *words, *(["[options]"] if options else [])]
    columns = shutil.get_terminal_size().columns
    told = [f"Usage: invoke {' '.join(words)}", *inspect.cleandoc(str(task.body.__doc__)).split("\n\n")]
    told += [f"Example: invoke {task.example}"] if task.example else []
    lines = ["\n\n".join(text.wrapped(" ".join(part.split()), columns) for part in told)]
    width = max((len(option.typed) for option in options), default=0)
    room = max(NARROWEST, columns - width - len("  " * 2))
    for group, members in groupby(options, key=lambda option: option.group):
        lines += ["", f"{group}:"]
        for option in members:
            first, *rest = text.wrapped(option.explained, room).split("\n")
            lines += [f"  {option.typed:<{width}}  {first}", *(f"{'':<{width}}    {line}" for line in rest)]
    text.write("\n".join(lines))


# Invoke prints its own help, sorted by name and broken within words; only its method can be another.
setattr(Program, "print_task_help", _print_help)  # noqa: B010 - mypy takes no assignment to a method


def _read_word(self: ParseMachine, word: str) -> None:
    """Take one word of the command line as Invoke does, except where a task's positional words would swallow it.

    `compare --help` and `compare --modle x` are never files, and a word that cannot be read is answered with what was
    probably meant.

    Raises:
        ParseError: the word is not a task, nor an option of this one.
    """
    verb = _verb(self)
    flag: Any = self.flag  # declared without a type
    if self.waiting_for_flag_value or self.ignore_unknown:
        pass
    elif _lacks_value(self) and not word.startswith("-"):
        raise _unread(mistakes.given_twice(flag.option, flag.raw_value, word))
    elif verb is None:
        if self.context is self.initial and word not in self.contexts and word not in self.initial.flags:
            raise _unread(mistakes.unknown_task(word, self.contexts))
    elif word in ("--help", "-h"):
        self.initial.flags["--help"].value = verb.name
        for argument in self.context.missing_positional_args:
            argument.value = ""
        return
    elif word.startswith("-") and word not in self.context.flags:  # Invoke's own, too: --version would start a run
        raise _unread(mistakes.unknown_option(verb, word))
    elif not (word.startswith("-") or word in self.contexts or self.context.missing_positional_args):
        offered = {
            known.name: presets.built_in() if known.completes == "presets" else known.choices for known in verb.options
        }
        raise _unread(mistakes.stray_word(verb, word, offered))
    invoke_read_word(self, word)


def _complete_context(self: ParseMachine) -> None:
    """End a task's words as Invoke does.

    Raises:
        ParseError: a word that the task needs is missing.
    """
    verb = _verb(self)
    if verb is not None and self.context.missing_positional_args:
        raise _unread(mistakes.missing_words(verb))
    invoke_complete_context(self)


def _complete_flag(self: ParseMachine) -> None:
    """End an option as Invoke does.

    Raises:
        ParseError: it takes a value and none was given.
    """
    flag: Any = self.flag  # declared without a type
    if _lacks_value(self):
        raise _unread(mistakes.missing_value(flag.option))
    invoke_complete_flag(self)


def _lacks_value(machine: ParseMachine) -> bool:
    """Tell whether the option that was read last, maybe not for the first time, still needs its value."""
    flag: Any = machine.flag  # declared without a type
    return isinstance(flag, Declared) and flag.option.takes_value and not machine.flag_got_value


def _verb(machine: ParseMachine) -> Verb | None:
    """Return the task whose words the machine reads, None before the first."""
    return VERBS.get(str(machine.context.name))


def _kept(since: float) -> str:
    """Return what an interrupted run has kept and how to go on; nothing if no run was cut off since then."""
    try:
        partial = names.resolve(Path("last"), (store.PARTIAL,)) / store.PARTIAL
        if partial.stat().st_mtime < since:
            return ""
        record = schema.read(partial)
        requests, kind, model = len(record["requests"]), record["kind"], record["preset"]["key"]
    except (BenchError, OSError, TypeError, KeyError):
        return ""
    run = partial.parent
    again = f"bench --resume {run.name[-6:]}` goes on" if kind == "bench" else f"{kind} --model {model}` measures again"
    return f"\n  kept: {requests} request{'' if requests == 1 else 's'}, {run}\n  to do: `invoke {again}"


def _unread(error: UsageError) -> ParseError:
    return ParseError(_shown(f"error: {error}"))


def _shown(message: str) -> str:
    """Return a message as stderr shows it: on a terminal broken between words."""
    told = safe_text.shown(message)
    if not sys.stderr.isatty():
        return told
    from bench.report import text  # noqa: PLC0415 - rich is for people only

    return text.wrapped(told, os.get_terminal_size(sys.stderr.fileno()).columns or 80)


def _discard_output() -> None:
    """Send what is still buffered for a closed pipe nowhere, so that the interpreter ends in silence."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


# Invoke makes its parse machines itself too.
invoke_read_word: Callable[[ParseMachine, str], None] = ParseMachine.handle
invoke_complete_context: Callable[[ParseMachine], None] = ParseMachine.complete_context
invoke_complete_flag: Callable[[ParseMachine], None] = ParseMachine.complete_flag
for name, method in (
    ("handle", _read_word),
    ("complete_context", _complete_context),
    ("complete_flag", _complete_flag),
):
    setattr(ParseMachine, name, method)


def extra_arguments(context: Context) -> tuple[str, ...]:
    """Return what the user wrote behind ``--``.

    Raises:
        UsageError: a quote is not closed.
    """
    try:
        return tuple(shlex.split(context.remainder))
    except ValueError as error:
        raise UsageError(f"cannot be split into arguments: {error}", where=f"-- {context.remainder}") from error
