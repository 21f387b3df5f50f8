"""A load test as a record: ``load.json`` with its rows as JSON lines beside it, each written whole or not at all."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import orjson

from bench import redact, schema
from bench.errors import UsageError
from bench.record import store
from bench.serving import batching

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from bench.serving.campaign import Attested, Campaign
    from bench.serving.checks import Facts, Measured, Row

KIND = "load-record"
# Format history of load records:
#   1  the first
SCHEMA_VERSION = 1

RECORD, ROWS = "load.json", "rows.jsonl"


def document(campaign: Campaign, facts: Facts, checks: Sequence[Row], attested: Attested | None) -> dict[str, Any]:
    """Return the record of a load test; its rows are not in it: `write` puts them beside it and names their hash."""
    most = campaign.options.batching
    merging = batching.summary(most, facts.verdict, facts.measured, facts.differences) if most > 1 else None
    highest, failure, capacity = campaign.highest, campaign.failure, campaign.capacity
    return {
        "schema": KIND,
        "schema_version": SCHEMA_VERSION,
        "methodology": store.METHODOLOGY,
        "id": campaign.directory.name,
        "complete": failure is None and not facts.died,
        "failure": None if failure is None else {"exit_code": failure.exit_code, "what": failure.what},
        "started": campaign.started.isoformat(),
        "finished": store.now().isoformat(),
        "asked": _asked(campaign),
        "workload": asdict(campaign.workload),
        "attested": attested is not None,
        "server": None if attested is None else _server(attested),
        "verdict": None if attested is None else attested.verdict.document(),
        "checks": [asdict(row) for row in checks],
        "slo_s": campaign.slo_s,
        "capacity_hz": None if capacity is None else asdict(capacity),
        "highest_rate": None if highest is None else {"held_hz": highest[0], "missed_hz": highest[1]},
        "batching": None if merging is None else asdict(merging) | {"sizes": _by_size(merging.sizes)},
        "phases": [_phase(measured) for measured in campaign.measured],
        "differences": [
            {
                "index": item.index,
                "seed": item.seed,
                "against": item.against,
                "max_levels": None if item.similarity is None else item.similarity.max_levels,
            }
            for item in facts.differences
        ],
    }


def _by_size(sizes: Mapping[int, int] | None) -> dict[str, int] | None:
    return None if sizes is None else {str(size): sizes[size] for size in sorted(sizes)}


def _asked(campaign: Campaign) -> dict[str, Any]:
    options = campaign.options
    return {
        "model": options.run.model,
        "engine": options.run.engine,
        "rate_hz": options.rate_hz,
        "concurrency": options.concurrency,
        "trace": None if options.trace is None else str(options.trace),
        "find_max": options.find_max,
        "duration_s": options.duration_s,
        "slo_s": options.slo_s,
        "batching": options.batching,
        "arrival_seed": options.arrival_seed,
        "url": options.url,
        "golden": None if options.golden is None else str(options.golden),
    }


def _server(attested: Attested) -> dict[str, Any]:
    return {
        "run_id": attested.run_id,
        "version": attested.version,
        "ready_s": attested.ready_s,
        "argv": list(attested.argv),
        "environment": dict(attested.environment),
    }


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


def rows(campaign: Campaign, facts: Facts) -> Iterator[dict[str, Any]]:
    """Yield every request of every phase, whatever came of it; times in seconds from the start of its phase."""
    pairs: Mapping[int, Any] = {} if facts.join is None else facts.join.pairs
    for measured in campaign.measured:
        for exchange, answer in measured.answered:
            served = pairs.get(exchange.index)
            yield {
                "index": exchange.index,
                "phase": measured.phase.name,
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


def write(record: dict[str, Any], campaign: Campaign, facts: Facts) -> Path:
    """Write rows and record into the run's directory and return the record's path; ``record`` gets the rows' hash.

    Raises:
        InvalidDocument: it violates its schema, which is an internal error.
        UsageError: it cannot be written, or is there already.
    """
    path = campaign.directory / ROWS
    temporary = path.with_name(f".{ROWS}")
    try:
        with temporary.open("xb") as file:
            secrets = redact.known()
            file.writelines(
                orjson.dumps(redact.document(row, secrets), option=orjson.OPT_APPEND_NEWLINE)
                for row in rows(campaign, facts)
            )
        temporary.rename(path)
    except OSError as failure:
        raise UsageError(f"cannot be written: {failure.strerror}", where=path, todo="free space") from failure
    record["rows"] = store.file_entry(path, campaign.directory)
    schema.write(record, KIND, campaign.directory / RECORD)
    return campaign.directory / RECORD
