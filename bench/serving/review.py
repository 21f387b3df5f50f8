"""A load record held against its own evidence: the log is judged again, and figures and checks are computed again.

What rests on the record alone: the pictures, which are not kept, who answered on the port, and the machine.
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict
from datetime import datetime
from hashlib import sha256
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import orjson

from bench import files, schema
from bench.errors import InvalidDocument, UsageError
from bench.fallback.verdict import Verdict
from bench.record import documents, phases, store
from bench.run import evidence
from bench.run.document import refuse_gone
from bench.run.evidence import Reviewed
from bench.serving import arrivals, batching, checks, document, joins, queueing
from bench.serving import run as campaigns
from bench.serving.arrivals import Arrivals
from bench.serving.checks import Facts, Measured
from bench.serving.client import Exchange, Phase
from bench.serving.joins import Counters
from bench.serving.outputs import Answer
from bench.serving.request import ImageRequest, VideoRequest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from bench.serving.campaign import Campaign
    from bench.serving.joins import Served

    Record = Mapping[str, Any]
    Rows = Sequence[Mapping[str, Any]]

ONE_SPAN = "2026-11-30"
"""Records started from this day on have both rates of a phase over one span."""

OF_ROWS = ("open-loop", "warm-up", "percentiles", "saturation", "consistency")
TRACED_STEPS = re.compile(r"-(\d+)_steps-")
"""How the engine names a trace of so many steps, after the request's id."""
OF_THE_REQUEST_LOG = ("workload", "alone", "clocks")
"""Checks that follow from files that are kept."""


def read(path: Path) -> Reviewed:
    """Return the load record in a file or folder, held against its evidence.

    Raises:
        RecordEdited: record and evidence disagree; or the error of the verdict that the log gives.
        InvalidDocument: it is not a load record.
    """
    path = path / store.LOAD_RECORD if path.is_dir() else path
    documents.validate(path)
    record, folder = schema.read(path), path.parent
    gone = evidence.hold_files(record, folder)
    for launch in record["launches"]:
        if launch["log"] is not None and launch["log"]["file"] not in gone:
            evidence.judge_launch(record, launch, folder, (), ())
    has_rows = record["rows"] is not None and record["rows"]["file"] not in gone
    if has_rows:
        evidence.refuse(list(_differences(record, rows(record, folder), folder)), folder)
    return Reviewed(record=record, gone=gone, rests_on_itself=bool(gone) or not has_rows)


def settled(folder: Path) -> Mapping[str, Any] | None:
    """Return the record of a load test that was cut off, with the logs of its killed server as they are for good.

    None: it was cut off before anything was kept.

    Raises:
        RecordEdited, InvalidDocument: as `read`; UsageError: a file that it rests on is gone.
    """
    if not (folder / store.LOAD_RECORD).is_file():
        return None
    reviewed = read(folder)
    refuse_gone(reviewed, folder)
    for launch in reviewed.record["launches"]:
        if evidence.is_going_on(reviewed.record, launch):
            launch["delivered"] = evidence.judge_launch(reviewed.record, launch, folder, (), ())
            launch["log"] = store.file_entry(folder / launch["log"]["file"], folder)
    return reviewed.record


def take_up(campaign: Campaign, earlier: Record) -> None:
    """Give a load test what an earlier start of it has measured."""
    requests = rows(earlier, campaign.directory)
    campaign.started = datetime.fromisoformat(earlier["started"])
    campaign.measured = measured(earlier, requests)
    campaign.launches = list(earlier["launches"])
    campaign.documents = {phase["name"]: phase for phase in earlier["phases"]}
    campaign.rows = [
        document.as_lines(row for row in requests if row["phase"] == phase["name"]) for phase in earlier["phases"]
    ]


def rows(record: Record, folder: Path) -> list[dict[str, Any]]:
    """Return the requests of a load record; the file of one that was cut off may have more.

    Raises:
        RecordEdited: they are not those that the record names.
        InvalidDocument: they cannot be read.
    """
    named = record["rows"]
    path = folder / named["file"]
    content = files.read_bytes(path, error=InvalidDocument)
    named_content = content if record["complete"] else content[: named["size_bytes"]]
    if sha256(named_content).hexdigest() != named["sha256"]:
        evidence.refuse([f"{named['file']} was changed: its hash differs"], folder)
    try:
        return [orjson.loads(line) for line in named_content.splitlines()]
    except orjson.JSONDecodeError as error:
        raise InvalidDocument(f"its rows cannot be read: {error}", where=path) from error


def measured(record: Record, requests: Rows) -> list[Measured]:
    """Return the phases of a load record as they were before they were written; bodies are gone.

    Raises:
        KeyError, TypeError, ValueError: a row lacks something, or has something else.
        UsageError: the trace that it names cannot be drawn.
    """
    return [_measured(record, phase, requests) for phase in record["phases"]]


def _differences(record: Record, requests: Rows, folder: Path) -> Iterator[str]:
    """Yield what a record says that its rows and its request log do not give."""
    try:
        again = measured(record, requests)
    except (KeyError, TypeError, ValueError, UsageError) as error:
        yield f"a row is not one of a request: {type(error).__name__} {error}"
        return
    for phase, one in zip(record["phases"], again, strict=True):
        figures = asdict(one.level)
        if not any(_is_same(figures | rates, phase["figures"]) for rates in ({}, _earlier_rates(record, phase))):
            yield f"the rows of phase {phase['name']} give other figures"
        if phase["kind"] == arrivals.POISSON and phase["trace_sha256"] != one.phase.arrivals.sha256:
            yield f"phase {phase['name']} was sent at other times than its trace has"
    alone = next((one.rows for one in again if one.phase.name == batching.ALONE), None)
    if alone:
        for name, value in (("service_s", queueing.service_s(alone)), ("capacity_hz", queueing.capacity_hz(alone))):
            if not _is_same(None if value is None else asdict(value), record[name]):
                yield f"the rows give another {name}"
    yield from _other_bursts(record, again, folder)
    yield from _other_trace(record, again)
    said = {check["id"]: check["held"] for check in record["checks"]}
    logs = document.request_logs(folder, record["launches"])
    has_log = all(log.is_dir() for log in logs)
    log = campaigns.logged([*map(joins.read_request_log, logs)], again) if has_log else None
    judged = {row.id: row.held for row in checks.judge(_facts(record, again, log))}
    for name in (*OF_ROWS, *(OF_THE_REQUEST_LOG if has_log else ())):
        if judged[name] != said[name]:
            yield f"check {name!r} is judged {judged[name]} from its evidence, and recorded as {said[name]}"


def _other_bursts(record: Record, again: Sequence[Measured], folder: Path) -> Iterator[str]:
    """Yield what a record says of its bursts that the rows, here and of the server that merges nothing, do not give."""
    said = record["batching"]
    beside = folder / batching.UNBATCHED
    if said is None:
        return
    known = {"batched": again}
    if (beside / store.LOAD_RECORD).is_file() and not (reviewed := read(beside)).rests_on_itself:
        known["unbatched"] = measured(reviewed.record, rows(reviewed.record, beside))
    for name, phases_of in known.items():
        burst = batching.burst(phases_of, said["most"])
        figures = None if burst is None or said[name] is None else {key: getattr(burst, key) for key in said[name]}
        if not _is_same(figures, said[name]):
            yield f"the rows give other figures of the bursts, {name}"


def _other_trace(record: Record, again: Sequence[Measured]) -> Iterator[str]:
    """Yield what a record says of its traced request that its files and rows do not give."""
    if (said := record.get("profiled")) is None:
        return
    if any(trace not in record["evidence"] for trace in said["traces"]):
        yield "a trace of the profiled request is not among its evidence"
    traces = [PurePath(trace["file"]).name for trace in said["traces"]]
    if any((steps := TRACED_STEPS.search(name)) and int(steps[1]) != said["steps"] for name in traces):
        yield f"its trace is not of {said['steps']} steps"
    loaded = next((one for one in again if one.phase.name == phases.TRACED), None)
    known = [] if loaded is None else [pair for pair in loaded.answered if _is_named_by(pair[1], traces)]
    if loaded is None or not known:
        yield "none of its requests has the id that its trace is named by"
        return
    exchange = known[0][0]
    if exchange.index != said["request"]:
        yield f"its trace is of request {exchange.index}, it says {said['request']}"
    for name, at_s in (("in_flight_when_sent", exchange.sent_s), ("in_flight_when_answered", exchange.done_s)):
        if at_s is None or loaded.phase.in_flight(at_s, besides=exchange.index) != said[name]:
            yield f"the rows give another {name}"


def _is_named_by(answer: Answer, traces: Sequence[str]) -> bool:
    return answer.server_id is not None and all(name.startswith(answer.server_id) for name in traces)


def _earlier_rates(record: Record, phase: Record) -> dict[str, float]:
    """Return a phase's rates as records started before `ONE_SPAN` may have them: over two spans, whatever the loop."""
    if record["started"] >= ONE_SPAN:
        return {}
    figures = phase["figures"]
    return {
        "offered_hz": figures["offered"] / phase["duration_s"],
        "achieved_hz": figures["answered"] / phase["ended_s"],
    }


def _facts(record: Record, again: Sequence[Measured], log: Mapping[str, Served] | None) -> Facts:
    return Facts(
        ours=record["server"] is not None,
        attested=None,
        verdict=None if record["verdict"] is None else Verdict.from_document(record["verdict"]),
        join=None if log is None else campaigns.joined(again, log),
        measured=again,
        differences=(),
        golden_answers=0,
        batching=record["asked"]["batching"],
    )


def _measured(record: Record, phase: Record, requests: Rows) -> Measured:
    own = [row for row in requests if row["phase"] == phase["name"]]
    exchanges = tuple(_exchange(record, row) for row in own)
    answers = tuple(
        Answer(
            server_id=row["server_id"],
            service_s=row["service_s"],
            pixels_sha256=tuple(row["pixels_sha256"]),
            fault=row["fault"],
        )
        for row in own
    )
    again = Phase(
        name=phase["name"],
        arrivals=_arrivals(phase, own),
        started_unix_s=phase["started_unix_s"],
        ended_s=phase["ended_s"],
        exchanges=exchanges,
    )
    counted = phase["counted"]
    slo_s = None if phase["figures"]["goodput"] is None else record["slo_s"]
    return Measured(
        phase=again,
        answers=answers,
        level=campaigns.level(again, answers, slo_s, merges=record["asked"]["batching"] > 1),
        grown=None if counted is None else Counters(**counted, queued=0, running=0),
        cpu_s=None,
        others_share=phase["others_share"],
        merged=None,
    )


def _arrivals(phase: Record, own: Rows) -> Arrivals:
    if phase["kind"] == arrivals.POISSON:
        return arrivals.poisson(phase["rate_hz"], phase["duration_s"], phase["seed"])
    return Arrivals(
        kind=phase["kind"],
        duration_s=phase["duration_s"],
        times_s=() if phase["kind"] == arrivals.CLOSED else tuple(row["intended_s"] for row in own),
        concurrency=phase["concurrency"],
    )


def _exchange(record: Record, row: Mapping[str, Any]) -> Exchange:
    workload = record["workload"]
    width, _, height = row["size"].partition("x")
    fields: dict[str, Any] = {name: workload[name] for name in ("prompt", "negative_prompt", "guidance")}
    fields |= {name: row[name] for name in ("seed", "steps", "outputs")} | {"width": int(width), "height": int(height)}
    frames = workload.get("frames")
    request = ImageRequest(**fields) if frames is None else VideoRequest(**fields, frames=frames)
    times = {name: row[name] for name in ("intended_s", "sent_s", "headers_s", "done_s", "status")}
    return Exchange(index=row["index"], request=request, **times)


def _is_same(again: Any, said: Any) -> bool:
    """Tell whether two documents are alike; numbers may differ by rounding: libraries change their sums."""
    if isinstance(again, dict):
        return isinstance(said, dict) and again.keys() == said.keys() and all(_is_same(again[k], said[k]) for k in said)
    if isinstance(again, list | tuple):
        return isinstance(said, list) and len(again) == len(said) and all(map(_is_same, again, said))
    if isinstance(again, float) and isinstance(said, int | float) and not isinstance(said, bool):
        return math.isclose(again, said, rel_tol=1e-6, abs_tol=1e-9)
    return bool(again == said)
