"""Two arms measured in pairs of engine starts on the same devices, until the question is decided.

Both engines of a pair are started together and their requests alternate; then both are stopped, and the next pair
starts anew. So the spread between starts is part of what is measured, and what slows the machine slows both arms. Where
memory does not hold two engines, the starts of a pair follow each other. The first request of every start is left out:
it compiles and warms up. An engine that waits for its turn is frozen; the CPU time that it used nevertheless is kept.
"""

from __future__ import annotations

import shutil
import threading
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bench import redact, schema
from bench.compare import arms, calibration
from bench.compare import metric as metrics
from bench.compare.records import between
from bench.engine import launch
from bench.engine.waiting import Waiting
from bench.errors import BenchError, EngineFailed, FallbackDetected, Interrupted, UsageError
from bench.fallback.verdict import INVALID
from bench.fidelity import score
from bench.reach import changes
from bench.reach import run as reach
from bench.record import campaign, comparable, disturbance, store
from bench.run import benchmark, consistency, document
from bench.run import plan as plans
from bench.run.options import Options, restored
from bench.run.session import Course
from bench.stats import comparison, sequential
from bench.stats.pairs import fresh_seed, log_ratio, plan_orders, turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from bench.record.campaign import Campaign
    from bench.run.state import Run
    from bench.stats.comparison import Comparison
    from bench.stats.sequential import Decision

BASELINE, CANDIDATE = "baseline", "candidate"
ARM = {"A": BASELINE, "B": CANDIDATE}

KIND = "ab"
DOCUMENT = store.ARMS
REACH = "reach"
"""The folder of the traced launch."""
SCHEMA_VERSION = 2


class Display(Protocol):
    """Shows how far a comparison is; it observes the logs of both engines."""

    def observe(self, block: bytes, first_line: int) -> None:
        """Take a block of whole lines of either log."""

    def begin(self, number: int, order: str) -> None:
        """Show that a pair of starts begins."""

    def tell(self, told: str) -> None:
        """Show what a pair has told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """How two arms are measured. ``alternate`` starts the engines of a pair one after the other."""

    pairs: int = sequential.DEFAULT_MAX_PAIRS
    margin_percent: float = comparison.DEFAULT_MARGIN_PERCENT
    metric: str = metrics.DEFAULT
    alternate: bool = False
    seed: int = field(default_factory=fresh_seed)
    """Of the orders: which engine of a pair comes first."""
    prove_ran: bool | None = None
    """Whether to trace which lines of the arms' difference run; None: if an arm is a checkout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A pair that is measured: its order and the values of each arm's requests (for the time to load: of its start).

    ``waiting_cpu_percent`` is the CPU time of each engine while it waited for the other, in percent of one core; None
    where it did not wait.
    """

    order: str
    baseline: tuple[float, ...]
    candidate: tuple[float, ...]
    waiting_cpu_percent: dict[str, float | None]

    @property
    def log_ratio(self) -> float:
        """Return the log of candidate / baseline."""
        return log_ratio(self.baseline, self.candidate)


@dataclass(slots=True)
class Session:
    """A comparison that is going on: both runs and the pairs so far, in order."""

    directory: Path
    specs: dict[str, str]
    design: Design
    metric: metrics.Metric
    requests: int
    display: Display
    runs: dict[str, Run]
    campaign: Campaign
    reach: dict[str, Any] | None = None
    """Which lines that differ between the arms ran in a traced launch; None: not asked for, or nothing differs."""
    pairs: list[Pair] = field(default_factory=list)

    def plan(self, *, is_disturbed: bool = False) -> sequential.Plan:
        """Return the plan of the looks; under disturbance no size of the effect is claimed."""
        return sequential.Plan(
            max_pairs=self.design.pairs,
            margin_percent=self.design.margin_percent,
            metric=self.metric.title,
            is_disturbed=is_disturbed,
        )

    def decide(self, *, is_disturbed: bool = False) -> Decision:
        """Return the decision that the pairs so far allow."""
        return sequential.decide([pair.log_ratio for pair in self.pairs], self.plan(is_disturbed=is_disturbed))

    def take(self, order: str, waited: dict[str, Waiting]) -> bool:
        """Take the pair whose engines have just ended; return whether the session is decided or at its end."""
        number = len(self.pairs) + 1
        pair = self.pair(number, order, {name: waiting.cpu_percent for name, waiting in waited.items()})
        for run in self.runs.values():
            document.write(run, complete=False, medians_only=True)
        self.campaign.finish(f"pair {number}", {"order": order, "waiting_cpu_percent": pair.waiting_cpu_percent})
        self.pairs.append(pair)
        decision = self.decide()
        effect = decision.comparison.effect_percent
        doubt = " (measured under disturbance)" if self._is_disturbed() else ""
        self.display.tell(f"pair {number}: {self.metric.title} {effect:+.2f} % so far{doubt}; {decision.why}")
        return decision.stop

    def _is_disturbed(self) -> bool:
        """Tell whether anything disturbed a launch of the pairs so far."""
        launches = [
            {"preflight": run.preflight, "verdict": launch["verdict"]}
            for run in self.runs.values()
            for launch in run.launches
        ]
        return any(map(disturbance.of, launches))

    def pair(self, number: int, order: str, waiting_cpu_percent: dict[str, float | None]) -> Pair:
        """Return a pair whose engines have ended."""
        return Pair(
            order=order,
            baseline=self._values(BASELINE, number),
            candidate=self._values(CANDIDATE, number),
            waiting_cpu_percent=waiting_cpu_percent,
        )

    def _values(self, name: str, number: int) -> tuple[float, ...]:
        """Return the values of an arm's start."""
        launch = self.runs[name].launches[number - 1]
        requests = [request for request in self.runs[name].requests if request["launch"] == launch["index"]]
        if self.metric.name == metrics.LOAD:
            return (self.metric.of_launch(launch, requests),)
        return tuple(self.metric.of_launch(launch, [request]) for request in requests)

    def keep_finished(self) -> None:
        """Go back to the pairs that the campaign's state has: one that was cut off is measured anew."""
        self.pairs = [self.pair(number, **result) for number, result in enumerate(self.campaign.finished.values(), 1)]
        for run in self.runs.values():
            del run.launches[len(self.pairs) :]
            run.requests[:] = [request for request in run.requests if request["launch"] <= len(self.pairs)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A finished comparison: its document, where it is, both records, and what cut it off (None: nothing)."""

    document: dict[str, Any]
    path: Path
    records: Mapping[str, Mapping[str, Any]]
    error: BenchError | None


def check(design: Design) -> metrics.Metric:
    """Return what a design compares.

    Raises:
        UsageError: it cannot decide, or compares what two arms of `ab` do not have.
    """
    metric = metrics.of_engine(design.metric)
    sequential.check(sequential.Plan(max_pairs=design.pairs, margin_percent=design.margin_percent))
    return metric


def measure(
    common: Options,
    specs: dict[str, str],
    design: Design,
    *,
    display: Display,
    require: str | None = None,
    begun: Callable[[], None] = lambda: None,
) -> Result:
    """Measure baseline and candidate and return the comparison; ``common.repeats`` requests of each start count.

    ``require`` is the threshold that the outputs of the arms have to meet against each other; one is looked at anyway.
    ``begun`` is called before the first launch, when plan and machine were found in order.

    Raises:
        EngineFailed: not one pair was finished.
        BenchError: as `prepared`, or the verdict of a launch that ended everything before the first pair.
    """
    with prepared(common, specs, design, display=display, require=require, begun=begun) as session:
        return measured(session, require)


@contextmanager
def prepared(
    common: Options,
    specs: dict[str, str],
    design: Design,
    *,
    display: Display,
    require: str | None = None,
    must_run: bool = False,
    begun: Callable[[], None] = lambda: None,
) -> Iterator[Session]:
    """Yield a comparison that can be measured: all that can be refused before its first pair has been.

    ``must_run`` refuses it if no line that differs runs; ``begun`` as `measure` has it.

    Raises:
        UsageError: a SPEC or the design is wrong, or a request has no value of the metric.
        Inconclusive: no line that differs runs, and one must.
        BenchError: what a plan raises, or the traced launch does not count.
    """
    metric = check(design)
    if metric.name == metrics.LOAD and not design.alternate:
        display.tell("the engines of a pair start one after the other: two that load at once slow each other down")
        design = replace(design, alternate=True)
    common = replace(common, stage_sync=metric.is_stage)
    planned = {name: plans.plan(arms.options_of(spec, common), in_session=True) for name, spec in specs.items()}
    runs = {name: benchmark.begin(settled, directory=Path(name)) for name, settled in planned.items()}
    begun()
    directory = store.new_run("ab", "-".join(filter(None, (common.model, common.label))), common.output_dir)
    asked = {
        "options": common.document(),
        "arms": {name: redact.text(spec) for name, spec in specs.items()},
        "design": asdict(design),
        "require": require,
    }
    with campaign.begin(KIND, directory, asked) as state:
        for name, run in runs.items():
            run.directory = directory / name
            run.directory.mkdir()
        session = Session(
            directory=directory, specs=specs, design=design, metric=metric, requests=common.repeats, display=display,
            runs=runs, campaign=state,
        )  # fmt: skip
        session.reach = _reach(session)
        if must_run and session.reach is not None:
            reach.refuse_what_never_ran(session.reach, directory / REACH)
        yield session


def resume(directory: Path, given: Mapping[str, str], now: Options, *, display: Display) -> Result:
    """Measure the pairs that a comparison lacks which was cut off, in the orders that it began with.

    ``given`` are the arms' SPECs, empty where they are as before; one that held a secret, or that chooses the code that
    is run, has to be given again. Of ``now`` the time limit and what is required of the outputs count.

    Raises:
        UsageError: it has ended or is going on elsewhere; an arm, its engine or this machine has changed.
        RecordEdited: a file of it has changed.
        BenchError: as `measure`.
    """
    with campaign.resume(directory, KIND) as state:
        design = Design(**state.asked["design"])
        common = restored(Options.from_document(state.asked["options"]), now)
        specs = {name: same_arm(name, spec, given[name], common) for name, spec in state.asked["arms"].items()}
        finished = len(state.finished)
        planned = {name: plans.plan(arms.options_of(spec, common), in_session=True) for name, spec in specs.items()}
        session = Session(
            directory=state.folder, specs=specs, design=design, metric=metrics.named(design.metric),
            requests=common.repeats, display=display, campaign=state,
            runs={
                name: benchmark.begin(settled, state.folder / name, launches=finished)
                for name, settled in planned.items()
            },
        )  # fmt: skip
        session.keep_finished()
        display.tell(f"{finished} of {design.pairs} pairs were finished before")
        session.reach = _reach(session)
        return measured(session, now.require or state.asked["require"])


def same_arm(name: str, recorded: str, given: str, common: Options) -> str:
    """Return the SPEC of an arm that goes on.

    Raises:
        UsageError: another one is given, or it holds what is not taken from a record: a secret, or which code runs.
    """
    if given:
        if redact.text(given) != recorded:
            raise UsageError(f"the {name} was {recorded!r} when this began", todo="leave the arms out, or begin anew")
        return given
    if redact.HIDDEN in recorded:
        raise UsageError(f"the {name} holds a secret, which was not kept: {recorded!r}", todo=f"give --{name} again")
    restored(arms.options_of(recorded, common), common)
    return recorded


def measured(session: Session, require: str | None = None) -> Result:
    """Measure the pairs that are missing and write the comparison, also if this is interrupted."""
    try:
        error = _pairs(session)
    except KeyboardInterrupt:
        if session.campaign.finished:
            session.keep_finished()
            what = f"interrupted after {len(session.pairs)} of {session.design.pairs} pairs"
            with suppress(BenchError):
                _finish(session, Interrupted(what), require)
        raise
    return _finish(session, error, require)


def _reach(session: Session) -> dict[str, Any] | None:
    """Trace one launch of the candidate, whose times count nowhere, and return which lines of the difference ran.

    Raises:
        BenchError: the traced launch does not count.
    """
    planned = {name: run.planned for name, run in session.runs.items()}
    engines = (planned[BASELINE].engine, planned[CANDIDATE].engine)
    wanted = session.design.prove_ran
    if wanted is False or (wanted is None and all(engine.source is None for engine in engines)):
        return None
    folder = session.directory / REACH
    if (folder / reach.DOCUMENT).is_file():
        known: dict[str, Any] = schema.read(folder / reach.DOCUMENT)
        schema.check(known, "reach-record", folder / reach.DOCUMENT)
        return known
    found = changes.between(*engines)
    if not found:
        return None
    shutil.rmtree(folder, ignore_errors=True)  # half a trace: it was cut off
    folder.mkdir()
    question = reach.Question(
        changes=found,
        against={"base": f"{BASELINE}: {engines[0].name}", "head": f"{CANDIDATE}: {engines[1].name}"},
        metric=session.metric.name,
        base=lambda: nullcontext((planned[BASELINE].options, Path("/"))),
    )
    session.display.tell("one untimed launch first, under line tracing: do the changed lines run?")
    known = reach.measure(planned[CANDIDATE].options, question, folder, session.display)
    session.display.tell(reach.sentence(known))
    return known


def _pairs(session: Session) -> BenchError | None:
    """Measure pairs until the session is decided or one fails; return what failed."""
    if session.pairs and session.decide().stop:
        return None
    orders = plan_orders(session.design.pairs, seed=session.design.seed)
    for number, order in enumerate(orders, 1):
        if number <= len(session.pairs):
            continue
        first, second = (ARM[letter] for letter in order)
        session.display.begin(number, f"{first} first, then {second}")
        waited = {name: Waiting() for name in ARM.values()}
        error = _in_turn(session, order) if session.design.alternate else _together(session, order, waited)
        if error is not None:
            return error
        if session.take(order, waited):
            break
    return None


def _in_turn(session: Session, order: str) -> BenchError | None:
    """Start the engines of a pair one after the other."""
    for letter in order:
        served = 0

        def enough(_engine: int) -> str | None:
            nonlocal served
            served += 1  # asked once before the first request
            return f"{session.requests} request(s) a start" if served > session.requests + 1 else None

        course = Course(enough=enough)
        run = session.runs[ARM[letter]]
        if (error := _placed(benchmark.session(run, course, session.display), run.directory)) is not None:
            return error
    return None


def _placed(error: BenchError | None, arm: Path) -> BenchError | None:
    """Return an arm's error with the arm's folder: what a guard stops at names a line of the log and not whose."""
    if error is not None and f"{arm}/" not in f"{error.where}/":
        error.where = "\n         ".join(filter(None, (error.where, str(arm))))
    return error


class _Turns:
    """Lets the requests of a pair's two engines, each in a thread of its own, alternate."""

    def __init__(self, order: str, requests: int, waited: dict[str, Waiting]) -> None:
        self._waited = waited
        # the first round does not count
        self._schedule = [ARM[letter] for letter in order + turns(order, requests)]
        self._done = 0
        self._asked: str | None = None
        self._over: str | None = None
        self._changed = threading.Condition()

    def enough(self, name: str, engine: int) -> str | None:
        """Take what this arm has finished, wait for its next turn, and return None; or why it has no further turn.

        The engine is frozen before the other one is asked. None leaves before the last turn: its end would disturb.
        """
        with self._changed:
            following = self._schedule[self._done + (self._asked == name) :][:1]
        with self._waited[name].frozen(engine) if following not in ([], [name]) else nullcontext(), self._changed:
            if self._asked == name:
                self._asked = None
                self._done += 1
                self._changed.notify_all()
            while self._over is None and self._done < len(self._schedule):
                if self._asked is None and self._schedule[self._done] == name:
                    self._asked = name
                    return None
                self._changed.wait()
            return self._over or "the pair is measured"

    def leave(self) -> None:
        """End the alternation: an arm is gone."""
        with self._changed:
            self._over = self._over or "the other arm is gone"
            self._changed.notify_all()


def _together(session: Session, order: str, waited: dict[str, Waiting]) -> BenchError | None:
    """Start the engines of a pair at once and let their requests alternate."""
    alternation = _Turns(order, session.requests, waited)
    errors: dict[str, BenchError | None] = {}
    broken: list[BaseException] = []

    # an interrupted join marks a thread as ended that still runs (CPython 3.11), so each says itself that it has
    ended: list[threading.Event] = []

    def serve(name: str, over: threading.Event) -> None:
        try:
            course = Course(enough=lambda engine: alternation.enough(name, engine))
            run = session.runs[name]
            errors[name] = _placed(benchmark.session(run, course, session.display), run.directory)
        except BenchError as error:
            errors[name] = error
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits for this one
            broken.append(error)
        finally:
            alternation.leave()
            over.set()

    try:
        for letter in order:
            over = threading.Event()
            threading.Thread(target=serve, args=(ARM[letter], over), daemon=True).start()
            ended.append(over)
        while not all(event.wait(0.2) for event in ended):
            pass  # so that Ctrl-C is heard
    except KeyboardInterrupt:
        while not all(event.is_set() for event in ended):
            with suppress(KeyboardInterrupt):  # a second one would leave a thread that adds its launch to the record
                launch.stop_all()
                all(event.wait(0.2) for event in ended)
        raise
    if broken:
        raise broken[0]
    return next((error for error in errors.values() if error is not None), None)


def _concluded(session: Session, records: Mapping[str, Mapping[str, Any]]) -> tuple[Comparison, str]:
    """Return the comparison of the pairs and why the session ended; one pair alone rests on the calibrated spread.

    "Same" says nothing about a change that never ran where it was measured.
    """
    is_disturbed = bool(disturbance.between([records[BASELINE]], [records[CANDIDATE]]))
    decision = session.decide(is_disturbed=is_disturbed)
    if len(session.pairs) > 1:
        compared = decision.comparison
        if session.reach is not None and (said := reach.unreached(session.reach, compared.verdict)) is not None:
            compared = replace(
                compared, verdict=comparison.INCONCLUSIVE, reason=comparison.sentences(said, compared.reason)
            )
        return compared, decision.why
    rounds = [
        log_ratio([before], [after])
        for before, after in zip(session.pairs[0].baseline, session.pairs[0].candidate, strict=True)
    ]
    known = calibration.noise(records[BASELINE], session.metric.name)
    plan = session.plan(is_disturbed=is_disturbed)
    compared = sequential.one_pair(session.pairs[0].log_ratio, rounds, plan, known)
    return compared, "the pair is measured" if session.design.pairs == 1 else f"1 of {session.design.pairs} pairs"


def _finish(session: Session, error: BenchError | None, require: str | None) -> Result:
    """Write both records and the comparison of the pairs that are whole.

    Raises:
        BenchError: no pair is whole, or an arm turned out not to count when it ended, and so do its times.
    """
    # an arm whose request waited for its turn when the other one failed is valid and has no numbers: no record
    records = {
        name: document.document(run, complete=error is None, failure=error)
        for name, run in session.runs.items()
        if run.requests or any(launch["verdict"]["outcome"] == INVALID for launch in run.launches)
    }
    if not session.pairs or any(known["timings"] is None for known in records.values()):
        for name, known in records.items():
            document.save(session.runs[name], known)
        session.campaign.end()
        raise error or EngineFailed("no pair was finished", where=session.directory)
    compared, why = _concluded(session, records)
    outputs = between(*((records[name], session.directory / name) for name in (BASELINE, CANDIDATE)))
    written = redact.document(
        {
            "schema": "ab-record",
            "schema_version": SCHEMA_VERSION,
            "methodology": store.METHODOLOGY,
            "id": session.directory.name,
            "complete": error is None,
            "failure": None if error is None else {"exit_code": error.exit_code, "what": error.what},
            "together": not session.design.alternate,
            "seed": session.design.seed,
            "requests_per_start": session.requests,
            "metric": session.metric.name,
            "unit": session.metric.unit,
            "arms": {
                name: {"spec": spec, "record": f"{name}/{store.RECORD if error is None else store.PARTIAL}"}
                for name, spec in session.specs.items()
            },
            "differences": comparable.differences(records[BASELINE], records[CANDIDATE]),
            "pairs": [asdict(pair) for pair in session.pairs],
            "why": why,
            "reach": session.reach,
            "comparison": comparison.to_document(compared),
            "quality": score.compared(outputs, compared.verdict, require),
        }
    )
    path = session.directory / DOCUMENT
    # of a comparison that was cut off, the one so far is replaced
    schema.write(written, "ab-record", path, replace=session.campaign.resumed)
    for name, known in records.items():
        document.save(session.runs[name], known)
    if error is None or error.exit_code == FallbackDetected.exit_code:
        session.campaign.end()
    whole = {name: consistency.of_launches(known, len(session.pairs)) for name, known in records.items()}
    return Result(document=written, path=path, records=whole, error=error)
