"""Options, declared once: each is a field of the dataclass that it fills, and everything else reads that field.

The parser, the conversion of what was typed, `--help`, shell completion and docs/options.md all come from `declared`.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from bench.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

T = TypeVar("T")

EVERYDAY, ENGINE, WORKLOAD = "everyday", "engine", "workload"
MEASURING, FIDELITY, OUTPUT = "measuring", "fidelity", "output"
GROUPS = (EVERYDAY, ENGINE, WORKLOAD, MEASURING, FIDELITY, OUTPUT)
"""In the order in which `--help` shows them."""

_OPTION, _NESTED = "option", "nested"


class Kind(Enum):
    """What an option's text becomes; the value is how `--help` writes the text."""

    TEXT = "TEXT"
    WHOLE = "N"
    NUMBER = "NUMBER"
    PERCENTAGE = "N%"
    PATH = "PATH"
    LABEL = "LABEL"
    NAMES = "A,B"
    FLAG = ""


LEAVE_OUT = "leave it out for the default"
LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]|\.(?=[0-9]))*")
"""What names a run wherever one is taken: no path, and no file's name with its ending."""
LARGEST = 1e15
"""No number that is typed is larger: inf and 1e300 are slips."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option as it is typed, and the place of its value in the options object.

    ``path`` holds the names of the fields from the outermost dataclass inwards. A flag that is given sets its field to
    ``sets``. One with ``many`` takes all words that are not options, at least one unless it is ``optional``. ``least``
    is the smallest number allowed. ``choices`` are the values allowed, with a word about each; ``completes`` names the
    list in `bench/completion/values.py` that knows values which are offered but not enforced.
    """

    name: str
    path: tuple[str, ...]
    default: Any
    help: str
    kind: Kind
    group: str
    least: float
    choices: Mapping[str, str]
    completes: str
    repeated: bool
    many: bool
    optional: bool
    required: bool
    sets: bool = True

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return itself: it never changes, and Invoke copies the options of all tasks to read one command line."""
        return self

    @property
    def takes_value(self) -> bool:
        """Whether a value follows."""
        return self.kind is not Kind.FLAG

    @property
    def positional(self) -> bool:
        """Whether its values may stand without its name."""
        return self.many or self.required

    @property
    def typed(self) -> str:
        """The option as a user types it, with a placeholder for its value."""
        if not self.takes_value:
            return f"--{self.name}"
        if self.positional:
            return f"{self.name.upper()}{' ...' if self.many else ''}"
        return f"--{self.name}={self.kind.value}"

    @property
    def explained(self) -> str:
        """The help, with the values allowed where they are few and it does not name them itself."""
        unnamed = [value for value in self.choices if value not in self.help]
        return f"{self.help}: {_listed(list(self.choices))}" if unnamed else self.help


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """A task as it is typed: its name, what it does in one line, and its options."""

    name: str
    text: str
    options: tuple[Option, ...]

    def option(self, word: str) -> Option | None:
        """Return the option that a word such as --model or --model=x names, None if it names none."""
        name = word.partition("=")[0]
        return next((option for option in self.options if f"--{option.name}" == name), None)


def option(
    default: Any = dataclasses.MISSING,
    *,
    help: str,  # noqa: A002 - the command line's word
    name: str = "",
    kind: Kind = Kind.TEXT,
    group: str = EVERYDAY,
    least: float = 1,
    **more: Any,
) -> Any:
    """Return a dataclass field that is an option.

    The option is called like the field unless ``name`` says otherwise. A field whose default is a boolean is a flag: it
    turns the default over, and one that turns True off is called ``no-`` and the field's name. ``more`` are ``choices``
    (value -> a word about it), ``completes``, ``repeated`` (may be given several times), ``many`` (takes all words that
    are not options; with ``optional`` there may be none), and ``negatable`` (a flag whose default may be asked for by
    name as well). A field without a default is positional and required.
    """
    if isinstance(default, bool):
        kind = Kind.FLAG
    declaration = {"help": help, "name": name, "kind": kind, "group": group, "least": least, **more}
    return dataclasses.field(default=default, metadata={_OPTION: declaration})


def nested(kind: type[T], *names: str, **changes: Mapping[str, Any] | None) -> T:
    """Return a dataclass field that holds another options object, whose options are typed as if they were its own.

    ``names`` are the fields of it that this verb offers, all if none is named. ``changes`` give one of them another
    default, help or bound (``repeats={"default": 3}``), or leave it out (``model=None``).
    """
    known = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if unknown := {*names, *changes} - known:
        raise TypeError(f"{kind.__name__} has no field {', '.join(sorted(unknown))}")
    made: Any = dataclasses.field(default_factory=kind, metadata={_NESTED: (kind, names, changes)})
    return made  # type: ignore[no-any-return]


@functools.cache
def declared(kind: type) -> tuple[Option, ...]:
    """Return the options of a dataclass: group by group, each group in the order of its fields."""
    return tuple(sorted(_walk(kind, ()), key=lambda found: (not found.positional, GROUPS.index(found.group))))


def _walk(kind: type, above: tuple[str, ...]) -> list[Option]:
    options: list[Option] = []
    for field in dataclasses.fields(kind):
        if (inner := field.metadata.get(_NESTED)) is not None:
            inner_kind, names, changes = inner
            for known in _walk(inner_kind, (*above, field.name)):
                own = known.path[-1]
                change = changes.get(own, {})
                if change is not None and (not names or own in names):
                    options.append(dataclasses.replace(known, **change))
        elif (declaration := field.metadata.get(_OPTION)) is not None:
            options += _of_field(field, declaration, (*above, field.name))
    return options


def _of_field(field: dataclasses.Field[Any], declaration: Mapping[str, Any], path: tuple[str, ...]) -> list[Option]:
    plain = field.name.strip("_").replace("_", "-")
    turns_off = field.default is True
    common = {"choices": {}, "completes": "", "repeated": False, "many": False, "optional": False, **declaration}
    negatable = common.pop("negatable", False)
    required = field.default is dataclasses.MISSING and not common["many"]
    common |= {"path": path, "required": required, "default": None if required else field.default}
    name = common.pop("name") or (f"no-{plain}" if turns_off else plain)
    options = [Option(name=name, sets=not turns_off, **common)]
    if negatable:
        opposite = common | {"help": f"the opposite of --{name}, and the default"}
        options.append(Option(name=f"no-{name}", sets=turns_off, **opposite))
    return options


def changed(options: Any) -> list[str]:
    """Return the options, as they are typed, whose values are not their defaults."""
    return [
        f"--{known.name}"
        for known in declared(options.__class__)
        if (value := functools.reduce(getattr, known.path, options)) != known.default
        and (known.takes_value or value is known.sets)
    ]


def build(kind: type[T], texts: Mapping[str, Any]) -> T:
    """Return the options object for what was typed: option name -> text, list of texts, or whether a flag was given.

    Raises:
        UsageError: a text cannot be converted, two options contradict each other, or an argument is missing.
    """
    values: dict[tuple[str, ...], Any] = {}
    flags: dict[tuple[str, ...], Option] = {}
    for known in declared(cast("type", kind)):
        text = texts.get(known.name)
        if known.kind is not Kind.FLAG:
            values[known.path] = converted(known, text)
        elif not text:
            values.setdefault(known.path, known.default)
        elif (other := flags.get(known.path)) is not None:
            raise UsageError(f"--{other.name} and --{known.name} exclude each other")
        else:
            flags[known.path] = known
            values[known.path] = known.sets
    return _built(kind, (), values)


def _built(kind: type[T], above: tuple[str, ...], values: Mapping[tuple[str, ...], Any]) -> T:
    arguments: dict[str, Any] = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        path = (*above, field.name)
        if (inner := field.metadata.get(_NESTED)) is not None:
            arguments[field.name] = _built(inner[0], path, values)
        elif path in values:
            arguments[field.name] = values[path]
    return kind(**arguments)


def converted(known: Option, text: Any, *, shown: str | None = None) -> Any:
    """Return the value of an option for its text (a list of texts if it may be repeated); the default for None.

    ``shown`` is what an error calls it, None: as it is typed.

    Raises:
        UsageError: it is not what the option takes.
    """
    shown = shown or _shown(known)
    if known.many or known.repeated:
        return tuple(_value(known, part, shown) for part in text or ())
    if text is None:
        return known.default
    if known.kind is Kind.NAMES:
        names = [part.strip() for part in text.split(",") if part.strip()]
        if not names:
            raise UsageError(f"{shown} takes one or more names separated by commas, not {text!r}")
        chosen = dict.fromkeys(_chosen(known, name, shown) for name in names)
        if twice := next((name for name in chosen if names.count(name) > 1), None):
            raise UsageError(f"{shown} names {twice} twice", todo="name it once")
        return tuple(name for name in known.choices if name in chosen) or tuple(chosen)
    return _value(known, text, shown)


def _value(known: Option, text: str, shown: str) -> Any:
    if known.kind is Kind.PATH:
        return Path(text)
    if known.kind is Kind.LABEL:
        return _label(text, shown)
    if known.kind is Kind.WHOLE:
        return _number(known, text, int, shown)
    if known.kind is Kind.NUMBER:
        return _number(known, text, float, shown)
    if known.kind is Kind.PERCENTAGE:
        return _share(text, shown)
    return _chosen(known, text, shown)


def _label(text: str, shown: str) -> str:
    if text == "last":
        raise UsageError(f"{shown} last would name no run: last is the newest one", todo="choose another word")
    if not LABEL.fullmatch(text):
        raise UsageError(
            f"{shown} takes letters, digits, _ and -, and a dot before a digit, not {text!r}",
            todo=f"begin with a letter or a digit, e.g. {shown} before or {shown} v0.5.23",
        )
    return text


def _number(known: Option, text: str, kind: type[int | float], shown: str) -> int | float:
    try:
        value = kind(text)
    except (ValueError, OverflowError):
        value = None
    what = "a whole number" if kind is int else "a number"
    if value is not None and value >= LARGEST:
        told = f"{shown} takes {what} below {LARGEST:.0e}, not {text!r}".replace("e+", "e")
        raise UsageError(told, todo=LEAVE_OUT)
    if value is None or not known.least <= value:  # a NaN is not either
        bound = "above 0" if 0 < known.least < 1e-3 else f"of at least {known.least:g}"  # noqa: PLR2004 - as good as 0
        raise UsageError(f"{shown} takes {what} {bound}, not {text!r}", todo=LEAVE_OUT)
    return value


def _share(text: str, shown: str) -> float:
    try:
        percent = float(text.removesuffix("%"))
    except ValueError:
        percent = 0.0
    if not 0 < percent < 100:  # noqa: PLR2004 - percent
        raise UsageError(f"{shown} takes a percentage such as 1%, not {text!r}", todo=LEAVE_OUT)
    return percent / 100


def _chosen(known: Option, text: str, shown: str) -> str:
    if known.choices and text not in known.choices:
        begun = [name for name in known.choices if name and text.startswith(name)]
        close = sorted(begun, key=len)[-1:] or difflib.get_close_matches(text, known.choices, n=1)
        todo = f"did you mean {close[0]}?" if close else None
        raise UsageError(f"{shown} takes {_listed(list(known.choices))}, not {text!r}", todo=todo)
    return text


def _shown(known: Option) -> str:
    return known.name.upper() if known.positional else f"--{known.name}"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
