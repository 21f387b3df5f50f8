"""Records of earlier formats, read in the present one. A file is never rewritten; what it does not say is null."""

from __future__ import annotations

import copy
import statistics
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.record.types import Record

READABLE = (1, 2)
"""Format versions that `upgrade` takes; the last one is the present."""


def upgrade(document: Mapping[str, Any]) -> Record:
    """Return a valid record of any of `READABLE` in the present format; the methodology stays what it was."""
    if document["schema_version"] == READABLE[-1]:
        return cast("Record", dict(document))
    record: dict[str, Any] = copy.deepcopy(dict(document))
    instrument = {"stage_sync": record["workload"]["sync_stages"], "profiler": record["kind"] == "profile"}
    record["schema_version"] = READABLE[-1]
    record["fidelity"] = record.pop("quality", None)
    record["instrument"] = dict(instrument)
    record["stages"] = None
    record["evidence"] = None
    record["code"] = None
    record["instrument_cost_percent"] = None
    record["host"]["identity"] = None
    record["verdict"]["receipts"] = None
    record["workload"] = {"quality": None, "cuda_graph": False, **record["workload"], "quality_meaning": None}
    for launch in record["launches"]:
        launch.update({"stopped": launch.get("stopped"), "instrument": dict(instrument)})
        launch.update({"load_s": None, "first_answer_s": None, "left_out": []})
        launch["verdict"]["receipts"] = None
        if launch["rejected"] is not None:
            _count_frames(launch["rejected"]["outputs"])
    for request in record["requests"]:
        _count_frames(request["outputs"])
    if record["timings"] is not None:
        walls = [request["wall_s"] for request in record["requests"]]
        record["timings"] |= {"wall_s": _median(walls), "load_s": None, "first_answer_s": None}
    return cast("Record", record)


def _count_frames(outputs: list[dict[str, Any]]) -> None:
    for output in outputs:
        output.setdefault("frames", None)


def _median(values: list[float | None]) -> float | None:

    known = [value for value in values if value is not None]
    return statistics.median(known) if known and len(known) == len(values) else None
