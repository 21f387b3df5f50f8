"""What was measured before: every record of a preset in order of time, change points, and the named baseline.

Records are the truth and are all read each time: nothing has to be rebuilt when one comes or goes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.record import comparable, store
from bench.record.baselines import baseline_of, baselines, name_baseline
from bench.run import timings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["Point", "baseline_of", "baselines", "change_points", "name_baseline", "read"]

SMALLEST_SEGMENT = 3
"""A level is a level only if so many records in a row have it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One record of the past; ``denoise_ms`` is its median. ``changed`` marks the first record of another level."""

    id: str
    path: Path
    started: str
    cell: str
    engine: str
    outcome: str
    requests: int
    denoise_ms: float
    is_baseline: bool
    changed: bool = False


def read(root: Path, model: str) -> tuple[list[Point], list[str]]:
    """Return the points of a preset in order of time, and one line for each record that could not be read.

    Records that do not count, or are not complete, have no number and are left out.
    """
    named = baselines(root)
    points, faults = [], []
    for path in sorted(root.glob(f"**/{store.RECORD}")):
        try:
            document = store.read(path)
        except BenchError as error:
            faults.append(f"{path}: {error.what}")
            continue
        if document["preset"]["key"] != model or document["timings"] is None or not document["complete"]:
            continue
        denoise = document["timings"]["metrics"][timings.PRIMARY]
        if denoise is None:
            continue
        cell = comparable.cell(document)
        points.append(
            Point(
                id=document["id"],
                path=path,
                started=document["started"],
                cell=cell,
                engine=_engine(document),
                outcome=document["verdict"]["outcome"],
                requests=document["timings"]["requests"],
                denoise_ms=denoise,
                is_baseline=named.get(comparable.family(document)) == str(path.parent.relative_to(root)),
            )
        )
    points.sort(key=lambda point: point.started)
    return _marked(points), faults


def _engine(document: Mapping[str, Any]) -> str:
    source = document["engine"]["source"]
    return str(document["engine"]["version"]) + (f" {source['commit'][:9]}" if source else "")


def change_points(values: Sequence[float]) -> list[int]:
    """Return the places where a new level begins, by PELT on log values (R. Killick et al., JASA 107, 2012).

    The penalty is the Bayesian information criterion's, with the noise taken from successive differences, which a
    step hardly moves.
    """
    if len(values) < 2 * SMALLEST_SEGMENT:
        return []
    import numpy as np  # noqa: PLC0415 - a second that other tasks need not pay
    import ruptures  # noqa: PLC0415

    logs = np.log(np.asarray(values, dtype=float))
    steps = np.abs(np.diff(logs))
    # the median absolute difference of two normal values is 0.954 of their standard deviation
    noise = max(float(np.median(steps)) / 0.954, 1e-6)
    penalty = 3 * math.log(len(values)) * noise**2
    found = ruptures.Pelt(model="l2", min_size=SMALLEST_SEGMENT, jump=1).fit(logs.reshape(-1, 1)).predict(pen=penalty)
    return [int(place) for place in found[:-1]]


def _marked(points: list[Point]) -> list[Point]:
    """Return the points with the first of each new level marked, cell by cell."""
    by_place = dict(enumerate(points))
    for cell in {point.cell for point in points}:
        places = [place for place, point in by_place.items() if point.cell == cell]
        for change in change_points([by_place[place].denoise_ms for place in places]):
            by_place[places[change]] = replace(by_place[places[change]], changed=True)
    return [by_place[place] for place in sorted(by_place)]
