"""A load test from its start to its record: warm-up, unloaded service, capacity, then load at rates that follow."""

from __future__ import annotations

import itertools
import os
import time
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil

from bench.catalog.stages import DIFFUSERS_STAGE
from bench.errors import BenchError, FallbackDetected, Interrupted, UsageError
from bench.record import phases
from bench.serving import arrivals, batching, checks, client, document, joins, outputs, queueing, server
from bench.serving.checks import Facts, Measured
from bench.serving.client import LOAD
from bench.serving.options import SHARES
from bench.serving.queueing import Observed
from bench.serving.request import refuse
from bench.serving.server import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from bench.serving.arrivals import Arrivals
    from bench.serving.campaign import Campaign
    from bench.serving.checks import Attested
    from bench.serving.client import Exchange
    from bench.serving.joins import Counters, Join, Served
    from bench.serving.outputs import Answer
    from bench.serving.request import ImageRequest

SEEDS = 8
"""Different pictures that are asked for in turn: repeats of one show a server that answers with another's."""

DRAIN_S = 600.0
"""How long a phase may last beyond its sending: a saturated server answers its queue, and nothing cancels it."""

IDLE_S = 60.0
SLO_TIMES = 3
INTERRUPTED = "interrupted: what was measured until then is kept"
ANEW = "the same command again measures anew"
"""The way on where nothing can go on."""
REPLAYED = {"num_inference_steps": "steps", "n": "outputs", "guidance_scale": "guidance"}
ASKED = frozenset({"prompt", "negative_prompt", "seed", "width", "height"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """Somebody else's server. Its log cannot be seen, unless ``request_log`` names the folder."""

    url: str
    request_log: Path | None = None

    def alive(self) -> bool:
        """Tell that it is thought to run: a request will show."""
        return True

    def counters(self) -> Counters | None:
        """Return its counters, None where it has none."""
        return server.counters(self.url)

    def requests(self) -> Mapping[str, Served] | None:
        """Return the requests that it logged by its ids, None where the log cannot be seen."""
        return None if self.request_log is None else joins.read_request_log(self.request_log)

    def cpu_s(self) -> None:
        """Return None: its processes are somebody else's."""

    def merged(self) -> None:
        """Return None: its log is somebody else's."""


Target = Server | Remote
"""A server that can be loaded: one of our own, or somebody else's."""


def run(
    campaign: Campaign,
    target: Target,
    *,
    beside: int | None = None,
    course: Callable[[Campaign, Target], None] | None = None,
) -> None:
    """Put every phase on the server. The campaign keeps what was measured, and what ended it early if anything did.

    With ``beside`` it merges nothing, and gets what one gets that may merge so many requests. ``course`` measures other
    phases instead.

    Raises:
        UsageError: a request that the server would change, or a trace that cannot be sent.
    """
    refuse(campaign.workload, "the workload")
    options = campaign.options
    trace = None if options.trace is None else arrivals.replay(options.trace)
    if trace is not None:
        for request in itertools.islice(requests_of(campaign.workload, trace), len(trace.times_s)):
            refuse(request, str(options.trace))
    try:
        if course is not None:
            course(campaign, target)
        elif beside is None:
            _phases(campaign, target, trace)
        else:
            _unbatched(campaign, target, beside)
    except BenchError as error:
        campaign.failure = error
    except KeyboardInterrupt:
        way_on = ANEW if campaign.state is None else campaign.state.way_on()
        campaign.failure = Interrupted(INTERRUPTED, where=campaign.directory, todo=way_on)


def warm_up() -> Arrivals:
    """Return the arrivals of the requests that warm a server up."""
    return arrivals.Arrivals(kind=arrivals.REPLAY, duration_s=1e-9, times_s=(0.0,) * checks.WARM_UPS)


def _phases(campaign: Campaign, target: Target, trace: Arrivals | None) -> None:
    options = campaign.options
    measure(campaign, target, phases.warm_up(campaign.start), warm_up())
    unloaded = measure(campaign, target, batching.ALONE, arrivals.closed(1, options.duration_s))
    if not unloaded.rows or not target.alive():
        return
    campaign.slo_s = options.slo_s or SLO_TIMES * (unloaded.level.p50_s or unloaded.level.mean_s or 1.0)
    if options.batching > 1:
        measure(campaign, target, batching.BURSTS, _bursts(campaign))
    for name, wanted in _schedule(campaign, trace):
        if not target.alive():
            return
        measure(campaign, target, name, wanted)
    if options.find_max:
        campaign.highest = _highest(campaign, target)


def _unbatched(campaign: Campaign, target: Target, size: int) -> None:
    """Put on a server that merges nothing what one that may merge gets: one client, then bursts of ``size``."""
    measure(campaign, target, phases.WARM, warm_up())
    measure(campaign, target, batching.ALONE, arrivals.closed(1, campaign.options.duration_s))
    if campaign.capacity is not None:
        service_s = 1 / campaign.capacity.value
        measure(campaign, target, batching.BURSTS, batching.bursts(size, service_s, campaign.options.duration_s))


def _bursts(campaign: Campaign) -> Arrivals:
    """Return the bursts that the server without merging got, else ones that follow from this server's capacity."""
    if campaign.unbatched is not None and (known := batching.of_bursts(campaign.unbatched.measured)) is not None:
        return known.phase.arrivals
    assert campaign.capacity is not None
    options = campaign.options
    return batching.bursts(options.batching, 1 / campaign.capacity.value, options.duration_s)


def _schedule(campaign: Campaign, trace: Arrivals | None) -> Iterator[tuple[str, Arrivals]]:
    options = campaign.options
    if trace is not None:
        yield "replay", trace
    elif options.concurrency is not None:
        yield f"closed-{options.concurrency}", arrivals.closed(options.concurrency, options.duration_s)
    elif options.rate_hz is not None:
        yield LOAD, arrivals.poisson(options.rate_hz, options.duration_s, options.arrival_seed)
    elif not options.find_max:
        assert campaign.capacity is not None
        for share in SHARES:
            rate_hz = share * campaign.capacity.value
            yield f"{share:.0%}", arrivals.poisson(rate_hz, options.duration_s, options.arrival_seed)


def _highest(campaign: Campaign, target: Target) -> tuple[float | None, float | None]:
    """Return the highest rate that held the SLO, and the lowest that did not."""
    assert campaign.capacity is not None
    capacity_hz = campaign.capacity.value

    def holds(rate_hz: float) -> bool:
        drawn = arrivals.poisson(rate_hz, campaign.options.duration_s, campaign.options.arrival_seed)
        return queueing.holds(measure(campaign, target, f"search-{rate_hz:.4g}", drawn).level)

    return queueing.highest_rate(holds, SHARES[0] * capacity_hz, capacity_hz)


def requests_of(workload: ImageRequest, wanted: Arrivals) -> Iterator[ImageRequest]:
    """Yield what is asked, request by request; a replayed line may ask for something else."""
    for number in itertools.count():
        request = replace(workload, seed=workload.seed + number % SEEDS)
        fields = wanted.fields[number] if number < len(wanted.fields) else {}
        yield _with_fields(request, fields) if fields else request


def _with_fields(request: ImageRequest, fields: Mapping[str, object]) -> ImageRequest:
    changes: dict[str, Any] = {name: value for name, value in fields.items() if name in ASKED}
    changes |= {REPLAYED[name]: value for name, value in fields.items() if name in REPLAYED}
    if (size := fields.get("size")) is not None:
        width, _, height = str(size).partition("x")
        if not (width.isdigit() and height.isdigit()):
            raise UsageError(f"size {size!r} is not WIDTHxHEIGHT", where="the trace")
        changes |= {"width": int(width), "height": int(height)}
    if other := sorted(fields.keys() - ASKED - REPLAYED.keys() - {"size"}):
        raise UsageError(f"a trace may not set {', '.join(other)}", where="the trace")
    return replace(request, **changes)


def measure(
    campaign: Campaign, target: Target, name: str, wanted: Arrivals, requests: Iterator[ImageRequest] | None = None
) -> Measured:
    """Wait until the server is idle, put one phase on it, read what came of it, and keep it in the campaign.

    A phase that the campaign has is returned as it is. Without ``requests`` those of its workload are sent.
    """
    if (known := campaign.known(name)) is not None:
        return known
    _wait_until_idle(target)
    before, cpu_before, merged_before = target.counters(), target.cpu_s(), target.merged()
    used_before = _processors_s()
    phase = client.run(
        client.send(
            target.url,
            name,
            wanted,
            requests or requests_of(campaign.workload, wanted),
            limit_s=wanted.duration_s + min(DRAIN_S, campaign.options.run.timeout_s),
            alive=target.alive,
            first_index=campaign.next_index(),
        )
    )
    used = _processors_s()
    if phase.interrupted:
        names = [measured.phase.name for measured in campaign.measured]
        phase = replace(phase, name=phases.cut_off(name, names))
    after, cpu_after, merged_after = target.counters(), target.cpu_s(), target.merged()
    answers = tuple(outputs.read(exchange) for exchange in phase.exchanges)
    cpu_s = None if cpu_before is None or cpu_after is None else cpu_after - cpu_before
    measured = Measured(
        phase=replace(phase, exchanges=_without_bodies(phase.exchanges, answers)),
        answers=answers,
        level=level(phase, answers, campaign.slo_s, merges=campaign.options.batching > 1),
        grown=None if before is None or after is None else after.minus(before),
        cpu_s=cpu_s,
        others_share=None if cpu_s is None else _others_share(used_before, used, cpu_s),
        merged=None if merged_before is None or merged_after is None else merged_after - merged_before,
    )
    campaign.measured.append(measured)
    if phase.interrupted:
        raise KeyboardInterrupt
    # below level info no line of the log tells of a fallback, and every answer is HTTP 200
    if measured.grown is not None and (count := measured.grown.stages.get(DIFFUSERS_STAGE)):
        raise FallbackDetected(f"the server's counters show {count} times {DIFFUSERS_STAGE}", where=target.url)
    if target.alive():
        campaign.keep()
        if campaign.state is not None:
            campaign.state.finish(name)
    return measured


def _wait_until_idle(target: Target) -> None:
    deadline = time.monotonic() + IDLE_S
    while (now := target.counters()) is not None and now.queued + now.running and time.monotonic() < deadline:
        time.sleep(0.1)


def level(phase: client.Phase, answers: tuple[Answer, ...], slo_s: float | None, *, merges: bool) -> queueing.Level:
    """Return the figures of a phase; ``merges`` tells whether the server may merge requests."""
    lateness = [exchange.lateness_s for exchange in phase.exchanges]
    return queueing.level(
        Observed(
            duration_s=phase.arrivals.duration_s,
            ended_s=phase.ended_s,
            offered=len(phase.exchanges),
            lateness_s=[late for late in lateness if late is not None],
            rows=queueing.rows(zip(phase.exchanges, answers, strict=True)),
            merges=merges,
            open_loop=phase.arrivals.kind != arrivals.CLOSED and not phases.is_warm_up(phase.name),
        ),
        slo_s=slo_s,
    )


def _without_bodies(exchanges: tuple[Exchange, ...], answers: tuple[Answer, ...]) -> tuple[Exchange, ...]:
    """Return the exchanges with one body for each different picture: a comparison needs no more."""
    kept: set[tuple[object, ...]] = set()
    result: deque[Exchange] = deque()
    for exchange, answer in zip(exchanges, answers, strict=True):
        key = (outputs.asked(exchange.request), answer.pixels_sha256)
        keep = answer.fault is None and key not in kept
        kept.add(key)
        result.append(exchange if keep else replace(exchange, body=None))
    return tuple(result)


def _processors_s() -> tuple[float, float, float]:
    """Return the processor time so far: of all processors, of it idle, and of it this process's own."""
    machine, own = psutil.cpu_times(), os.times()
    idle = machine.idle + getattr(machine, "iowait", 0.0)
    return sum(machine[:8]), idle, own.user + own.system


def _others_share(before: Sequence[float], after: Sequence[float], server_s: float) -> float | None:
    """Return the share of all processors that neither the server nor this process used; steal is others'."""
    total, idle, own = (end - start for start, end in zip(before, after, strict=True))
    return None if total <= 0 else max(total - idle - own - server_s, 0.0) / total


def _lone_pictures(campaign: Campaign) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Return what requests that ran alone brought, for those that may have been merged; else nothing."""
    lone = campaign.unbatched or campaign
    alone = [measured for measured in lone.measured if measured.phase.name == batching.ALONE]
    return {
        outputs.asked(exchange.request): answer.pixels_sha256
        for measured in alone
        for exchange, answer in measured.answered
        if answer.fault is None and campaign.options.batching > 1
    }


def joined(measured: Sequence[Measured], log: Mapping[str, Served]) -> Join:
    """Return all rows joined to the server's request log; one that failed has no id, and may be one of the log's."""
    answered = [pair for one in measured for pair in one.answered]
    failures = sum(exchange.sent_s is not None and answer.server_id is None for exchange, answer in answered)
    return joins.join(answered, log, own_failures=failures)


def logged(logs: Sequence[Mapping[str, Served]], measured: Sequence[Measured]) -> dict[str, Served]:
    """Return the requests in the request logs of a load test's starts, by the servers' ids.

    What came after the last phase of a start is left out: it may be of a phase that was cut off before it was written.
    So is all of a start that was cut off before its warm-up was.
    """
    start = 1
    ends: dict[int, float] = {}
    for one in measured:
        start = phases.start(one.phase.name) or start
        ends[start] = one.phase.started_unix_s + one.phase.ended_s
    own = {answer.server_id for one in measured for answer in one.answers}
    return {
        name: served
        for start, log in enumerate(logs, 1)
        for name, served in log.items()
        if name in own or (start in ends and (served.received_unix_s or 0.0) <= ends[start])
    }


def keep(campaign: Campaign, target: Target, attested: Attested | None) -> None:
    """Write the record as far as the load test has come: what an interrupt would leave now."""
    _write(campaign, target, attested, Interrupted(INTERRUPTED))


class Finished(NamedTuple):
    """A finished load test: its record, where it is, and the error that the task ends with (None: it counts)."""

    record: Mapping[str, Any]
    path: Path
    error: BenchError | None


def finish(campaign: Campaign, target: Target, attested: Attested | None) -> Finished:
    """Judge what was measured, write the record whole, and return it."""
    record, path, rows = _write(campaign, target, attested, campaign.failure)
    return Finished(record, path, campaign.failure or checks.error(rows, str(campaign.directory)))


def _write(
    campaign: Campaign, target: Target, attested: Attested | None, failure: BenchError | None
) -> tuple[dict[str, Any], Path, list[checks.Row]]:
    """Judge what was measured, write the record over what was known before, and return it, its path and the checks."""
    own = target.requests()
    before = document.request_logs(campaign.directory, campaign.launches) if campaign.launches else []
    logs = None if own is None else [*map(joins.read_request_log, before), own]
    answered = [pair for measured in campaign.measured for pair in measured.answered]
    kept = [] if campaign.unbatched is None else [pair for one in campaign.unbatched.measured for pair in one.answered]
    facts = Facts(
        ours=attested is not None,
        attested=attested,
        verdict=None if attested is None else attested.verdict,
        join=None if logs is None else joined(campaign.measured, logged(logs, campaign.measured)),
        measured=campaign.measured,
        differences=outputs.differences(answered, campaign.golden, "the offline output")
        if campaign.golden
        else outputs.differences(answered, _lone_pictures(campaign), "the lone output", kept),
        golden_answers=sum(
            answer.fault is None and outputs.asked(exchange.request) in campaign.golden for exchange, answer in answered
        ),
        batching=campaign.options.batching,
    )
    rows = checks.judge(facts)
    record = document.document(campaign, facts, rows, failure)
    return record, document.write(record, campaign, facts), rows
