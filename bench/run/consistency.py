"""What a record says of itself: the files that it rests on, and whether all of it can be true. No file is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.fallback.expectation import DIFFUSERS, NATIVE
from bench.fallback.verdict import Verdict, outcome_of, overall
from bench.record.store import REFERENCE
from bench.run.timings import timings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bench.record.types import File

    Document = Mapping[str, Any]

MEDIANS = ("requests", "metrics", "stages_ms", "launch_s", "wall_s", "load_s", "first_answer_s")
"""What of a record's timings follows from its requests by arithmetic that no version of a library changes."""


def files(launches: Sequence[Document], of_requests: Sequence[Document], profiled: Document | None) -> list[File]:
    """Return every file that a record of these launches and requests rests on, each once; nothing is hashed anew.

    One that could not be read has no hash and is no evidence.
    """
    rejected = [launch["rejected"] for launch in launches if launch["rejected"] is not None]
    entries = [
        *(launch["log"] for launch in launches),
        *(request["perf_dump"] for request in [*of_requests, *rejected]),
        *(output for request in [*of_requests, *rejected] for output in request["outputs"]),
        *([] if profiled is None else [profiled["perf_dump"], *profiled["traces"]]),
    ]
    named = {entry["file"]: entry for entry in entries if entry is not None and entry["sha256"] is not None}
    return [
        {"file": name, "sha256": entry["sha256"], "size_bytes": entry["size_bytes"]} for name, entry in named.items()
    ]


def of_launches(record: Document, count: int) -> dict[str, Any]:
    """Return a record as it was when its first ``count`` launches had ended and no later one had begun."""
    launches = record["launches"][:count]
    indices = {launch["index"] for launch in launches}
    of_requests = [request for request in record["requests"] if request["launch"] in indices]
    if len(launches) == len(record["launches"]):
        return dict(record)
    verdict = overall([(Verdict.from_document(launch["verdict"]), True) for launch in launches])
    return {
        **record,
        "finished": launches[-1]["finished"],
        "verdict": verdict.document(),
        "timings": timings(of_requests, launches),
        "launches": launches,
        "requests": of_requests,
        "evidence": files(launches, of_requests, record["profiled"]),
    }


def traced(launches: Sequence[Document], profiled: Document | None) -> list[int]:
    """Return the launches that a traced request belongs to; none if its trace was not kept."""
    return [] if profiled is None else [launch["index"] for launch in launches if launch["instrument"]["profiler"]]


def deciding(launches: Sequence[Document], of_requests: Sequence[Document], profiled: Document | None) -> set[int]:
    """Return the launches whose verdicts decide on the run: those with requests, and that of a traced request."""
    serving = {request["launch"] for request in of_requests}
    return serving | set(traced(launches, profiled)) if serving else set()


def contradictions(record: Document) -> list[str]:
    """Return what a record says of itself that cannot all be true; no file is read."""
    return [*_unlisted(record), *_false_verdicts(record), *_false_medians(record)]


def _unlisted(record: Document) -> Iterator[str]:
    if record["evidence"] is None:
        return
    known = {entry["file"]: entry["sha256"] for entry in record["evidence"]}
    for entry in files(record["launches"], record["requests"], record["profiled"]):
        if known.get(entry["file"]) != entry["sha256"]:
            yield f"{entry['file']} is not in the list of evidence"


def _false_verdicts(record: Document) -> Iterator[str]:
    verdicts = {launch["index"]: Verdict.from_document(launch["verdict"]) for launch in record["launches"]}
    for index, verdict in verdicts.items():
        if outcome_of(verdict.findings, verdict.expected) != verdict.outcome:
            yield f"launch {index} is called {verdict.outcome}, against its own findings"
        elif verdict.counts and verdict.missing():
            yield f"launch {index} is called {verdict.outcome}, and lacks proof that {verdict.missing()[0].proves}"
    if {verdict.expected for verdict in verdicts.values()} - {DIFFUSERS if record["kind"] == REFERENCE else NATIVE}:
        yield f"a run of kind {record['kind']} was held against the other backend"
    serving = {request["launch"] for request in record["requests"]}
    if not serving <= verdicts.keys():
        yield "a request belongs to no launch"
    elif serving:
        decisive = deciding(record["launches"], record["requests"], record["profiled"])
        whole = overall([(verdict, index in decisive) for index, verdict in verdicts.items()])
        if whole.outcome != record["verdict"]["outcome"]:
            yield f"the run is called {record['verdict']['outcome']}, its launches come to {whole.outcome}"


def _false_medians(record: Document) -> Iterator[str]:
    if record["timings"] is None:
        return
    if not record["requests"]:
        yield "it has timings and no request"
        return
    serving = {request["launch"] for request in record["requests"]}
    launches = [launch for launch in record["launches"] if launch["index"] in serving]
    computed: Document = timings(record["requests"], launches, medians_only=True)
    for name in MEDIANS:
        if computed[name] != record["timings"][name]:
            yield f"timings.{name} does not follow from the requests"
