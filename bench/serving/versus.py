"""Two servers under the same load, in pairs of starts, until the difference of their service times is decided.

Both servers of a pair are started together. Each block of load is put on one and then on the other, in turns that
mirror each other; the one that waits has answered everything and is frozen. Both get the same arrivals and seeds, at
the same absolute rates, and a request is compared with the one of the same place in the trace.
"""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from bench.compare.ab import ARM, BASELINE, CANDIDATE
from bench.engine.waiting import Waiting
from bench.errors import BenchError, Interrupted
from bench.record import disturbance, phases, store
from bench.run import benchmark
from bench.run.document import refuse_gone
from bench.serving import arrivals, batching, checks, outputs, queueing, review
from bench.serving import run as campaigns
from bench.serving.options import SHARES
from bench.serving.run import Finished
from bench.stats import comparison, sequential
from bench.stats.pairs import fresh_seed, plan_orders

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from bench.compare.ab import Display
    from bench.record.campaign import Campaign as State
    from bench.serving.arrivals import Arrivals
    from bench.serving.checks import Measured
    from bench.serving.client import Exchange
    from bench.serving.local import Hosted
    from bench.serving.options import LoadOptions
    from bench.stats.sequential import Decision

CLIENTS = 4
BUSY = f"closed-{CLIENTS}"
"""The phase that capacity is measured in: enough clients that the server is never idle."""

SERVICE, CAPACITY = "service time", "time per request at capacity"


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """How two servers are compared."""

    pairs: int = sequential.DEFAULT_MAX_PAIRS
    margin_percent: float = comparison.DEFAULT_MARGIN_PERCENT
    seed: int = field(default_factory=fresh_seed)
    """Of the orders: which server of a pair comes first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A pair that is measured. ``service_s`` has each arm's unloaded service times by their place in the trace.

    ``measured`` are each arm's phases, ``waiting_cpu_percent`` the CPU time that each used while it was frozen, in
    percent of one core.
    """

    order: str
    service_s: Mapping[str, tuple[float, ...]]
    measured: Mapping[str, Mapping[str, Measured]]
    finished: Mapping[str, Finished]
    waiting_cpu_percent: Mapping[str, float | None]

    @property
    def service(self) -> float:
        """The median log ratio, candidate to baseline, of the service times of requests of the same place."""
        pairs = zip(self.service_s[BASELINE], self.service_s[CANDIDATE], strict=True)
        return float(np.median([math.log(candidate / baseline) for baseline, candidate in pairs]))

    @property
    def capacity(self) -> float:
        """The log ratio, candidate to baseline, of the seconds that a request takes a server that is never idle."""
        one, other = (self.measured[name][BUSY].level.achieved_hz for name in (BASELINE, CANDIDATE))
        return math.log(one / other)


@dataclass(slots=True)
class Session:
    """A comparison that is going on. Rates and SLO are settled by the baseline's first start, for all pairs."""

    options: LoadOptions
    design: Design
    host: Callable[[str, Path], Hosted]
    """Makes the server of an arm, by the arm's name, that writes into a directory."""
    state: State
    display: Display
    pairs: list[Pair] = field(default_factory=list)
    rates_hz: tuple[float, ...] = ()
    slo_s: float | None = None

    @property
    def directory(self) -> Path:
        """Where the pairs are."""
        return self.state.folder

    def decide(self, metric: str = SERVICE) -> Decision:
        """Return what the pairs so far decide."""
        ratios = [pair.service if metric == SERVICE else pair.capacity for pair in self.pairs]
        plan = sequential.Plan(
            max_pairs=self.design.pairs,
            margin_percent=self.design.margin_percent,
            metric=metric,
            is_disturbed=bool(self.disturbed()),
        )
        return sequential.decide(ratios, plan)

    def disturbed(self) -> dict[str, tuple[str, ...]]:
        """Return what disturbed the arms in the pairs so far, as `bench.record.disturbance.between`."""
        return disturbance.between(
            *([pair.finished[name].record for pair in self.pairs] for name in (BASELINE, CANDIDATE))
        )

    def settle(self, baseline: Iterable[Measured]) -> None:
        """Settle rates and SLO, unless an earlier pair did."""
        if self.slo_s is None:
            levels = {measured.phase.name: measured.level for measured in baseline}
            self.slo_s = self.options.slo_s or campaigns.SLO_TIMES * float(levels[batching.ALONE].mean_s or 1.0)
            capacity_hz = levels[BUSY].achieved_hz
            rates = tuple(share * capacity_hz for share in SHARES)
            self.rates_hz = rates if self.options.rate_hz is None else (self.options.rate_hz,)

    def blocks(self, number: int, arms: Mapping[str, Hosted]) -> Iterator[tuple[str, Arrivals]]:
        """Yield the blocks of a pair; the arrivals at a rate are drawn anew for each pair, the same for both arms."""
        duration_s = self.options.duration_s
        yield phases.WARM, campaigns.warm_up()
        yield batching.ALONE, arrivals.closed(1, duration_s)
        yield BUSY, arrivals.closed(CLIENTS, duration_s)
        self.settle(arms[BASELINE].campaign.measured)
        for arm in arms.values():
            arm.campaign.slo_s = self.slo_s
        for rate_hz in self.rates_hz:
            seed = self.options.arrival_seed + number - 1
            yield rate_name(rate_hz), arrivals.poisson(rate_hz, duration_s, seed)

    def keep_finished(self) -> None:
        """Take the pairs that the campaign's state has from their records: one that was cut off is measured anew.

        Raises:
            RecordEdited: one of them was edited.
            UsageError: a file that one of them rests on is gone.
        """
        for number, result in enumerate(self.state.finished.values(), 1):
            places = {name: self.directory / f"pair-{number}" / name for name in ARM.values()}
            reviews = {name: review.read(place) for name, place in places.items()}
            for name, reviewed in reviews.items():
                refuse_gone(reviewed, places[name])
            records = {name: reviewed.record for name, reviewed in reviews.items()}
            measured = {
                name: {one.phase.name: one for one in review.measured(record, review.rows(record, places[name]))}
                for name, record in records.items()
            }
            finished = {
                name: Finished(record, places[name] / store.LOAD_RECORD, None) for name, record in records.items()
            }
            self.pairs.append(Pair(service_s=by_arrival(measured), measured=measured, finished=finished, **result))
            self.settle(measured[BASELINE].values())


def check(design: Design) -> None:
    """Raise UsageError for a design that cannot decide."""
    sequential.check(sequential.Plan(max_pairs=design.pairs, margin_percent=design.margin_percent))


def rate_name(rate_hz: float) -> str:
    """Return the name of the phase at a rate."""
    return f"{rate_hz:.4g}/s"


def measure(session: Session) -> BenchError | None:
    """Measure pairs of starts until the service time is decided; return what cut it off, None if nothing did."""
    orders = plan_orders(session.design.pairs, seed=session.design.seed)
    for number, order in enumerate(orders, 1):
        if number < len(session.pairs):
            continue
        if number > len(session.pairs) and (error := _measured(session, number, order)) is not None:
            return error
        decision = session.decide()
        effect = decision.comparison.effect_percent
        doubt = " (measured under disturbance)" if session.disturbed() else ""
        session.display.tell(f"pair {number}: {SERVICE} {effect:+.2f} % so far{doubt}; {decision.why}")
        if decision.stop:
            break
    return None


def _measured(session: Session, number: int, order: str) -> BenchError | None:
    """Measure one pair and keep it; return what cut it off or makes it count for nothing."""
    first, second = (ARM[letter] for letter in order)
    session.display.begin(number, f"{first} first, then {second}")
    try:
        error = _pair(session, number, order)
    except BenchError as failed:
        error = failed
    except KeyboardInterrupt:
        error = Interrupted("")
    if not isinstance(error, Interrupted):
        return error
    what = f"interrupted after {len(session.pairs)} of {session.design.pairs} pairs"
    return Interrupted(what, where=session.directory, todo=session.state.way_on())


def _pair(session: Session, number: int, order: str) -> BenchError | None:
    """Measure one pair and keep it; return what makes it count for nothing."""
    folder = session.directory / f"pair-{number}"
    benchmark.set_aside(folder)
    arms: dict[str, Hosted] = {}
    for name in (ARM[letter] for letter in order):
        (folder / name).mkdir(parents=True)
        arms[name] = session.host(name, folder / name)
    waited = {name: Waiting() for name in arms}
    with ExitStack() as stack:
        for arm in arms.values():
            stack.callback(arm.stop)
            arm.start()
        for arm in arms.values():
            stack.enter_context(arm)
        _load(session, number, arms, waited)
    finished = {name: arm.finish() for name, arm in arms.items()}
    for record, path, ended in finished.values():
        if (error := checks.of_service(record, ended, str(path.parent))) is not None:
            return error
    measured = {name: {one.phase.name: one for one in arm.campaign.measured} for name, arm in arms.items()}
    waiting_cpu_percent = {name: waiting.cpu_percent for name, waiting in waited.items()}
    session.state.finish(f"pair {number}", {"order": order, "waiting_cpu_percent": waiting_cpu_percent})
    session.pairs.append(
        Pair(
            order=order,
            service_s=by_arrival(measured),
            measured=measured,
            finished=finished,
            waiting_cpu_percent=waiting_cpu_percent,
        )
    )
    return None


def _load(session: Session, number: int, arms: Mapping[str, Hosted], waited: Mapping[str, Waiting]) -> None:
    """Put each block on both servers, the other one frozen; what ends an arm's load early is kept in its campaign."""
    names = list(arms)
    for block, (name, wanted) in enumerate(session.blocks(number, arms)):
        for loaded, waiting in (names, names[::-1]) if block % 2 == 0 else (names[::-1], names):
            arm = arms[loaded]
            try:
                with arms[waiting].frozen(waited[waiting]):
                    campaigns.measure(arm.campaign, arm.server, name, wanted)
            except BenchError as error:
                arm.campaign.failure = error
            except KeyboardInterrupt:
                for one in arms.values():
                    one.campaign.failure = Interrupted("interrupted: what was measured until then is kept")
            if arm.campaign.failure is not None or not arm.server.alive() or not arm.campaign.measured[-1].rows:
                return


def by_arrival(measured: Mapping[str, Mapping[str, Measured]]) -> dict[str, tuple[float, ...]]:
    """Return the unloaded service times of the places in the trace that both arms answered."""
    services = [
        [None if answer.fault else answer.service_s for answer in measured[name][batching.ALONE].answers]
        for name in (BASELINE, CANDIDATE)
    ]
    both = [(one, other) for one, other in zip(*services, strict=False) if one is not None and other is not None]
    return {BASELINE: tuple(one for one, _ in both), CANDIDATE: tuple(other for _, other in both)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """One rate over the pairs: for each arm how many held the SLO, and the medians of its figures, seconds.

    A pair whose generator was late at this rate is in neither.
    """

    rate_hz: float
    held: Mapping[str, int]
    known: Mapping[str, int]
    p50_s: Mapping[str, float | None]
    p95_s: Mapping[str, float | None]
    goodput: Mapping[str, float | None]


def rates(session: Session) -> list[Rate]:
    """Return what each arm did at each rate, from the lowest."""
    result = []
    for rate_hz in sorted(session.rates_hz):
        levels = {
            name: [
                pair.measured[name][rate_name(rate_hz)].level
                for pair in session.pairs
                if queueing.GENERATOR_LATE not in pair.measured[name][rate_name(rate_hz)].level.flags
            ]
            for name in ARM.values()
        }
        result.append(
            Rate(
                rate_hz=rate_hz,
                held={name: sum(map(queueing.holds, known)) for name, known in levels.items()},
                known={name: len(known) for name, known in levels.items()},
                p50_s={name: _median([level.p50_s for level in known]) for name, known in levels.items()},
                p95_s={name: _median([level.p95_s for level in known]) for name, known in levels.items()},
                goodput={name: _median([level.goodput for level in known]) for name, known in levels.items()},
            )
        )
    return result


def _median(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known and len(known) == len(values) else None


def highest_rate(found: list[Rate], name: str) -> float | None:
    """Return the highest rate that an arm held in every pair that tells, as all lower ones; None: not the lowest.

    A pair does not tell of a rate at which its generator was late.
    """
    highest = None
    for rate in found:
        if not rate.known[name] or rate.held[name] < rate.known[name]:
            break
        highest = rate.rate_hz
    return highest


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """The arms' pictures of the same seeds: how many were compared, equal in all pixels, and how far the others are.

    How far is None where none differs, and where one does of which only its hash is left.
    """

    compared: int
    equal: int
    max_levels: int | None
    worst_psnr_db: float | None


def pictures(session: Session) -> Pictures:
    """Return how alike the arms' pictures are, each seed once."""
    sides: list[dict[tuple[int, ...], tuple[tuple[str, ...], Exchange]]] = []
    for name in (BASELINE, CANDIDATE):
        known: dict[tuple[int, ...], tuple[tuple[str, ...], Exchange]] = {}
        for pair in session.pairs:
            for exchange, answer in pair.measured[name][batching.ALONE].answered:
                if answer.fault is None:
                    asked = exchange.request
                    first = known.setdefault((asked.seed, asked.width, asked.height), (answer.pixels_sha256, exchange))
                    if first[1].body is None and exchange.body is not None and first[0] == answer.pixels_sha256:
                        known[asked.seed, asked.width, asked.height] = first[0], exchange
        sides.append(known)
    both = sides[0].keys() & sides[1].keys()
    unlike = [key for key in both if sides[0][key][0] != sides[1][key][0]]
    bodies = [(sides[0][key][1], sides[1][key][1]) for key in unlike]
    # of pairs that were finished before an interruption only hashes are left
    is_whole = all(one.body is not None for both in bodies for one in both)
    alike = [outputs.similarity_of(*both) for both in bodies] if is_whole else []
    return Pictures(
        compared=len(both),
        equal=len(both) - len(unlike),
        max_levels=max((one.max_levels for one in alike if one.max_levels is not None), default=None),
        worst_psnr_db=min((one.psnr_db for one in alike if one.psnr_db is not None), default=None),
    )
