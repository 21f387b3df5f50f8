"""The thirteen checks that a load test rests on, each held, not held or unknown, with what was seen."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from bench.catalog.stages import DIFFUSERS_STAGE
from bench.errors import EngineFailed, EvidenceMissing, FallbackDetected, Inconclusive
from bench.fallback import finding as f
from bench.record import phases
from bench.serving import queueing
from bench.serving.arrivals import CLOSED
from bench.stats import trend

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bench.errors import BenchError
    from bench.fallback.verdict import Verdict
    from bench.serving.client import Exchange, Phase
    from bench.serving.joins import Counters, Identity, Join
    from bench.serving.outputs import Answer, Difference
    from bench.serving.queueing import Level

INCONCLUSIVE = 9
WARM_UPS = 3
CLOCK_S = 0.05
"""How much longer the server may say that it had a request than the client: the wall clock may be set meanwhile."""

OTHERS_SHARE = 0.10

ERRORS: dict[int, type[BenchError]] = {
    f.ENGINE_FAILED: EngineFailed,
    f.FALLBACK: FallbackDetected,
    f.EVIDENCE_MISSING: EvidenceMissing,
    INCONCLUSIVE: Inconclusive,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One phase with what was read of it; counters are the server's growth, None where it has none.

    ``others_share`` is the share of the machine's processors that neither the server nor this process used. ``merged``
    counts the batches of two requests or more by their size, None where the log cannot be seen.
    """

    phase: Phase
    answers: tuple[Answer, ...]
    level: Level
    grown: Counters | None
    cpu_s: float | None
    others_share: float | None
    merged: Mapping[int, int] | None

    @property
    def rows(self) -> list[queueing.Row]:
        """Return the answers that came as they were asked for, as the queue needs them."""
        return queueing.rows(self.answered)

    @property
    def answered(self) -> list[tuple[Exchange, Answer]]:
        """Every exchange with what it brought."""
        return list(zip(self.phase.exchanges, self.answers, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Attested:
    """What is known of a server that was started here; the whole is absent for somebody else's.

    ``origin`` and ``launch`` are what a run record says of a run and of a launch.
    """

    identity: Identity
    run_id: str
    verdict: Verdict
    ready_s: float | None
    origin: Mapping[str, Any]
    launch: Mapping[str, Any]
    died: bool

    @property
    def version(self) -> str:
        """The engine's version."""
        return str(self.origin["engine"]["version"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the checks look at. None: it could not be known, as of somebody else's server.

    ``golden_answers`` counts the pictures that were held against an offline run's.
    ``ours`` tells whether the server was started here: what is unknown of it then is missing evidence. Where only the
    record of our own server is left, ``attested`` is None too.
    """

    ours: bool
    attested: Attested | None
    verdict: Verdict | None
    join: Join | None
    measured: Sequence[Measured]
    differences: Sequence[Difference]
    golden_answers: int
    batching: int

    @property
    def died(self) -> bool:
        """Whether the server ended by itself."""
        return self.attested is not None and self.attested.died

    @property
    def answered(self) -> list[tuple[Exchange, Answer]]:
        """Every exchange of every phase with what it brought."""
        return [pair for measured in self.measured for pair in measured.answered]

    @property
    def loads(self) -> list[Measured]:
        """The phases that count."""
        return [measured for measured in self.measured if phases.is_load(measured.phase.name)]

    @property
    def warm_ups(self) -> list[Measured]:
        """The warm-up of each start."""
        return [measured for measured in self.measured if phases.is_warm_up(measured.phase.name)]

    def sent(self, measured: Measured) -> int:
        """Return how many requests of a phase left."""
        return sum(exchange.sent_s is not None for exchange in measured.phase.exchanges)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one check saw; ``held`` None: unknown. ``exit_code`` is what a failure ends the task with, 0: nothing."""

    held: bool | None
    says: str
    exit_code: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One check as it is printed and recorded."""

    number: int
    id: str
    proves: str
    held: bool | None
    says: str
    exit_code: int


def _identity(facts: Facts) -> Outcome:
    if (attested := facts.attested) is None:
        return Outcome(held=None, says="somebody else's server: unattested", exit_code=f.EVIDENCE_MISSING)
    identity = attested.identity
    held = identity.run_id == attested.run_id and identity.listener_is_ours
    if held and identity.version not in (None, attested.version):
        return Outcome(held=False, says=f"version {identity.version}, not {attested.version}", exit_code=f.FALLBACK)
    says = f"{identity.run_id}; {'its' if identity.listener_is_ours else 'not its'} process listens on the port"
    return Outcome(held=held, says=says, exit_code=f.FALLBACK if held is False else f.EVIDENCE_MISSING)


def _native(facts: Facts) -> Outcome:
    grown = [measured.grown for measured in facts.measured if measured.grown is not None]
    fallen = sum(counters.stages.get(DIFFUSERS_STAGE, 0) for counters in grown)
    if fallen:
        return Outcome(held=False, says=f"{fallen} times {DIFFUSERS_STAGE}", exit_code=f.FALLBACK)
    if facts.verdict is None:
        native = sum(counters.stages.get("DenoisingStage", 0) for counters in grown)
        says = f"no log; counters: {native} native denoising stages" if grown else "neither log nor counters"
        return Outcome(held=None, says=says, exit_code=f.EVIDENCE_MISSING)
    verdict = facts.verdict
    seen = sum(proof.holds for proof in verdict.proofs)
    says = f"{verdict.outcome}, {seen} of {len(verdict.proofs)} pieces of evidence"
    if grown:
        says += f", no {DIFFUSERS_STAGE} in the counters"
    return Outcome(held=verdict.counts, says=says, exit_code=verdict.exit_code)


def _workload(facts: Facts) -> Outcome:
    join = facts.join
    if join is None:
        return Outcome(held=None, says="no request log to join", exit_code=f.EVIDENCE_MISSING)
    if join.changed:
        index, difference = next(iter(join.changed.items()))
        return Outcome(
            held=False, says=f"{len(join.changed)} changed, first {index}: {difference}", exit_code=f.FALLBACK
        )
    if join.unlogged or join.repeated:
        says = f"{len(join.unlogged)} answers without their pair of log lines, {len(join.repeated)} ids repeated"
        return Outcome(held=False, says=says, exit_code=f.EVIDENCE_MISSING)
    for measured in facts.measured:
        finished = [
            (e.request.steps or join.pairs[e.index].steps or 0) * e.request.outputs
            for e, a in measured.answered
            if a.server_id is not None
        ]
        steps = None if measured.grown is None else measured.grown.stages.get("DenoisingStep")
        failed = len(finished) < facts.sent(measured)
        if steps is not None and facts.batching == 1 and not failed and steps != sum(finished):
            says = f"{measured.phase.name}: {steps} denoise steps counted, {sum(finished)} asked for"
            return Outcome(held=False, says=says, exit_code=f.FALLBACK)
    return Outcome(held=True, says=f"{len(join.pairs)} rows joined by id, each with what was asked")


def _outputs(facts: Facts) -> Outcome:
    wrong = [answer.fault for _, answer in facts.answered if answer.fault and answer.server_id is not None]
    if wrong:
        return Outcome(held=False, says=f"{len(wrong)} wrong pictures, first: {wrong[0]}", exit_code=f.FALLBACK)
    if not any(answer.fault is None for _, answer in facts.answered):
        return Outcome(held=None, says="no picture was delivered", exit_code=f.ENGINE_FAILED)
    differing = [item for item in facts.differences if facts.batching == 1 or not item.within_batching]
    if differing:
        first = min(differing, key=lambda item: item.is_near)
        says = (
            f"{len(differing)} pictures differ, first: request {first.index}, seed {first.seed}, from {first.against}"
        )
        merged = facts.batching > 1 and first.is_near  # then the first is the least near: none is another picture
        return Outcome(held=False, says=says, exit_code=0 if merged else f.FALLBACK)
    batched = f", {len(facts.differences)} within one level (batching)" if facts.differences else ""
    against = "each other, by request"
    if facts.golden_answers:
        against = f"the offline run's ({facts.golden_answers} pictures), or {against}"
    return Outcome(held=True, says=f"all pictures decode, have their size and equal {against}{batched}")


def _alone(facts: Facts) -> Outcome:
    if facts.join is not None and facts.join.foreign:
        return Outcome(
            held=False, says=f"{len(facts.join.foreign)} logged requests are not ours", exit_code=INCONCLUSIVE
        )
    counted = [measured for measured in facts.measured if measured.grown is not None]
    for measured in counted:
        assert measured.grown is not None
        if measured.grown.posts != facts.sent(measured):
            says = f"{measured.phase.name}: {measured.grown.posts} requests counted, {facts.sent(measured)} sent"
            return Outcome(held=False, says=says, exit_code=INCONCLUSIVE)
    if not counted:
        logged = facts.join is not None
        return Outcome(held=True if logged else None, says="by the request log alone" if logged else "no counters")
    return Outcome(held=True, says="the server counted what was sent, and nothing else")


def _open_loop(facts: Facts) -> Outcome:
    late = [m.phase.name for m in facts.loads if queueing.GENERATOR_LATE in m.level.flags]
    if late:
        return Outcome(held=False, says=f"the generator was late: {', '.join(late)}", exit_code=INCONCLUSIVE)
    opened = [measured.level.lateness_p99_s or 0 for measured in facts.loads if measured.phase.arrivals.kind != CLOSED]
    if not opened:
        return Outcome(held=None, says="closed loop only")
    return Outcome(
        held=True, says=f"send times drawn and hashed beforehand; lateness p99 at most {max(opened) * 1e3:.1f} ms"
    )


def _warm_up(facts: Facts) -> Outcome:
    warm = [sum(answer.fault is None for answer in measured.answers) for measured in facts.warm_ups]
    if min(warm, default=0) < WARM_UPS:
        says = f"{min(warm, default=0)} warm-up answers, {WARM_UPS} are needed"
        return Outcome(held=False, says=says, exit_code=INCONCLUSIVE)
    for before, measured in pairwise(facts.measured):
        services = [answer.service_s for answer in measured.answers if answer.service_s is not None]
        is_first = phases.is_warm_up(before.phase.name) and phases.is_load(measured.phase.name)
        seen = trend.warm_up(services) if services and is_first else None
        if seen is not None and seen.still_falling:
            first = "first counted request was" if seen.falling == 1 else f"first {seen.falling} counted requests were"
            says = f"the {first} still slower than the later ones"
            return Outcome(held=False, says=says)
    return Outcome(held=True, says=f"{sum(warm)} requests before the first that counts, no trend after")


def _failures(facts: Facts) -> Outcome:
    whole = [*facts.warm_ups, *facts.loads]
    rows = sum(len(measured.phase.exchanges) for measured in whole)
    due = sum(len(measured.phase.arrivals.times_s) or len(measured.phase.exchanges) for measured in whole)
    failed = sum(answer.fault is not None for measured in whole for answer in measured.answers)
    if facts.died:
        return Outcome(held=False, says=f"the server ended; {failed} of {rows} failed", exit_code=f.ENGINE_FAILED)
    if not rows:
        return Outcome(held=None, says="no phase was finished", exit_code=f.ENGINE_FAILED)
    if failed == rows:
        return Outcome(held=False, says=f"all of {rows} requests failed", exit_code=f.ENGINE_FAILED)
    return Outcome(held=rows == due, says=f"{failed} of {rows} failed and count as misses")


def _earned(facts: Facts) -> Outcome:
    most = max((measured.level.answered for measured in facts.loads), default=0)
    earned = [f"p{rank}" for rank, needed in queueing.EARNED.items() if most >= needed]
    held = None if not earned else True
    return Outcome(held=held, says=f"{', '.join(earned) or 'none'}: the largest phase has {most} answers")


def _saturation(facts: Facts) -> Outcome:
    opened = [measured for measured in facts.loads if measured.phase.arrivals.kind != CLOSED]
    saturated = [measured.phase.name for measured in opened if queueing.SATURATED in measured.level.flags]
    if saturated:
        says = f"percentiles grow with the run's length: {', '.join(saturated)}"
        # a campaign over several rates is meant to find where it saturates
        return Outcome(held=False, says=says, exit_code=INCONCLUSIVE if len(saturated) == len(opened) else 0)
    return Outcome(held=True if opened else None, says="none saturated" if opened else "closed loop only")


def _consistency(facts: Facts) -> Outcome:
    if facts.batching > 1:
        return Outcome(held=None, says="merged requests have no service time of their own")
    told = {m.phase.name: m.level.prediction.explained for m in facts.loads if m.level.prediction is not None}
    unexplained = [name for name, explained in told.items() if explained is False]
    if unexplained:
        return Outcome(
            held=False, says=f"waiting that nobody explains: {', '.join(unexplained)}", exit_code=INCONCLUSIVE
        )
    if all(explained is None for explained in told.values()):
        return Outcome(held=None, says="too few")
    overtaken = sum(queueing.overtaken(measured.rows) for measured in facts.loads)
    return Outcome(held=True, says=f"Lindley's recursion explains p50 and p95; {overtaken} requests were overtaken")


def _clocks(facts: Facts) -> Outcome:
    for exchange, _ in facts.answered:
        times = [exchange.intended_s, exchange.sent_s, exchange.headers_s, exchange.done_s]
        known = [time for time in times if time is not None]
        if known != sorted(known):
            return Outcome(held=False, says=f"request {exchange.index}: times go back", exit_code=INCONCLUSIVE)
    if facts.join is None:
        return Outcome(held=True, says="the client's alone: one monotonic clock")
    by_id = {a.server_id: e for e, a in facts.answered if a.server_id is not None}
    for served in facts.join.pairs.values():
        own = by_id.get(served.server_id)
        if own is None or own.done_s is None or own.sent_s is None or served.elapsed_s is None:
            continue
        if served.elapsed_s > own.done_s - own.sent_s + CLOCK_S:
            says = f"request {own.index}: the server had it longer than the client waited"
            return Outcome(held=False, says=says, exit_code=INCONCLUSIVE)
    return Outcome(held=True, says="the server's spans lie inside the client's")


def _machine(facts: Facts) -> Outcome:
    shares = [m.others_share for m in facts.loads if m.others_share is not None]
    if not shares:
        return Outcome(held=None, says="others' share of the processors is unknown")
    return Outcome(
        held=max(shares) <= OTHERS_SHARE, says=f"others used up to {100 * max(shares):.0f} % of the processors"
    )


CHECKS: tuple[tuple[str, str, Callable[[Facts], Outcome]], ...] = (
    ("identity", "our own server answered", _identity),
    ("native", "the native backend served", _native),
    ("workload", "each row is one logged request, as it was asked", _workload),
    ("outputs", "every picture is the one that was asked for", _outputs),
    ("alone", "nobody else sent anything", _alone),
    ("open-loop", "requests left when they were due", _open_loop),
    ("warm-up", "the server was warm", _warm_up),
    ("failures", "failed requests count as misses", _failures),
    ("percentiles", "percentiles were earned", _earned),
    ("saturation", "the server kept up", _saturation),
    ("consistency", "arrivals and service times explain the latencies", _consistency),
    ("clocks", "the clocks agree", _clocks),
    ("machine", "the machine was ours", _machine),
)


def judge(facts: Facts) -> list[Row]:
    """Return the thirteen checks in their order."""
    rows = []
    for number, (identity, proves, look) in enumerate(CHECKS, 1):
        outcome = look(facts)
        rows.append(
            Row(
                number=number,
                id=identity,
                proves=proves,
                held=None if outcome.held is None else bool(outcome.held),
                says=outcome.says,
                exit_code=outcome.exit_code if outcome.held is False or (outcome.held is None and facts.ours) else 0,
            )
        )
    return rows


NOT_OF_SERVICE = frozenset({"open-loop", "saturation", "consistency"})
"""Checks of latencies under load: a rate that fails one has no figure, and service times stand."""


def of_service(record: Mapping[str, Any], ended: BenchError | None, where: str) -> BenchError | None:
    """Return why the service times of a load record do not count, None if they do; ``ended`` is what it ended with."""
    if record["failure"] is not None:
        return ended
    return error([Row(**row) for row in record["checks"] if row["id"] not in NOT_OF_SERVICE], where)


def error(rows: Sequence[Row], where: str) -> BenchError | None:
    """Return the error that the first check with a consequence ends the task with, None if the run counts."""
    order = (f.FALLBACK, f.ENGINE_FAILED, f.EVIDENCE_MISSING, INCONCLUSIVE)
    failed = [row for row in rows if row.exit_code]
    if not failed:
        return None
    first = min(failed, key=lambda row: order.index(row.exit_code) if row.exit_code in order else len(order))
    return ERRORS.get(first.exit_code, EvidenceMissing)(f"missing proof that {first.proves}: {first.says}", where=where)
