"""What was measured before: every record of a preset in order of time, change points, and the named baseline.

Records are the truth and are all read each time: nothing has to be rebuilt when one comes or goes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bench.compare import calibration
from bench.errors import BenchError, UsageError
from bench.record import store
from bench.run import timings
from bench.stats import levels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bench.stats.levels import TwoLevels

BASELINES = "baselines.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One record of the past; ``denoise_ms`` is its median. ``changed`` marks the first record of another level."""

    id: str
    path: Path
    started: str
    cell: str
    family: str
    engine: str
    outcome: str
    requests: int
    denoise_ms: float
    is_baseline: bool
    changed: bool = False


def read(root: Path, model: str) -> tuple[list[Point], list[str]]:
    """Return the points of a preset in order of time, and one line for each record that could not be read.

    Records that do not count, or are not complete, have no number and are left out; so are profiles, arms and cells.
    """
    named = baselines(root)
    points, faults = [], []
    for path in sorted(root.glob(f"**/{store.RECORD}")):
        try:
            document = store.read(path)
        except BenchError as error:
            faults.append(f"{path}: {error.what}")
            continue
        if (
            document["preset"]["key"] != model
            or not _is_plain(document)
            or document["timings"] is None
            or not document["complete"]
        ):
            continue
        denoise = document["timings"]["metrics"][timings.PRIMARY]
        if denoise is None:
            continue
        cell = calibration.cell(document)
        points.append(
            Point(
                id=document["id"],
                path=path,
                started=document["started"],
                cell=cell,
                family=family(document),
                engine=_engine(document),
                outcome=document["verdict"]["outcome"],
                requests=document["timings"]["requests"],
                denoise_ms=denoise,
                is_baseline=named.get(family(document)) == str(path.parent.relative_to(root)),
            )
        )
    points.sort(key=lambda point: point.started)
    return _marked(points), faults


def _is_plain(document: Mapping[str, Any]) -> bool:
    """Tell a benchmark from a profile, an arm of a comparison or a cell of a matrix, which are no part of a trend."""
    return document["kind"] == "bench" and store.RUN.match(document["id"]) is not None


def _engine(document: Mapping[str, Any]) -> str:
    source = document["engine"]["source"]
    return str(document["engine"]["version"]) + (f" {source['commit'][:9]}" if source else "")


def _marked(points: list[Point]) -> list[Point]:
    """Return the points with the first of each new level marked, family by family, across versions of the engine."""
    marked = list(points)
    for family_ in {point.family for point in points}:
        places = [place for place, point in enumerate(points) if point.family == family_]
        values = [points[place].denoise_ms for place in places]
        if levels.two_levels(values) is not None and len(levels.change_points(values)) > 1:
            continue  # it jumps between two levels: none of them is new
        for change in levels.change_points(values):
            marked[places[change]] = replace(marked[places[change]], changed=True)
    return marked


def jumps(points: Sequence[Point]) -> dict[str, TwoLevels]:
    """Return the families whose records jump between two levels, by family, with the levels in ms."""
    result = {}
    for family_ in {point.family for point in points}:
        values = [point.denoise_ms for point in points if point.family == family_]
        known = levels.two_levels(values)
        if known is not None and len(levels.change_points(values)) != 1:
            result[family_] = known
    return result


def family(document: Mapping[str, Any]) -> str:
    """Return what a baseline is for: the preset and workload on these devices, whatever the engine's version."""
    return calibration.cell({**document, "engine": {"version": "any"}})


def baselines(root: Path) -> dict[str, str]:
    """Return the baselines that were named: what for -> run directory below ``root``."""
    try:
        return dict(json.loads((root / BASELINES).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def name_baseline(root: Path, path: Path) -> str:
    """Make a record the baseline of its workload and devices, and return its place below ``root``.

    Raises:
        UsageError: the record lies elsewhere, or does not count.
    """
    document = store.read(path)
    if document["timings"] is None or not document["complete"]:
        raise UsageError("this run does not count, or was cut off: it cannot be a baseline", where=path)
    folder = (path if path.is_dir() else path.parent).resolve()
    if not folder.is_relative_to(root.resolve()):
        raise UsageError("only a run below the runs folder can be a baseline", where=folder, todo=f"runs are in {root}")
    place = str(folder.relative_to(root.resolve()))
    named = baselines(root) | {family(document): place}
    temporary = root / f".{BASELINES}"
    temporary.write_text(json.dumps(named, indent=2) + "\n", encoding="utf-8")
    temporary.replace(root / BASELINES)
    return place


def baseline_of(root: Path, path: Path) -> Path:
    """Return the run directory of the baseline for a record.

    Raises:
        UsageError: none was named.
    """
    place = baselines(root).get(family(store.read(path)))
    if place is None:
        raise UsageError(
            "no baseline is named for this workload on these devices", where=path, todo="`invoke baseline.set RECORD`"
        )
    return root / place
