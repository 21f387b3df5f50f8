"""What is swept: measures, each the product of its axes, as a TOML file or the command line says it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bench import paths, schema
from bench.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

KINDS = ("bench", "ab", "loadtest", "accuracy", "profile")
SLURM = "slurm.toml"
"""The user's own settings for Slurm, in the configuration folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One product of axes; values are texts, as they are typed behind an option."""

    axes: Mapping[str, tuple[str, ...]]
    kind: str = "bench"
    options: Mapping[str, str] = field(default_factory=dict)
    extra: tuple[str, ...] = ()
    exclude: tuple[Mapping[str, str], ...] = ()
    priority: int = 0


def read(path: Path) -> tuple[tuple[Measure, ...], dict[str, Any]]:
    """Return the measures of a sweep file and its settings for Slurm.

    Raises:
        UsageError: the file cannot be read, or a measure's product is empty.
        InvalidDocument: it is not TOML, or violates ``schemas/sweep-file.json``.
    """
    document = schema.read_toml(path)
    schema.check(document, "sweep-file", path)
    return tuple(_measure(entry, path) for entry in document["measure"]), document.get("slurm", {})


def _measure(entry: Mapping[str, Any], path: Path) -> Measure:
    axes = {name: tuple(map(_text, values)) for name, values in entry["axes"].items()}
    exclude = tuple({name: _text(value) for name, value in one.items()} for one in entry.get("exclude", ()))
    for one in exclude:
        for name, value in one.items():
            if value not in axes.get(name, ()):
                raise UsageError(
                    f"exclude: {name} = {value!r} is not a value of an axis of this measure, so nothing is left out",
                    where=path,
                )
    options = {name: _text(value) for name, value in entry.get("options", {}).items()}
    if twice := sorted(axes.keys() & options.keys()):
        raise UsageError(f"{', '.join(twice)}: an axis cannot be fixed as well", where=path)
    measure = Measure(
        kind=entry.get("kind", "bench"),
        axes=axes,
        options=options,
        extra=tuple(entry.get("extra", ())),
        exclude=exclude,
        priority=entry.get("priority", 0),
    )
    check(measure, path)
    return measure


def check(measure: Measure, where: str | Path | None = None) -> None:
    """Raise UsageError for a product that is empty because an axis has no value."""
    for name, values in measure.axes.items():
        if not values:
            raise UsageError(f"the axis {name} has no value, so there is nothing to measure", where=where)


def _text(value: Any) -> str:
    """Return a value as it is typed; a flag that is given is ``true``."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def typed(
    kinds: Sequence[str], axes: Mapping[str, tuple[str, ...]], settings: Sequence[str], extra: tuple[str, ...]
) -> tuple[Measure, ...]:
    """Return the measures of the command line: for each kind the product of ``axes`` and of settings ``NAME=A,B``.

    Raises:
        UsageError: a setting is not of that form, or names an axis twice.
    """
    product = dict(axes)
    for setting in settings:
        name, equals, values = setting.partition("=")
        parts = tuple(part.strip() for part in values.split(",") if part.strip())
        if not name or not equals or not parts:
            raise UsageError(
                f"--set takes NAME=VALUE or NAME=A,B, not {setting!r}", todo="--set quality=exact,lossless"
            )
        if name in product:
            raise UsageError(f"--set {name}: this axis is given twice", todo="give all its values at once")
        product[name] = parts
    return tuple(Measure(kind=kind, axes=product, extra=extra) for kind in kinds)


def slurm_settings(of_file: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings for Slurm: those of a sweep file before those of the user's configuration.

    Raises:
        InvalidDocument: the user's file is not TOML or violates ``schemas/slurm-settings.json``.
    """
    path = paths.configuration() / SLURM
    own = schema.read_toml(path) if path.exists() else {}
    schema.check(own, "slurm-settings", path)
    return {**own, **of_file}
