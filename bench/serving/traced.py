"""One request of a server under the profiler while others are in flight: what `invoke profile --serve` captures."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson
from packaging.version import InvalidVersion, Version

from bench.engine import find
from bench.errors import EngineFailed, UsageError
from bench.profiling.bottleneck import Unprofiled, host_ahead
from bench.profiling.capture import Captured
from bench.record import phases, store
from bench.run import plan as plans
from bench.run import traced
from bench.serving import arrivals, batching
from bench.serving import run as campaigns
from bench.serving.command import STAGE_LOG
from bench.serving.local import Hosted, request_of
from bench.serving.options import LoadOptions
from bench.serving.request import ImageRequest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    from bench.engine.workload import Workload
    from bench.process import Observer
    from bench.run.options import Options
    from bench.serving.campaign import Campaign
    from bench.serving.run import Target

SINCE = (0, 5, 22)
"""The first version whose image requests take `profile`: older ones ignore the field and answer 200."""

UNLOADED_S = 10.0
"""How long one client measures the server without the profiler."""

BEFORE, AFTER = 4, 3
"""Requests that are sent before and after the traced one."""

OVERLOAD = 2
"""How many times its capacity a server is sent by default: others are in flight even if it has become faster."""

PERFORMANCE_LOG = "performance.log"
"""Where the engine writes the steps of each request, below its folder for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedRequest(ImageRequest):
    """One request for images that the server runs under the profiler."""

    profiled_steps: int
    all_stages: bool

    def body(self) -> bytes:
        """Return the body of the same request, with what asks for a trace."""
        asked = traced.sampling(self.profiled_steps, all_stages=self.all_stages)
        return json.dumps(json.loads(ImageRequest.body(self)) | asked).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The load around a traced request; ``rate_hz`` None is so many requests a second that a queue builds up."""

    steps: int
    all_stages: bool
    rate_hz: float | None = None

    def load(self, capacity_hz: float) -> arrivals.Arrivals:
        """Return when the requests are sent: two at once, so that one waits, then one in each interval."""
        interval_s = 1 / (self.rate_hz or OVERLOAD * capacity_hz)
        times = (0.0, *(number * interval_s for number in range(BEFORE + AFTER)))
        return arrivals.Arrivals(kind=arrivals.REPLAY, duration_s=times[-1] + interval_s, times_s=times)

    def requests(self, workload: ImageRequest, wanted: arrivals.Arrivals) -> Iterator[ImageRequest]:
        """Yield the requests of a load; one of them is traced."""
        for number, request in enumerate(campaigns.requests_of(workload, wanted)):
            yield self.traced(request) if number == BEFORE else request

    def traced(self, request: ImageRequest) -> TracedRequest:
        """Return the request that asks the server for a trace."""
        return TracedRequest(**asdict(request), profiled_steps=self.steps, all_stages=self.all_stages)


def request(version: str, workload: Workload) -> ImageRequest:
    """Return the request that a workload means, which a server of this version can trace.

    Raises:
        UsageError: it cannot, or it would change the request in silence.
    """
    try:
        can_trace = Version(version).release >= SINCE
    except InvalidVersion:
        can_trace = True  # a build that names no release: its server will show
    since = ".".join(map(str, SINCE))
    if not can_trace:
        raise UsageError(
            f"SGLang {version} cannot trace an image request of a server: it ignores `profile` in the request",
            todo=f"use {since} or later, or leave --serve out",
        )
    if workload.preset.modality != "image":
        raise UsageError(
            f"preset {workload.preset.key} makes {workload.preset.modality}: only image requests of a server are traced"
            " so far",
            todo="leave --serve out",
        )
    return request_of(workload)


def capture(options: Options, window: Window, display: Observer | None = None) -> Captured:
    """Start a server, put a load on it, let it trace one request, stop it, and return what was captured.

    Raises:
        UsageError: the engine's version or the workload has no traced request.
        EngineFailed: the server died, the traced request failed, or the profiler left no trace.
        BenchError: the plan cannot be made, or the run does not count. Once the server is ready its record is written.
    """
    request(find.find(options.engine).version, plans.workload(options))  # a plan may make a checkpoint
    planned = plans.plan(options)
    name = "-".join(filter(None, (options.model, options.label)))
    directory = store.new_run("profile", name, options.output_dir)
    planned = traced.planned(planned, directory)
    asked = LoadOptions(run=options, rate_hz=window.rate_hz, duration_s=UNLOADED_S)
    hosted = Hosted(planned, asked, display, directory)
    campaign = hosted.campaign
    with hosted:
        campaigns.run(campaign, hosted.server, course=partial(_course, window=window))
    if campaign.failure is None:
        try:
            campaign.profiled = document(campaign, window)
        except EngineFailed as failed:
            campaign.failure = failed
    record, path, error = hosted.finish()
    if error is not None:
        raise error
    alone = campaign.known(batching.ALONE)
    assert alone is not None
    services = [row.service_s for row in alone.rows]
    return Captured(
        record=record,
        path=path,
        traces=traced.traces(directory),
        unprofiled=unprofiled(directory / STAGE_LOG / PERFORMANCE_LOG, {answer.server_id for answer in alone.answers}),
        request_ms=1e3 * statistics.median(services),
        requests=len(services),
    )


def _course(campaign: Campaign, target: Target, window: Window) -> None:
    """Warm the server up, measure it without load and without the profiler, then put the load around the trace on."""
    campaigns.measure(campaign, target, phases.warm_up(campaign.start), campaigns.warm_up())
    campaigns.measure(campaign, target, batching.ALONE, arrivals.closed(1, UNLOADED_S))
    if not target.alive():
        return
    if campaign.capacity is None:
        raise EngineFailed("no request was answered without load", where=campaign.directory / store.LOG)
    wanted = window.load(campaign.capacity.value)
    campaigns.measure(campaign, target, phases.TRACED, wanted, window.requests(campaign.workload, wanted))


def document(campaign: Campaign, window: Window) -> dict[str, Any]:
    """Return the traced request as a load record holds it.

    Raises:
        EngineFailed: it failed, or left no trace, or the trace is of another request.
    """
    log = campaign.directory / store.LOG
    loaded = campaign.known(phases.TRACED)
    assert loaded is not None
    exchange, answer = loaded.answered[BEFORE]
    if answer.fault is not None or exchange.sent_s is None or exchange.done_s is None:
        raise EngineFailed(f"the traced request failed: {answer.fault}", where=log, todo="read the log's last lines")
    found = traced.traces(campaign.directory)
    if answer.server_id is None or not all(path.name.startswith(answer.server_id) for path in found):
        raise EngineFailed(f"the trace is not of request {answer.server_id}", where=found[0])
    return {
        "steps": window.steps,
        "all_stages": window.all_stages,
        "request": exchange.index,
        "in_flight_when_sent": loaded.phase.in_flight(exchange.sent_s, besides=exchange.index),
        "in_flight_when_answered": loaded.phase.in_flight(exchange.done_s, besides=exchange.index),
        "traces": [store.file_entry(path, campaign.directory) for path in found],
    }


def unprofiled(log: Path, ids: Collection[str | None]) -> Unprofiled | None:
    """Return the step of the requests with these ids, from the engine's performance log; None where it has none."""
    rows = list(_steps_ms(log, ids))
    if not rows:
        return None
    return Unprofiled(
        step_ms=statistics.median(map(statistics.median, rows)),
        host_ahead=host_ahead([statistics.median(steps) for steps in zip(*rows, strict=False)]),
    )


def _steps_ms(log: Path, ids: Collection[str | None]) -> Iterator[Sequence[float]]:
    """Yield the times of the denoise steps of each request in the log that has one of these ids."""
    for line in log.read_bytes().splitlines() if log.is_file() else ():
        try:
            entry = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue  # the last line of a server that was killed
        if entry.get("request_id") in ids and entry.get("steps"):
            yield entry["steps"]
