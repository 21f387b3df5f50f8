"""The arms of a comparison: what a SPEC on the command line means, and which records may be compared."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bench.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.run.options import Options

VARIABLE = re.compile(r"([A-Z][A-Z0-9_]*)=(.*)")
NUMBERS = {"steps": "steps", "seed": "seed", "width": "width", "height": "height"}
TEXTS = {
    "engine": "engine",
    "model-path": "model_path",
    "attention-backend": "attention_backend",
    "quality": "quality",
}
SWITCHES = {
    "compile": {"torch_compile": True},
    "eager": {"torch_compile": False, "cuda_graph": False},
    "cuda-graph": {"cuda_graph": True},
}

FIELDS = (
    ("methodology", "methodology"),
    ("preset", "preset.sha256"),
    ("weights", "weights.kind"),
    ("weights' hash", "weights.sha256"),
    ("device kind", "devices.kind"),
    ("width", "workload.width"),
    ("height", "workload.height"),
    ("frames", "workload.frames"),
    ("steps", "workload.steps"),
    ("seed", "workload.seed"),
    ("number of GPUs", "workload.gpus"),
    ("warm-up", "workload.warmup"),
    ("quality", "workload.quality"),
    ("stage synchronisation", "workload.sync_stages"),
)
"""What must agree between two records, by name and place. Engine, flags and compile are the question."""

REQUEST = ("prompt", "seed", "width", "height", "frames", "image")
"""What makes two requests the same one: outputs of others are never compared. Steps are what an arm may change."""


def options_of(spec: str, common: Options) -> Options:
    """Return the options of an arm: the common ones, changed by the words of its SPEC.

    Words: ``engine=NAME`` (or the bare name of an engine), ``steps=N``, ``seed=``, ``width=``, ``height=``,
    ``attention-backend=``, ``model-path=``, ``quality=``, ``compile``, ``cuda-graph``, ``eager``, ``NAME=VALUE`` in
    capitals for a variable, and ``--flag`` or ``--flag=value`` for the engine. An empty SPEC changes nothing.

    Raises:
        UsageError: a word is none of these.
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
            changes[NUMBERS[name]] = _number(value, word)
        elif equals and name in TEXTS and value:
            changes[TEXTS[name]] = value
        elif not equals or name.startswith("source:"):
            changes["engine"] = word
        else:
            known = [*(f"{key}=" for key in (*NUMBERS, *TEXTS)), *SWITCHES, "NAME=VALUE", "--flag"]
            raise UsageError(f"{word!r} means nothing in an arm", where=spec, todo=f"known: {', '.join(known)}")
    return replace(common, **changes)


def _number(value: str, word: str) -> int:
    try:
        return int(value)
    except ValueError as error:
        raise UsageError(f"{word!r} needs a whole number") from error


def at(document: Mapping[str, Any], place: str) -> Any:
    """Return what is at a dotted place of a document; None for a field that was not there yet when it was written."""
    value: Any = document
    for name in place.split("."):
        value = value.get(name)
    return value


def other_requests(baseline: Mapping[str, Any], candidate: Mapping[str, Any]) -> list[str]:
    """Return one line for each field in which the requests of two records are not the same one."""
    one, other = baseline["workload"], candidate["workload"]
    return [f"{name}: {one[name]!r} against {other[name]!r}" for name in REQUEST if one[name] != other[name]]


def differences(baseline: Mapping[str, Any], candidate: Mapping[str, Any]) -> list[str]:
    """Return one line for each field in which two records differ and must not."""
    lines = []
    for name, place in FIELDS:
        one, other = at(baseline, place), at(candidate, place)
        if one != other:
            lines.append(f"{name}: {one!r} against {other!r}")
    first, second = _device_names(baseline), _device_names(candidate)
    if first != second:
        lines.append(f"devices: {', '.join(first)} against {', '.join(second)}")
    return lines


def _device_names(record: Mapping[str, Any]) -> Sequence[str]:
    items = record["devices"]["items"][: record["workload"]["gpus"]]
    return [device["name"] for device in items] or [record["host"]["cpu"]]
