"""Load records as sides of a comparison, with the refusals that run records have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench import schema
from bench.compare import metric as metrics
from bench.compare.records import Side
from bench.errors import UsageError
from bench.record import phases, store
from bench.serving import batching, review

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ASKED = ("batching",)
"""What else must be alike between two load tests."""


def is_load(path: Path) -> bool:
    """Tell whether a place is a load record, or a folder that has one."""
    if path.is_dir():
        return (path / store.LOAD_RECORD).is_file()
    if path.suffix != ".json" or not path.is_file():
        return False
    document = schema.read(path)
    return isinstance(document, dict) and document.get("schema") == "load-record"


def read(path: Path, metric: str) -> Side:
    """Return a load record as one side of a comparison: one start of a server, with one value of the metric.

    Raises:
        UsageError: it does not count, is not complete, is of somebody else's server, or lacks the metric.
        InvalidDocument: it is not a load record.
        RecordEdited: its evidence contradicts it.
    """
    wanted = metrics.named(metrics.SERVICE if metric == metrics.DEFAULT else metric)
    reviewed = review.read(path)
    record = reviewed.record
    if record["engine"] is None:
        raise UsageError(
            "this load test is of somebody else's server: its engine and machine are unknown, and so what it can be"
            " compared with",
            where=path,
            todo="start the server with `invoke loadtest`",
        )
    if not record["complete"]:
        raise UsageError("this load test was cut off", where=path, todo="measure it again")
    if voided := next((check for check in record["checks"] if check["exit_code"]), None):
        raise UsageError(f"this load test does not count: {voided['says']}", where=path)
    value = wanted.of_record(record) if wanted.is_served else None
    if value is None:
        raise UsageError(
            f"this load test has no {wanted.title} to compare",
            where=path,
            todo=f"a --metric of load tests is {' or '.join(metrics.SERVED)}",
        )
    alone = next((phase for phase in record["phases"] if phase["name"] == batching.ALONE), None)
    return Side(
        name=str(path),
        document=record,
        is_dump=False,
        metric=wanted,
        launches=(value,),
        requests=1 if alone is None else alone["figures"]["answered"],
        directory=path if path.is_dir() else path.parent,
        note=reviewed.note(),
    )


def refuse_unlike(baseline: Side, candidate: Side) -> None:
    """Raise UsageError unless both were asked the same of a server; `compare.records` refuses the rest."""
    one, other = baseline.document, candidate.document
    said = {**{name: (one["asked"][name], other["asked"][name]) for name in ASKED}, **_requests(one, other)}
    unlike = [f"{name}: {first!r} against {second!r}" for name, (first, second) in said.items() if first != second]
    if unlike:
        raise UsageError(
            f"not comparable: {'; '.join(unlike)}",
            where=f"{baseline.name}, {candidate.name}",
            todo="compare two servers under the same load: `invoke loadtest --baseline --candidate`",
        )


def _requests(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {
        name: (one["workload"][name], other["workload"][name]) for name in ("outputs", "guidance", "negative_prompt")
    }


def same_phases(baseline: Mapping[str, Any], candidate: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    """Return the phases of both records that sent at the same times: only their latencies can be compared."""
    known = {phase["trace_sha256"]: phase for phase in candidate["phases"] if phase["kind"] != "closed"}
    return [
        (phase, known[phase["trace_sha256"]])
        for phase in baseline["phases"]
        if phase["kind"] != "closed" and phases.is_load(phase["name"]) and phase["trace_sha256"] in known
    ]
