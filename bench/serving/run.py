"""A load test from its start to its record: warm-up, unloaded service, capacity, then load at rates that follow."""

from __future__ import annotations

import itertools
import os
import time
from collections import Counter, deque
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import psutil

from bench.catalog.stages import DIFFUSERS_STAGE
from bench.errors import BenchError, FallbackDetected, Interrupted, UsageError
from bench.serving import arrivals, batching, checks, client, document, joins, outputs, queueing, server
from bench.serving.checks import Facts, Measured
from bench.serving.client import LOAD, WARM
from bench.serving.options import SHARES
from bench.serving.queueing import Observed
from bench.serving.request import refuse

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from bench.serving.arrivals import Arrivals
    from bench.serving.campaign import Attested, Campaign
    from bench.serving.client import Exchange
    from bench.serving.joins import Counters, Served
    from bench.serving.outputs import Answer
    from bench.serving.request import ImageRequest

SEEDS = 8
"""Different pictures that are asked for in turn: repeats of one show a server that answers with another's."""

DRAIN_S = 600.0
"""How long a phase may last beyond its sending: a saturated server answers its queue, and nothing cancels it."""

IDLE_S = 60.0
SLO_TIMES = 3
REPLAYED = {"num_inference_steps": "steps", "n": "outputs", "guidance_scale": "guidance"}
ASKED = frozenset({"prompt", "negative_prompt", "seed", "width", "height"})


class Target(Protocol):
    """A server that can be loaded: one of our own, or somebody else's."""

    @property
    def url(self) -> str:
        """Where it answers."""

    def alive(self) -> bool:
        """Tell whether it still runs, as far as can be known."""

    def counters(self) -> Counters | None:
        """Return its counters, None where it has none."""

    def requests(self) -> Mapping[str, Served] | None:
        """Return the requests that it logged by its ids, None where the log cannot be seen."""

    def cpu_s(self) -> float | None:
        """Return the processor time of its processes so far, None where it cannot be seen."""

    def merged(self) -> Counter[int] | None:
        """Return its batches of two requests or more so far by their size, None where the log cannot be seen."""


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


def run(campaign: Campaign, target: Target) -> None:
    """Put every phase on the server. The campaign keeps what was measured, and what ended it early if anything did.

    Raises:
        UsageError: a request that the server would change, or a trace that cannot be sent.
    """
    refuse(campaign.workload, "the workload")
    options = campaign.options
    trace = None if options.trace is None else arrivals.replay(options.trace)
    if trace is not None:
        for request in itertools.islice(_requests(campaign.workload, trace), len(trace.times_s)):
            refuse(request, str(options.trace))
    try:
        _phases(campaign, target, trace)
    except BenchError as error:
        campaign.failure = error
    except KeyboardInterrupt:
        campaign.failure = Interrupted("interrupted: what was measured until then is kept", where=campaign.directory)


def _phases(campaign: Campaign, target: Target, trace: Arrivals | None) -> None:
    options = campaign.options
    warm = arrivals.Arrivals(kind=arrivals.REPLAY, duration_s=1e-9, times_s=(0.0,) * checks.WARM_UPS)
    _measure(campaign, target, WARM, warm)
    unloaded = _measure(campaign, target, batching.ALONE, arrivals.closed(1, options.duration_s))
    rows = unloaded.rows
    if not rows or not target.alive():
        return
    campaign.capacity = queueing.capacity_hz(rows)
    campaign.slo_s = options.slo_s or SLO_TIMES * (unloaded.level.p50_s or unloaded.level.mean_s or 1.0)
    if options.batching > 1:
        gathered = batching.bursts(options.batching, 1 / campaign.capacity.value, options.duration_s)
        _measure(campaign, target, batching.BURSTS, gathered)
    for name, wanted in _schedule(campaign, trace):
        if not target.alive():
            return
        _measure(campaign, target, name, wanted)
    if options.find_max:
        campaign.highest = _highest(campaign, target)


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
    """Return the highest rate at which 95 % of all that was due met the SLO, and the lowest at which it did not."""
    assert campaign.capacity is not None
    capacity_hz = campaign.capacity.value

    def holds(rate_hz: float) -> bool:
        drawn = arrivals.poisson(rate_hz, campaign.options.duration_s, campaign.options.arrival_seed)
        level = _measure(campaign, target, f"search-{rate_hz:.4g}", drawn).level
        return (level.goodput or 0) >= 0.95 and queueing.SATURATED not in level.flags  # noqa: PLR2004 - see above

    return queueing.highest_rate(holds, SHARES[0] * capacity_hz, capacity_hz)


def _requests(workload: ImageRequest, wanted: Arrivals) -> Iterator[ImageRequest]:
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


def _measure(campaign: Campaign, target: Target, name: str, wanted: Arrivals) -> Measured:
    """Wait until the server is idle, put one phase on it, read what came of it, and keep it in the campaign."""
    _wait_until_idle(target)
    before, cpu_before, merged_before = target.counters(), target.cpu_s(), target.merged()
    with _processors() as used:
        phase = client.run(
            target.url,
            name,
            wanted,
            _requests(campaign.workload, wanted),
            limit_s=wanted.duration_s + min(DRAIN_S, campaign.options.run.timeout_s),
            alive=target.alive,
            first_index=campaign.next_index(),
        )
    after, cpu_after, merged_after = target.counters(), target.cpu_s(), target.merged()
    answers = tuple(outputs.read(exchange) for exchange in phase.exchanges)
    cpu_s = None if cpu_before is None or cpu_after is None else cpu_after - cpu_before
    measured = Measured(
        phase=replace(phase, exchanges=_without_bodies(phase.exchanges, answers)),
        answers=answers,
        level=_level(phase, answers, campaign.slo_s, merges=campaign.options.batching > 1),
        grown=None if before is None or after is None else after.minus(before),
        cpu_s=cpu_s,
        others_share=None if cpu_s is None else used.others_share(cpu_s),
        merged=None if merged_before is None or merged_after is None else merged_after - merged_before,
    )
    campaign.measured.append(measured)
    if phase.interrupted:
        raise KeyboardInterrupt
    # below level info no line of the log tells of a fallback, and every answer is HTTP 200
    if measured.grown is not None and (count := measured.grown.stages.get(DIFFUSERS_STAGE)):
        raise FallbackDetected(f"the server's counters show {count} times {DIFFUSERS_STAGE}", where=target.url)
    return measured


def _wait_until_idle(target: Target) -> None:
    deadline = time.monotonic() + IDLE_S
    while (now := target.counters()) is not None and now.queued + now.running and time.monotonic() < deadline:
        time.sleep(0.1)


def _level(phase: client.Phase, answers: tuple[Answer, ...], slo_s: float | None, *, merges: bool) -> queueing.Level:
    lateness = [exchange.lateness_s for exchange in phase.exchanges]
    return queueing.level(
        Observed(
            duration_s=phase.arrivals.duration_s,
            ended_s=phase.ended_s,
            offered=len(phase.exchanges),
            lateness_s=[late for late in lateness if late is not None],
            rows=queueing.rows(zip(phase.exchanges, answers, strict=True)),
            merges=merges,
            open_loop=phase.arrivals.kind != arrivals.CLOSED and phase.name != WARM,
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


class _Used:
    """Processor time of the machine and of this process over a stretch."""

    def __init__(self) -> None:
        self._start = self._now()
        self._end = self._start

    def _now(self) -> tuple[float, float, float]:
        machine, own = psutil.cpu_times(), os.times()
        idle = machine.idle + getattr(machine, "iowait", 0.0)
        return sum(machine[:8]), idle, own.user + own.system

    def end(self) -> None:
        """Take the end of the stretch."""
        self._end = self._now()

    def others_share(self, server_s: float) -> float | None:
        """Return the share of all processors that neither the server nor this process used; steal is others'."""
        total, idle, own = (end - start for end, start in zip(self._end, self._start, strict=True))
        return None if total <= 0 else max(total - idle - own - server_s, 0.0) / total


@contextmanager
def _processors() -> Iterator[_Used]:
    used = _Used()
    try:
        yield used
    finally:
        used.end()


def _lone_pictures(campaign: Campaign) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Return what requests that ran alone brought, for those that may have been merged; else nothing."""
    alone = [measured for measured in campaign.measured if measured.phase.name == batching.ALONE]
    return {
        outputs.asked(exchange.request): answer.pixels_sha256
        for measured in alone
        for exchange, answer in measured.answered
        if answer.fault is None and campaign.options.batching > 1
    }


def finish(
    campaign: Campaign, target: Target, attested: Attested | None
) -> tuple[dict[str, Any], Path, BenchError | None]:
    """Judge what was measured, write the record whole, and return it, its path and the error the task ends with."""
    log = target.requests()
    answered = [pair for measured in campaign.measured for pair in measured.answered]
    failures = sum(exchange.sent_s is not None and answer.server_id is None for exchange, answer in answered)
    facts = Facts(
        ours=attested is not None,
        identity=None if attested is None else attested.identity,
        run_id=None if attested is None else attested.run_id,
        version=None if attested is None else attested.version,
        verdict=None if attested is None else attested.verdict,
        join=None if log is None else joins.join(answered, log, own_failures=failures),
        measured=campaign.measured,
        differences=outputs.differences(answered, campaign.golden, "the offline output")
        if campaign.golden
        else outputs.differences(answered, _lone_pictures(campaign), "the lone output"),
        golden_answers=sum(
            answer.fault is None and outputs.asked(exchange.request) in campaign.golden for exchange, answer in answered
        ),
        batching=campaign.options.batching,
        died=attested is not None and attested.died,
    )
    rows = checks.judge(facts)
    error = campaign.failure or checks.error(rows, str(campaign.directory))
    record = document.document(campaign, facts, rows, attested)
    path = document.write(record, campaign, facts)
    return record, path, error
