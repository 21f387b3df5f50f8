"""A comparison of two servers held against the load records below it, and against its own pairs."""

from __future__ import annotations

import math
from statistics import median
from typing import TYPE_CHECKING, Any

from bench import schema
from bench.compare import review as of_pairs
from bench.compare.ab import ARM, BASELINE, CANDIDATE
from bench.record import disturbance, documents, store
from bench.run import evidence
from bench.serving import ab, batching, review
from bench.serving.versus import BUSY, by_arrival

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from bench.serving.checks import Measured


def read(folder: Path) -> dict[str, Any]:
    """Return the comparison in a folder, held against everything that it rests on.

    Raises:
        RecordEdited: something in the folder was edited.
        InvalidDocument: a document does not conform to its schema.
    """
    path = folder / ab.DOCUMENT
    documents.validate(path)
    document: dict[str, Any] = schema.read(path)
    for number, pair in enumerate(document["pairs"], 1):
        evidence.refuse(list(_unlike(pair, folder / f"pair-{number}")), folder)
        evidence.refuse(list(_wrong(pair)), folder)
    for name, key in (("comparison", "service_log_ratio"), ("capacity", "capacity_log_ratio")):
        ratios = [pair[key] for pair in document["pairs"]]
        evidence.refuse(of_pairs.wrong(document[name], ratios), folder)
    if "disturbed" in document and document["disturbed"] != _disturbed(folder, len(document["pairs"])):
        evidence.refuse(["its records give another disturbance"], folder)
    return document


def _disturbed(folder: Path, pairs: int) -> dict[str, list[str]]:
    """Return what disturbed the arms by the records of their starts."""
    places = [folder / f"pair-{number}" for number in range(1, pairs + 1)]
    sides = ([schema.read(place / name / store.LOAD_RECORD) for place in places] for name in (BASELINE, CANDIDATE))
    return {name: list(phrases) for name, phrases in disturbance.between(*sides).items()}


def _unlike(pair: Mapping[str, Any], place: Path) -> Iterator[str]:
    """Yield what a comparison says of a pair of starts that the load records of its two do not."""
    measured: dict[str, dict[str, Measured]] = {}
    for name in ARM.values():
        record = review.read(place / name / store.LOAD_RECORD).record
        measured[name] = {one.phase.name: one for one in review.measured(record, review.rows(record, place / name))}
        figures = {phase["name"]: phase["figures"] for phase in record["phases"]}
        if pair[name]["verdict"] != (record["verdict"] or {}).get("outcome"):
            yield f"the verdict of {place.name}/{name} is another one in its record"
        if lacking := [phase for phase in (batching.ALONE, BUSY) if phase not in figures]:
            yield f"the record of {place.name}/{name} lacks {' and '.join(lacking)}"
            return
        if pair[name]["capacity_hz"] != figures[BUSY]["achieved_hz"]:
            yield f"the capacity of {place.name}/{name} is another one in its record"
    for name, services in by_arrival(measured).items():
        if not services or pair[name]["service_s"] != list(services):
            yield f"the service times of {place.name}/{name} are not its record's"


def _wrong(pair: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a pair says that its own values do not give."""
    one, other = pair[BASELINE], pair[CANDIDATE]
    service = median(math.log(b / a) for a, b in zip(one["service_s"], other["service_s"], strict=True))
    capacity = math.log(one["capacity_hz"] / other["capacity_hz"])
    for name, value in (("service_log_ratio", service), ("capacity_log_ratio", capacity)):
        if not math.isclose(value, pair[name], rel_tol=1e-6, abs_tol=1e-9):
            yield f"{name} does not follow from the pair's values"
