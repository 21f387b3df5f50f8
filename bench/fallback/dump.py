"""The perf dump as a witness: is it of this run, and does it show the backend and the workload that were asked for?"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from bench import schema
from bench.catalog.stages import DIFFUSERS_STAGE, stages
from bench.errors import InvalidPerfDump
from bench.fallback import finding as f
from bench.fallback.expectation import DIFFUSERS, DUMP_TAGS
from bench.fallback.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from bench.fallback.expectation import Expectation
    from bench.fallback.facts import StageTime

CLOCK_TOLERANCE = timedelta(seconds=2)
REPORT_IT = "report it: no version of the engine that we know does this"
SUM_TOLERANCE = 1.05
"""Stage times may exceed the total by rounding and overlap; more than 5 % means that they are not of one request."""


LOG_TOLERANCE = 0.01
LOG_RESOLUTION_MS = 0.1
"""The log rounds a stage to 0.1 ms and is written from the same clock as the dump."""
CLOCK_FACTOR, CLOCK_SLACK_S = 2, 5
"""A stage's two lines may arrive late on a busy machine, but not by more than this."""
GAP_FACTOR, GAP_SLACK_MS = 3, 10_000
"""What a total may hold beside its stages; in every captured dump they make up 97 % of it."""


def load(path: Path) -> dict[str, Any]:
    """Return a perf dump that conforms to its schema.

    Raises:
        InvalidPerfDump: it is absent, not JSON, or violates ``schemas/perf-dump.json``.
    """
    if not path.exists():
        raise InvalidPerfDump(
            "the engine wrote no perf dump", where=path, todo="the log's last lines say why; some versions exit 0 then"
        )
    dump = schema.read(path, InvalidPerfDump)
    schema.check(dump, "perf-dump", path, InvalidPerfDump)
    try:
        datetime.fromisoformat(dump["timestamp"])
    except ValueError as error:
        raise InvalidPerfDump(f"$.timestamp: {dump['timestamp']!r} is not a timestamp: {error}", where=path) from error
    return dict(dump)


def unreadable(error: InvalidPerfDump) -> Finding:
    """Return the finding about a dump that `load` refused."""
    return _finding(
        "unreadable",
        error.what,
        "no number can be taken from this perf dump",
        error.todo or "read the log's last lines",
    )


def check(
    dump: Mapping[str, Any],
    expectation: Expectation,
    started: datetime | None,
    ended: datetime | None,
    requests: Sequence[Sequence[StageTime]] = (),
) -> list[Finding]:
    """Return what the dump says against the run; ``started`` and ``ended`` (with zone) are the launch's, if known.

    ``requests`` are those of the log that the dump may be of, with their stages.
    """
    return [
        *_origin(dump, expectation, started, ended),
        *_backend(dump, expectation),
        *_workload(dump, expectation),
        *_times(dump),
        *_held_against_log(dump, requests),
    ]


def _finding(identity: str, text: str, means: str, todo: str, exit_code: int = f.INVALID_DUMP) -> Finding:
    return Finding(
        id=f"dump.{identity}",
        category="process" if exit_code == f.INVALID_DUMP else "shape",
        severity=f.INVALID,
        source="dump",
        text=text,
        means=means,
        todo=todo,
        exit_code=exit_code,
    )


def _origin(
    dump: Mapping[str, Any], expectation: Expectation, started: datetime | None, ended: datetime | None
) -> Iterator[Finding]:
    tag = DUMP_TAGS[expectation.launch]
    if dump["tag"] != tag:
        yield _finding(
            "tag",
            f"tag {dump['tag']!r}, expected {tag!r}",
            "the dump was written by another kind of launch",
            "a single `sglang generate` tags it cli_generate, a session or server server_perf_dump",
        )
    written = datetime.fromisoformat(dump["timestamp"])
    early = started is not None and written < started - CLOCK_TOLERANCE
    late = ended is not None and written > ended + CLOCK_TOLERANCE
    if early or late:
        yield _finding(
            "timestamp",
            f"written {dump['timestamp']}, the launch ran from {started} to {ended}",
            "the dump was left over from another run",
            "never point two runs at one dump file",
        )
    if expectation.model is not None and dump["meta"]["model"] != expectation.model:
        yield _finding(
            "model",
            f"model {dump['meta']['model']!r}, expected {expectation.model!r}",
            "the dump belongs to another model",
            "check --model-path",
        )


def _backend(dump: Mapping[str, Any], expectation: Expectation) -> Iterator[Finding]:
    names = [step["name"] for step in dump["steps"]]
    table = stages()
    denoising = [name for name in names if table.denoises(name)]
    if expectation.backend == DIFFUSERS:
        if DIFFUSERS_STAGE not in names:
            yield _finding(
                "not_diffusers",
                f"stages: {', '.join(names)}",
                "this run was meant to use the diffusers backend, and the dump shows the native one",
                "pass --backend=diffusers, or expect a native run",
                f.FALLBACK,
            )
        return
    if DIFFUSERS_STAGE in names:
        yield _finding(
            "diffusers_stage",
            DIFFUSERS_STAGE,
            "the whole request ran in the diffusers pipeline",
            "the log says why, if it was kept at info level",
            f.FALLBACK,
        )
    elif not denoising:
        yield _finding(
            "no_denoising",
            f"stages: {', '.join(names)}",
            "no stage of the dump is known to denoise, so the denoise time is unknown",
            "if this family is new, add its stage to bench/catalog/stages.toml",
            f.EVIDENCE_MISSING,
        )
    total = sum(step["duration_ms"] for step in dump["steps"] if not table.is_transport(step["name"]))
    if total > SUM_TOLERANCE * dump["total_duration_ms"]:
        yield _finding(
            "sum",
            f"stages sum to {total:.1f} ms, the total is {dump['total_duration_ms']:.1f} ms",
            "the dump mixes the times of more than one request",
            REPORT_IT,
        )


def _times(dump: Mapping[str, Any]) -> Iterator[Finding]:
    """Look for times that no request can have."""
    table = stages()
    of_stages = [step for step in dump["steps"] if not table.is_transport(step["name"])]
    recorded = sum(step["duration_ms"] for step in of_stages if step["name"] in table.records)
    steps = sum(step["duration_ms"] for step in dump["denoise_steps_ms"])
    for step in of_stages:
        if table.denoises(step["name"]) and step["duration_ms"] <= 0:
            yield _finding("zero", f"{step['name']}: 0 ms", "a stage that denoised took no time at all", REPORT_IT)
    if recorded > 0 and steps > SUM_TOLERANCE * recorded:
        yield _finding(
            "steps_sum",
            f"denoise steps sum to {steps:.1f} ms, their stages to {recorded:.1f} ms",
            "a stage took less time than its own steps: the dump mixes the times of more than one request",
            REPORT_IT,
        )
    total, known = dump["total_duration_ms"], sum(step["duration_ms"] for step in of_stages)
    if total > GAP_FACTOR * known + GAP_SLACK_MS:
        yield _finding(
            "total",
            f"the total is {total:.4g} ms, its stages sum to {known:.4g} ms",
            "most of the total is in no stage: it is not the time of this request",
            REPORT_IT,
        )


def _held_against_log(dump: Mapping[str, Any], requests: Sequence[Sequence[StageTime]]) -> Iterator[Finding]:
    """Hold the dump against the requests of the log: it has to agree with one of them in every stage."""
    told = [request for request in requests if request]
    differences = [_differences(dump, request) for request in told]
    if differences and all(differences):
        least = min(differences, key=len)
        yield _finding(
            "log",
            "; ".join(least)[:300],
            "dump and log disagree about what the stages took: they come from different requests, or one was edited",
            "make sure that nothing else writes to that path; run again",
        )
    for stage, watched_s in (
        (stage, stage.watched_s)
        for request, differing in zip(told, differences, strict=True)
        if not differing
        for stage in request
    ):
        if watched_s is not None and watched_s > CLOCK_FACTOR * stage.seconds + CLOCK_SLACK_S:
            yield _finding(
                "clock",
                f"{stage.name}: {stage.seconds:.4f} s by the engine's clock, {watched_s:.1f} s between its two lines",
                "the engine's clock is not this machine's: something stands between the engine and the time",
                "look for LD_PRELOAD, a time namespace, or a virtual machine that was suspended; run again",
            )


def _differences(dump: Mapping[str, Any], request: Sequence[StageTime]) -> list[str]:
    """Return in words what the dump's stages have otherwise than the request's; a line speaks for one entry."""
    unused = list(request)
    names = {stage.name for stage in request}
    differing = []
    for step in dump["steps"]:
        name, said_ms = step["name"], step["duration_ms"]
        if name not in names:
            continue
        fitting = (stage for stage in unused if stage.name == name and _agree(said_ms, 1000 * stage.seconds))
        if (stage := next(fitting, None)) is not None:
            unused.remove(stage)
        else:
            others = ", ".join(f"{1000 * stage.seconds:.1f}" for stage in unused if stage.name == name)
            differing.append(f"{name}: {said_ms:.4g} ms, the log says {others or 'no more of it'}")
    return differing


def _agree(dump_ms: float, log_ms: float) -> bool:
    return abs(dump_ms - log_ms) <= max(LOG_TOLERANCE * log_ms, LOG_RESOLUTION_MS)


def _workload(dump: Mapping[str, Any], expectation: Expectation) -> Iterator[Finding]:
    table = stages()
    recorded = len(dump["denoise_steps_ms"])
    records = any(step["name"] in table.records for step in dump["steps"])
    if expectation.backend != DIFFUSERS and records and expectation.steps not in (None, recorded):
        yield _finding(
            "steps",
            f"{recorded} denoise steps, {expectation.steps} were asked for",
            "a different number of denoise steps ran",
            "a distilled model may fix its steps: ask for that number",
            f.FALLBACK,
        )
    prompt = dump["meta"].get("prompt")
    if expectation.prompt is not None and prompt is not None:
        said = [prompt] if isinstance(prompt, str) else prompt
        if expectation.prompt not in said:
            yield _finding(
                "prompt",
                f"prompt {said!r}",
                "a different prompt was generated",
                "check the preset and the engine's own configuration files",
                f.FALLBACK,
            )
