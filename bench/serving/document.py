"""A load test as a record: ``load.json`` with its rows as JSON lines beside it, written after each phase."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import orjson

from bench import files, redact, schema
from bench.record import store
from bench.serving import batching
from bench.serving.command import REQUEST_LOG

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from bench.errors import BenchError
    from bench.serving.campaign import Campaign
    from bench.serving.checks import Facts, Measured, Row
    from bench.serving.client import Exchange
    from bench.serving.joins import Served
    from bench.serving.outputs import Answer

KIND = "load-record"
# Format history of load records:
#   1  the first; later it may have more than one start, and it is written after each phase; started before
#      30 November 2026 it may have `offered_hz` over `duration_s` and `achieved_hz` over `ended_s`, since then both are
#      over one of them
SCHEMA_VERSION = 1

ROWS = "rows.jsonl"
ORIGIN = ("preset", "workload", "weights", "engine", "code", "devices", "host", "preflight", "instrument")
"""What is not known of somebody else's server."""


def document(campaign: Campaign, facts: Facts, checks: Sequence[Row], failure: BenchError | None) -> dict[str, Any]:
    """Return the record of a load test; its rows are not in it: `write` puts them beside it and names their hash."""
    most = campaign.options.batching
    unbatched = () if campaign.unbatched is None else campaign.unbatched.measured
    merging = batching.summary(most, facts.verdict, facts.measured, unbatched, facts.differences) if most > 1 else None
    highest, capacity, attested = campaign.highest, campaign.capacity, facts.attested
    return {
        "schema": KIND,
        "schema_version": SCHEMA_VERSION,
        "methodology": store.METHODOLOGY,
        "id": campaign.directory.name,
        "kind": "load",
        "label": campaign.options.run.label,
        "complete": failure is None and not facts.died,
        "failure": None if failure is None else {"exit_code": failure.exit_code, "what": failure.what},
        "started": campaign.started.isoformat(),
        "finished": store.now().isoformat(),
        "asked": _asked(campaign),
        **(dict.fromkeys(ORIGIN) if attested is None else attested.origin),
        "workload": ({} if attested is None else attested.origin["workload"]) | asdict(campaign.workload),
        "server": None if attested is None else {"run_id": attested.run_id, "ready_s": attested.ready_s},
        "launches": [] if attested is None else [*campaign.launches, attested.launch],
        "verdict": None if attested is None else attested.verdict.document(),
        "checks": [asdict(row) for row in checks],
        "slo_s": campaign.slo_s,
        "service_s": None if campaign.service is None else asdict(campaign.service),
        "capacity_hz": None if capacity is None else asdict(capacity),
        "highest_rate": None if highest is None else {"held_hz": highest[0], "missed_hz": highest[1]},
        "batching": None if merging is None else asdict(merging) | {"sizes": _by_size(merging.sizes)},
        "phases": [campaign.documents.get(measured.phase.name) or _phase(measured) for measured in campaign.measured],
        "differences": [
            {
                "index": item.index,
                "seed": item.seed,
                "against": item.against,
                "max_levels": None if item.similarity is None else item.similarity.max_levels,
            }
            for item in facts.differences
        ],
        "profiled": campaign.profiled,
    }


def _by_size(sizes: Mapping[int, int] | None) -> dict[str, int] | None:
    return None if sizes is None else {str(size): sizes[size] for size in sorted(sizes)}


def _asked(campaign: Campaign) -> dict[str, Any]:
    own = campaign.options.document()
    run = own.pop("run")
    return {"model": run["model"], "engine": run["engine"], **own}


def _phase(measured: Measured) -> dict[str, Any]:
    phase, arrivals, answers = measured.phase, measured.phase.arrivals, len(measured.phase.exchanges)
    figures = asdict(measured.level)
    return {
        "name": phase.name,
        "kind": arrivals.kind,
        "rate_hz": arrivals.rate_hz,
        "seed": arrivals.seed,
        "concurrency": arrivals.concurrency,
        "duration_s": arrivals.duration_s,
        "ended_s": phase.ended_s,
        "started_unix_s": phase.started_unix_s,
        "trace_sha256": arrivals.sha256,
        "figures": figures | {"flags": list(figures["flags"])},
        "cpu_s_per_request": None if measured.cpu_s is None or not answers else measured.cpu_s / answers,
        "others_share": measured.others_share,
        "counted": None
        if measured.grown is None
        else {
            "posts": measured.grown.posts,
            "requests": dict(measured.grown.requests),
            "stages": dict(measured.grown.stages),
        },
    }


def _row(exchange: Exchange, answer: Answer, phase: str, served: Served | None) -> dict[str, Any]:
    """Return a request, whatever came of it; times in seconds from the start of its phase."""
    return {
        "index": exchange.index,
        "phase": phase,
        "seed": exchange.request.seed,
        "steps": exchange.request.steps,
        "size": f"{exchange.request.width}x{exchange.request.height}",
        "outputs": exchange.request.outputs,
        "intended_s": exchange.intended_s,
        "sent_s": exchange.sent_s,
        "headers_s": exchange.headers_s,
        "done_s": exchange.done_s,
        "status": exchange.status,
        "fault": answer.fault,
        "server_id": answer.server_id,
        "service_s": answer.service_s,
        "pixels_sha256": list(answer.pixels_sha256),
        "received_unix_s": None if served is None else served.received_unix_s,
        "finished_unix_s": None if served is None else served.finished_unix_s,
    }


def as_lines(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return rows as JSON lines, without secrets."""
    secrets = redact.known()
    return b"".join(
        orjson.dumps(redact.document(row, secrets), option=orjson.OPT_APPEND_NEWLINE) for row in rows
    ).decode()


def request_logs(directory: Path, launches: Sequence[Mapping[str, Any]]) -> list[Path]:
    """Return the folders with the request logs of these starts; without any, where that of a server would be."""
    logs = [launch["log"]["file"] for launch in launches if launch["log"] is not None]
    return [(directory / log).parent / REQUEST_LOG for log in logs] or [directory / REQUEST_LOG]


def write(record: dict[str, Any], campaign: Campaign, facts: Facts) -> Path:
    """Write rows and record into the run's directory and return the record's path; ``record`` gets the rows' hash.

    Both replace what was written before. The rows come first, and begin with those of then: a record that was not
    complete holds against them, whatever ends this in between.

    Raises:
        InvalidDocument: it violates its schema, which is an internal error.
        UsageError: it cannot be written.
    """
    pairs: Mapping[int, Served] = {} if facts.join is None else facts.join.pairs
    for measured in campaign.measured[len(campaign.rows) :]:
        campaign.rows.append(
            as_lines(
                _row(exchange, answer, measured.phase.name, pairs.get(exchange.index))
                for exchange, answer in measured.answered
            )
        )
    path = campaign.directory / ROWS
    files.write_text(path, "".join(campaign.rows), replace=True)
    record["rows"] = store.file_entry(path, campaign.directory)
    logs = [
        log for folder in request_logs(campaign.directory, record["launches"]) for log in sorted(folder.rglob("*.log"))
    ]
    entries = [record["rows"], *(launch["log"] for launch in record["launches"])]
    entries += [store.file_entry(log, campaign.directory) for log in logs]
    entries += [] if campaign.profiled is None else campaign.profiled["traces"]
    record["evidence"] = [entry for entry in entries if entry is not None]
    place = campaign.directory / store.LOAD_RECORD
    schema.write(record, KIND, place, replace=True)
    return place
