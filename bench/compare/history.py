"""What was measured before: every record of a preset in order of time, change points, and the named baseline.

Records are the truth; `record.index` spares reading those again that have not changed.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bench import schema
from bench.errors import InvalidDocument
from bench.record import comparable, disturbance, documents, index, store
from bench.record.baselines import baseline_of, baselines, is_baseline_of, name_baseline, unname_baseline
from bench.run import consistency
from bench.stats import levels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bench.compare import metric as metrics
    from bench.stats.levels import TwoLevels

SHOWN_CHARACTERS = 6
"""Of a hash: a host's, or a long value's."""
WORD = re.compile(r"[\w.@/-]{1,24}")
"""A value that is shown as it is."""

__all__ = [
    "Point", "baseline_of", "baselines", "is_baseline_of", "jumps", "name_baseline", "read", "unname_baseline",
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One record of the past; ``value`` is its median. ``changed`` marks the first record of another level.

    ``host`` is the start of its hash, None in records that do not name it.
    """

    id: str
    path: Path
    started: str
    family: str
    engine: str
    outcome: str
    requests: int
    value: float
    interval: tuple[float, float] | None
    workload: str
    host: str | None
    label: str | None
    is_baseline: bool
    disturbed: tuple[str, ...] = ()
    """What disturbed it, one phrase each."""
    changed: bool = False


def read(root: Path, model: str, metric: metrics.Metric) -> tuple[list[Point], list[str]]:
    """Return the points of a preset in order of time, and one line for each record that could not be read.

    Records that do not count, are not complete or lack the metric have no number and are left out; so are profiles,
    arms and cells.
    """
    named = baselines(root)
    answers, faults = _answers(root, metric)
    known = [(path, said) for path, said in answers if said["preset"] == model]
    workloads = _told({said["family"]: said["workload"] for _, said in known})
    points = [
        Point(
            id=said["id"],
            path=path,
            started=said["started"],
            family=said["family"],
            engine=said["engine"],
            outcome=said["outcome"],
            requests=said["requests"],
            value=said["value"],
            interval=None if said["interval"] is None else tuple(said["interval"]),
            workload=workloads[said["family"]],
            host=said["host"],
            label=said["label"],
            disturbed=tuple(said["disturbed"]),
            is_baseline=named.get(said["family"]) == str(path.parent.relative_to(root)),
        )
        for path, said in known
    ]
    points.sort(key=lambda point: point.started)
    return _marked(points), [f"{path}: {why}" for path, why in faults]


def presets_of(root: Path, metric: metrics.Metric) -> list[str]:
    """Return the presets of which a trend of this metric has a record."""
    return sorted({said["preset"] for _, said in _answers(root, metric)[0]})


def _answers(root: Path, metric: metrics.Metric) -> tuple[list[tuple[Path, Any]], list[tuple[Path, str]]]:
    """Return what a trend needs of each record that it takes, and why others could not be read."""
    name, ask = (store.LOAD_RECORD, _asked_of_load) if metric.is_served else (store.RECORD, _asked)
    return index.answers(root, name, f"{QUESTION} {metric.name}", lambda path: ask(path, metric))


QUESTION = "history 6"
"""Names what `_asked` returns; another one for each change of that."""


def _asked(path: Path, metric: metrics.Metric) -> dict[str, Any] | None:
    """Return what a trend needs of a record, None for one that it leaves out.

    Raises:
        BenchError: it cannot be read, or contradicts itself.
    """
    try:
        document = store.read(path)
    except InvalidDocument:
        if _is_part(schema.read(path)):
            return None  # left out whatever it is like: its fault is not the trend's
        raise
    if not _is_plain(document) or document["timings"] is None or not document["complete"]:
        return None
    value = metric.of_record(document)
    if value is None:
        return None
    if wrong := consistency.contradictions(document):
        raise InvalidDocument(f"the record contradicts itself: {wrong[0]}", where=path)
    return _row(document, metric, value, requests=document["timings"]["requests"])


def _asked_of_load(path: Path, metric: metrics.Metric) -> dict[str, Any] | None:
    """Return what a trend needs of a load record, None for one that it leaves out: arms, and what does not count.

    Raises:
        BenchError: it cannot be read.
    """
    documents.validate(path)
    document = schema.read(path)
    counts = document["complete"] and not any(check["exit_code"] for check in document["checks"])
    if not counts or document["engine"] is None or not store.RUN.match(document["id"]):
        return None
    if (value := metric.of_record(document)) is None:
        return None
    alone = next(phase for phase in document["phases"] if phase["name"] == "closed-1")
    return _row(document, metric, value, requests=alone["figures"]["answered"])


def _row(document: Mapping[str, Any], metric: metrics.Metric, value: float, *, requests: int) -> dict[str, Any]:
    """Return what a trend holds of a record, whose ``value`` rests on so many requests."""
    return {
        "id": document["id"],
        "label": document["label"],
        "preset": document["preset"]["key"],
        "started": document["started"],
        "family": comparable.family(document),
        "engine": _engine(document),
        "outcome": document["verdict"]["outcome"],
        "requests": requests,
        "value": value,
        "interval": metric.interval(document),
        "workload": _workload(document),
        "host": (document["host"]["identity"] or "")[:SHOWN_CHARACTERS] or None,
        "disturbed": list(disturbance.of(document)),
    }


def _is_plain(document: Mapping[str, Any]) -> bool:
    """Tell a benchmark from a profile, an arm of a comparison or a cell of a matrix, which a trend leaves out."""
    return document["kind"] == "bench" and store.RUN.match(document["id"]) is not None


def _is_part(document: object) -> bool:
    """Tell an arm or a cell by its name alone, whatever else is in the document."""
    name = document.get("id") if isinstance(document, dict) else None
    return isinstance(name, str) and store.RUN.match(name) is None


def _workload(document: Mapping[str, Any]) -> dict[str, tuple[str, bool]]:
    """Return all that makes a family, by name, in words; and whether these are told of a single family too."""
    workload, instrument = document["workload"], document["instrument"]
    sides = [workload[name] for name in ("width", "height")]
    size = "x".join(str(side or "default") for side in sides) if any(sides) else "default size"
    steps = f"{workload['steps']} steps" if workload["steps"] else "default steps"
    on = {
        "torch_compile": ("torch.compile", "eager"),
        "cuda_graph": ("CUDA graphs", "no CUDA graphs"),
        "stage_sync": ("synchronised stages", "unsynchronised stages"),
        "quality": (f"quality {workload.get('quality')}", "default quality"),
        "extra": (shlex.join(workload.get("extra", ())), "no flags"),
    }
    asked = workload | instrument
    usual = {"device": " and ".join(dict.fromkeys(comparable.device_names(document))), "size": size, "steps": steps}
    rest = asked | {"preset": document["preset"]["sha256"][:SHOWN_CHARACTERS], "methodology": document["methodology"]}
    told = {name: (words, True) for name, words in usual.items()}
    told |= {name: (words[not asked.get(name)], bool(asked.get(name))) for name, words in on.items()}
    unnamed = rest.keys() - told - {"width", "height", *comparable.VERSION_OF_THE_ENGINE}
    return told | {name: (f"{_name(name)} {_in_words(rest[name])}", False) for name in sorted(unnamed)}


def _name(field: str) -> str:
    return "warm-up" if field == "warmup" else field.replace("_", " ")


def _in_words(value: object) -> str:
    """Return a value of a workload in a word or two; the start of its hash for what is longer."""
    if value is None or isinstance(value, bool):
        return {None: "default", True: "on", False: "off"}[value]
    if isinstance(value, int | float) or (isinstance(value, str) and WORD.fullmatch(value)):
        return str(value)
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:SHOWN_CHARACTERS]


def _told(workloads: Mapping[str, Mapping[str, tuple[str, bool]]]) -> dict[str, str]:
    """Return each family's workload in words, with all in which it differs from another one."""
    names = dict.fromkeys(name for words in workloads.values() for name in words)
    lacking = {name: (f"{_name(name)} unknown", False) for name in names}
    known = {family: lacking | dict(words) for family, words in workloads.items()}
    unlike = {name for name in names if len({words[name][0] for words in known.values()}) > 1}
    return {
        family: ", ".join(words[name][0] for name in names if name in unlike or words[name][1])
        for family, words in known.items()
    }


def _engine(document: Mapping[str, Any]) -> str:
    source = document["engine"]["source"]
    return str(document["engine"]["version"]) + (f" {source['commit'][:9]}" if source else "")


def _marked(points: list[Point]) -> list[Point]:
    """Return the points with the first of each new level marked, family by family, across versions of the engine."""
    marked = list(points)
    for places in _families(points).values():
        values = [points[place].value for place in places]
        changes = levels.change_points(values)
        if levels.two_levels(values) is not None and len(changes) > 1:
            continue  # it jumps between two levels: none of them is new
        for change in changes:
            marked[places[change]] = replace(marked[places[change]], changed=True)
    return marked


def _families(points: Sequence[Point]) -> dict[str, list[int]]:
    """Return the places of each family's points, by family."""
    places: dict[str, list[int]] = {}
    for place, point in enumerate(points):
        places.setdefault(point.family, []).append(place)
    return places


def jumps(points: Sequence[Point]) -> dict[str, TwoLevels]:
    """Return the families whose records jump between two levels, by family, with the levels."""
    result = {}
    for family, places in _families(points).items():
        values = [points[place].value for place in places]
        known = levels.two_levels(values)
        if known is not None and len(levels.change_points(values)) != 1:
            result[family] = known
    return result
