"""Benchmarks, from a plan to a record: one `sglang generate` launch, or sessions that serve many requests."""

from __future__ import annotations

import shlex
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from bench.engine import code, launch
from bench.engine import command as commands
from bench.errors import BenchError
from bench.fallback.expectation import DIFFUSERS, SESSION
from bench.fallback.guard import Guard
from bench.fallback.verdict import conclude
from bench.machine import locks
from bench.preflight import checks
from bench.preflight.gpus import used_now
from bench.record import campaign, names, store
from bench.run import document, traced
from bench.run import request as requests
from bench.run.document import write
from bench.run.session import LEFT_OUT, Course, Session
from bench.run.state import Launched, Run
from bench.run.stopping import Enough
from bench.run.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from bench.engine.code import Code
    from bench.engine.launch import Attempt
    from bench.fallback.facts import Traced
    from bench.fallback.finding import Finding
    from bench.process import Observer
    from bench.run.plan import Plan
    from bench.run.request import Request

    Prove = Callable[[Sequence[Path]], Traced]
    """Reads the traces of one request and returns what ran; raises BenchError if they cannot be read."""
    Score = Callable[[Run, Mapping[str, Any]], tuple[dict[str, Any], BenchError | None]]
    """Judges the fidelity of a valid run's outputs: the document, and the error of its gate (None: met)."""


PROVING_STEPS = 2
"""Denoise steps that are traced for a receipt: each runs the same kernels, but under a cache."""
MOST_STEPS = 100
"""Traced at most under a cache, where the preset leaves their number to the engine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A finished run: its record, where it is, and the error that the task ends with (None: the run counts)."""

    record: Mapping[str, Any]
    path: Path
    error: BenchError | None


def run(
    planned: Plan,
    display: Observer | None = None,
    resume: Path | None = None,
    *,
    score: Score | None = None,
    prove: Prove | None = None,
    directory: Path | None = None,
) -> Result:
    """Launch the engine under guard, as often as it takes, and return the finished run, whatever its verdict.

    ``score`` judges the fidelity of a valid run's outputs; ``prove`` reads the trace of the launch that
    ``prove_kernels`` adds.
    With ``resume``, a run directory, its requests are kept and what is missing is added. A new run is made in
    ``directory``, an empty folder, if one is given.

    Raises:
        FallbackDetected: arguments or environment show beforehand that the run would be invalid.
        UsageError: the run directory or the record cannot be written, or that run cannot be resumed by this plan.
    """
    kind = store.REFERENCE if planned.expectation.backend == DIFFUSERS else "bench"
    with ExitStack() as lock:
        if resume is not None:
            lock.enter_context(campaign.hold(resume))
        running = begin(planned, resume, kind=kind, directory=directory)
        if resume is None:
            lock.enter_context(campaign.hold(running.directory))
        try:
            return _finished(running, display, score, prove, resumed=resume is not None)
        except KeyboardInterrupt as interrupt:
            for note in _kept(running):
                interrupt.add_note(note)
            raise


def _kept(running: Run) -> list[str]:
    """Return what an interrupted run keeps, and the command that goes on or measures anew."""
    if not (running.directory / store.PARTIAL).is_file():
        nothing = f"kept: only the engine's log, in {running.directory}: no request had been counted yet"
        return [nothing, f"{campaign.TO_DO}the same command again"]
    count = len(running.requests)
    kept = f"kept: {count} request{'' if count == 1 else 's'}, {running.directory}"
    if running.kind == store.REFERENCE:
        return [kept, f"{campaign.TO_DO}the same command again: a reference is not resumed"]
    called = shlex.quote(names.called(running.directory))
    return [kept, f"{campaign.TO_DO}`invoke bench --resume {called}` goes on"]


def _finished(
    running: Run, display: Observer | None, score: Score | None, prove: Prove | None, *, resumed: bool
) -> Result:
    """Make the launches that a run still needs and write its record."""
    planned = running.planned
    enough = Enough(planned.options)
    error = None
    if resumed and (reason := enough.already(running.requests, len(running.launches))) is not None:
        # the engine failed when all had been served: there is nothing to ask another one for
        running.stopped_because = reason
    else:
        while (error := _launch(running, enough, display)) is None and not enough.of_launches(running.requests):
            pass
    if error is None and planned.options.stages:
        error = _stages(running, display)
    if error is None and planned.options.prove_kernels and prove is not None:
        error = _prove(running, display, prove)
    if error is None and score is not None:
        running.fidelity, missed = score(running, document.document(running, complete=True, failure=None))
        known, path = write(running, complete=True)
        return Result(record=known, path=path, error=missed)
    known, path = write(running, complete=error is None, failure=error)
    return Result(record=known, path=path, error=error)


def begin(
    planned: Plan,
    resume: Path | None = None,
    *,
    launches: int | None = None,
    kind: str = "bench",
    directory: Path | None = None,
) -> Run:
    """Return a run that can start: arguments, environment and machine are checked, and its directory is made.

    With ``resume``, a run directory, it goes on with what that has; ``launches`` are those of it that a campaign
    counts as finished, None for a run by itself.

    Raises:
        FallbackDetected: arguments or environment show beforehand that the run would be invalid.
        PreflightFailed: the machine lacks something that this run needs.
        UsageError: the directory cannot be made, or that run cannot be resumed by this plan.
    """
    options = planned.options
    environment = planned.resolved.environment
    if options.precheck:
        Guard(planned.expectation).precheck(planned.resolved.arguments, environment)
    situation = checks.gather(planned.engine, planned.workload, environment, planned.machine, options.output_dir)
    lines = checks.run(situation)
    if options.preflight:
        checks.refuse_failed(lines)
    gpus = tuple(gpu.uuid for gpu in used_now(situation))
    with locks.hold(gpus):
        pass  # said before anything is made; each launch takes them again
    known = code.read(planned.engine.code)
    if resume is not None:
        running = _taken_up(planned, resume, known, launches)
    else:
        name = "-".join(filter(None, (options.model, options.label)))
        directory = directory or store.new_run(kind, name, options.output_dir)
        running = Run(planned=planned, directory=directory, kind=kind, code=known)
    running.preflight = [asdict(line) for line in lines]
    running.gpus = gpus
    return running


def _taken_up(planned: Plan, directory: Path, known: Code, launches: int | None) -> Run:
    """Return the run in ``directory`` with what it has, its files checked by hash."""
    running = Run(planned=planned, directory=directory.absolute(), code=known)
    if launches is not None and (directory / store.RECORD).exists():
        (directory / store.RECORD).rename(directory / store.PARTIAL)  # cut off between its end and the campaign's
    if launches != 0:
        earlier = document.resumable(planned, known, directory, launches)
        running.launches, running.requests = earlier["launches"], earlier["requests"]
    if launches:
        write(running, complete=False, medians_only=True)  # the files of a later launch are set aside: none names them
    set_aside(directory / f"launch-{len(running.launches) + 1}")
    return running


def set_aside(folder: Path) -> None:
    """Rename what is left of a launch that no record has: it was cut off before anything of it counted."""
    if folder.exists():
        times = len(list(folder.parent.glob(f"{folder.name}-cut-off-*"))) + 1
        folder.rename(folder.with_name(f"{folder.name}-cut-off-{times}"))


def _stages(running: Run, display: Observer | None) -> BenchError | None:
    """Make a launch in which each stage waits for its device, for the stage table; return what it failed with."""
    planned = running.planned
    because = running.stopped_because
    running.staging = replace(planned.workload, stage_sync=True)

    def enough(_engine: int) -> str | None:
        return "the stage table has its requests" if len(running.staged) >= planned.options.repeats else None

    try:
        return session(running, Course(enough=enough, leaves_first_out=planned.options.leaves_first_out), display)
    finally:
        running.staging, running.stopped_because = None, because


def _prove(running: Run, display: Observer | None, prove: Prove) -> BenchError | None:
    """Make a launch with one request under the profiler, for the receipts; return what it failed with.

    No request of it is timed: the profiler slows each step several times.
    """
    planned, because, directory = running.planned, running.stopped_because, running.directory
    number = len(running.requests) + 1
    steps = steps_to_trace(planned)
    asked: list[int] = []
    failures: list[BenchError] = []

    def sampling(request: int) -> dict[str, Any]:
        asked.append(request)
        return {} if request == LEFT_OUT else traced.sampling(steps)

    def ran() -> Traced | None:
        try:
            return prove(traced.traces(directory)) if number in asked else None
        except BenchError as error:
            failures.append(error)
            return None

    course = Course(
        enough=lambda _: "one request is traced" if number in asked else None,
        is_timing=lambda _: False,
        sampling=sampling,
        traced=ran,
    )
    running.planned = traced.planned(planned, directory, stage_sync=True)
    try:
        error = session(running, course, display)
        if number in asked and not failures:
            request = directory / f"launch-{len(running.launches)}" / f"request-{number:03d}"
            running.profiled = traced.document(directory, request, steps)
        return error or next(iter(failures), None)
    finally:
        running.planned, running.stopped_because = planned, because


def steps_to_trace(planned: Plan) -> int:
    """Return how many denoise steps show which kernels run: all of them where a cache reuses some."""
    return (planned.workload.steps or MOST_STEPS) if planned.expectation.cache else PROVING_STEPS


def _launch(running: Run, enough: Enough, display: Observer | None) -> BenchError | None:
    """Make one launch, add what it gave to the run, and return what it failed with."""
    index = len(running.launches) + 1
    options = running.planned.options
    if options.in_session:
        course = Course(
            enough=lambda _: enough.of_requests(running.requests, index), leaves_first_out=options.leaves_first_out
        )
        return session(running, course, display)
    if (error := _edited(running)) is not None:
        return error
    return _add(running, _single(running, index, display))


def session(running: Run, course: Course, display: Observer | None = None) -> BenchError | None:
    """Make one launch that serves what ``course`` says; return what it failed with.

    The requests that count and the launch are added to the run, and its partial record is kept up as it goes.
    """
    if (error := _edited(running)) is not None:
        return error
    return _add(running, _session(running, len(running.launches) + 1, course, display))


def _add(running: Run, launched: Launched) -> BenchError | None:
    """Add a launch to the run; one that is doubtful takes its requests away again, and leaves those of others alone."""
    launched.set_aside()
    running.launches[launched.index - 1 :] = [document.launch(launched, running.directory)]
    if not launched.verdict.standing().counts:
        kept = running.kept()
        kept[:] = [request for request in kept if request["launch"] != launched.index]
    return launched.error


def _edited(running: Run) -> BenchError | None:
    """Return the error about code that is not what it was when the run began, None if it is."""
    now = code.read(running.code.roots)
    if names := running.code.differing(now):
        return code.changed(names).error()
    running.code = now
    return None


def _single(running: Run, index: int, display: Observer | None) -> Launched:
    """Make the canonical single launch, `sglang generate`, which serves one request."""
    planned, directory = running.planned, running.directory
    command = commands.build(planned.engine, planned.workload, directory, resolved=planned.resolved.arguments)
    outputs = directory / commands.OUTPUTS
    outputs.mkdir()
    with locks.hold(running.gpus), Watch(running.gpus) as watch:
        attempt = launch.guarded(
            command,
            guard=Guard(planned.expectation),
            log=directory / store.LOG,
            timeout_s=planned.options.timeout_s,
            display=display,
        )
    done = requests.read(directory, outputs, attempt.guard, (attempt.started, attempt.finished))
    verdict = attempt.conclude(
        [*done.findings, *watch.findings(), *code.against(running.code, attempt.guard.facts.components.values())]
    )
    if verdict.counts:
        running.requests.append(requests.document(done, directory))
    return Launched(
        index=index,
        mode="command-line",
        command=command,
        log=attempt.log,
        started=attempt.started,
        finished=attempt.finished,
        ended=attempt.ended,
        facts=attempt.guard.facts,
        verdict=verdict,
        rejected=None if verdict.counts else done,
        gpus_during=watch.document(),
        error=attempt.error(verdict),
        stage_sync=commands.synchronises_stages(planned.workload),
        profiler=planned.expectation.profile,
    )


def _session(running: Run, index: int, course: Course, display: Observer | None) -> Launched:
    """Make one launch that serves requests over pipes."""
    planned = running.planned
    directory = running.directory / f"launch-{index}"
    directory.mkdir()
    serving = _Serving(running, index, directory, course)
    partner = Session(
        directory,
        launch=index,
        first_request=len(running.kept()) + 1,
        suffix=commands.SUFFIXES[planned.workload.preset.modality],
        guard=serving.guard,
        course=course,
        tell=serving.tell,
    )
    serving.partner = partner
    with locks.hold(running.gpus), serving.watch:
        attempt = launch.guarded(
            serving.command,
            guard=serving.guard,
            log=serving.log,
            timeout_s=planned.options.timeout_s,
            display=display,
            partner=partner,
        )
    if attempt.ended.stopped_by is None:
        running.stopped_because = partner.stopped_because
    return serving.launched(attempt, partner.rejected)


class _Serving:
    """One launch that serves requests: keeps the run's partial record up with each of them."""

    def __init__(self, running: Run, index: int, directory: Path, course: Course) -> None:
        planned = running.planned
        self._running = running
        self._index = index
        self._course = course
        self._left_out: tuple[int, ...] = ()
        self._started = store.now()
        self._told: dict[str, Finding] = {}
        """What requests that count have against them, the first of each kind."""
        self.log = directory / store.LOG
        self.command = commands.build_session(
            planned.engine, running.workload(), directory, resolved=planned.resolved.arguments
        )
        self._stage_sync = commands.synchronises_stages(running.workload())
        self.guard = Guard(replace(planned.expectation, launch=SESSION))
        self.partner: Session | None = None
        self.watch = Watch(running.gpus)

    def tell(self, done: Request) -> None:
        """Take a request that has nothing against it."""
        if not self._course.counts(done.index):
            self._left_out += (done.index,)
            return
        for finding in done.findings:
            self._told.setdefault(finding.id, finding)
        running = self._running
        running.kept().append(requests.document(done, running.directory))
        running.launches[self._index - 1 :] = [document.launch(self.launched(None, None), running.directory)]
        # no statistics yet: loading scipy takes a second in which the engine would wait, and a CPU be busy
        write(running, complete=False, medians_only=True)

    def launched(self, attempt: Attempt | None, rejected: Request | None) -> Launched:
        """Return the launch as it is now; without an ``attempt`` it is still going on."""
        found = [*(self._told.values() if rejected is None else rejected.findings), *self.watch.findings()]
        if attempt is not None:
            self.guard.facts.traced = self._course.traced()
            found += code.against(self._running.code, self.guard.facts.components.values())
        verdict = conclude(self.guard, None if attempt is None else attempt.ended, found)
        error = verdict.error(self.log) if attempt is None else attempt.error(verdict)
        return Launched(
            index=self._index,
            mode="session",
            command=self.command,
            log=self.log,
            started=self._started if attempt is None else attempt.started,
            finished=store.now() if attempt is None else attempt.finished,
            ended=None if attempt is None else attempt.ended,
            facts=self.guard.facts,
            verdict=verdict,
            rejected=rejected,
            gpus_during=self.watch.document(),
            error=error,
            stage_sync=self._stage_sync,
            profiler=self._running.planned.expectation.profile,
            left_out=self._left_out,
            load_s=None if self.partner is None else self.partner.load_s,
            first_answer_s=None if self.partner is None else self.partner.first_answer_s,
        )
