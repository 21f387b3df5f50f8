"""Benchmarks, from a plan to a record: one `sglang generate` launch, or sessions that serve many requests."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from bench.engine import command as commands
from bench.engine import launch
from bench.errors import BenchError, FallbackDetected, InvalidPerfDump, TimedOut
from bench.fallback.guard import Guard
from bench.fallback.verdict import conclude
from bench.machine import locks
from bench.preflight import checks
from bench.preflight.gpus import used_now
from bench.record import store
from bench.run import document
from bench.run import request as requests
from bench.run.session import Session
from bench.run.stopping import Enough
from bench.run.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from pathlib import Path

    from bench.engine.command import Command
    from bench.fallback.facts import Facts
    from bench.fallback.finding import Finding
    from bench.fallback.verdict import Verdict
    from bench.process import Ended, Observer
    from bench.run.plan import Plan
    from bench.run.request import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Launched:
    """One launch that has ended, or of which this is known so far (``ended`` None)."""

    index: int
    mode: str
    log: Path
    started: datetime
    finished: datetime
    ended: Ended | None
    command: Command
    facts: Facts
    verdict: Verdict
    rejected: Request | None
    gpus_during: list[dict[str, Any]]
    error: BenchError | None


@dataclass(slots=True)
class Run:
    """A run that is going on: its launches and the documents of the requests that count."""

    planned: Plan
    directory: Path
    launches: list[dict[str, Any]] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    stopped_because: str | None = None
    kind: str = "bench"
    profiled: dict[str, Any] | None = None
    quality: dict[str, Any] | None = None
    preflight: list[dict[str, Any]] = field(default_factory=list)
    gpus: tuple[str, ...] = ()
    """UUIDs of the GPUs that are watched during each launch."""

    def write(
        self, *, complete: bool, failure: BenchError | None = None, medians_only: bool = False
    ) -> tuple[dict[str, Any], Path]:
        """Write the record of what is known now and return it and its path."""
        known = document.document(self, complete=complete, failure=failure, medians_only=medians_only)
        writer = store.write if complete or not self.requests else store.write_partial
        return known, writer(known, self.directory)


class Score(Protocol):
    """Judges the fidelity of a valid run's outputs: the document, and the error of its gate (None: met)."""

    def __call__(self, run: Run, record: Mapping[str, Any], /) -> tuple[dict[str, Any], BenchError | None]:
        """Return the document and the error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A finished run: its record, where it is, and the error that the task ends with (None: the run counts)."""

    record: dict[str, Any]
    path: Path
    error: BenchError | None


def run(
    planned: Plan,
    display: Observer | None = None,
    resume: Path | None = None,
    *,
    score: Score | None = None,
) -> Result:
    """Launch the engine under guard, as often as it takes, and return the finished run, whatever its verdict.

    ``score`` judges the fidelity of a valid run's outputs.
    With ``resume``, a run directory, its requests are kept and what is missing is added.

    Raises:
        FallbackDetected: arguments or environment show beforehand that the run would be invalid.
        UsageError: the run directory or the record cannot be written, or that run cannot be resumed by this plan.
    """
    running = begin(planned, resume)
    enough = Enough(planned.options)
    error = None
    if resume is not None and (reason := enough.already(running.requests, len(running.launches))) is not None:
        # the engine failed when all had been served: there is nothing to ask another one for
        running.stopped_because = reason
    else:
        while (error := _launch(running, enough, display)) is None and not enough.of_launches(running.requests):
            pass
    if error is None and score is not None:
        running.quality, missed = score(running, document.document(running, complete=True, failure=None))
        known, path = running.write(complete=True)
        return Result(record=known, path=path, error=missed)
    known, path = running.write(complete=error is None, failure=error)
    return Result(record=known, path=path, error=error)


def begin(planned: Plan, resume: Path | None = None, *, kind: str = "bench", directory: Path | None = None) -> Run:
    """Return a run that can start: arguments, environment and machine are checked, and its directory is made.

    Raises:
        FallbackDetected: arguments or environment show beforehand that the run would be invalid.
        PreflightFailed: the machine lacks something that this run needs.
        UsageError: the directory cannot be made, or that run cannot be resumed by this plan.
    """
    options = planned.options
    environment = commands.launch_environment(planned.engine, planned.workload)
    if options.precheck:
        Guard(planned.expectation).precheck(commands.arguments(planned.engine, planned.workload), environment)
    situation = checks.gather(planned.engine, planned.workload, environment, planned.machine, options.output_dir)
    lines = checks.run(situation)
    if options.preflight:
        checks.refuse_failed(lines)
    gpus = tuple(gpu.uuid for gpu in used_now(situation))
    with locks.hold(gpus):
        pass  # said before anything is made; each launch takes them again
    if resume is not None:
        running = _taken_up(planned, resume)
    else:
        name = "-".join(filter(None, (options.model, options.label)))
        running = Run(planned=planned, directory=directory or store.new_run(kind, name, options.output_dir), kind=kind)
    running.preflight = [asdict(line) for line in lines]
    running.gpus = gpus
    return running


def _taken_up(planned: Plan, directory: Path) -> Run:
    """Return the run in ``directory`` with what it has, its files checked by hash."""
    earlier = document.resumable(planned, directory)
    return Run(
        planned=planned, directory=directory.absolute(), launches=earlier["launches"], requests=earlier["requests"]
    )


def _launch(running: Run, enough: Enough, display: Observer | None) -> BenchError | None:
    """Make one launch, add what it gave to the run, and return what it failed with."""
    index = len(running.launches) + 1
    if running.planned.options.in_session:
        return session(running, lambda: enough.of_requests(running.requests, index), display)
    return _add(running, _single(running, index, display))


def session(
    running: Run,
    enough: Callable[[], str | None],
    display: Observer | None = None,
    *,
    sampling: Callable[[int], Mapping[str, Any]] = lambda _: {},
    is_timing: Callable[[int], bool] = lambda _: True,
) -> BenchError | None:
    """Make one launch that serves requests until ``enough`` gives a reason to stop; return what it failed with.

    The requests that count and the launch are added to the run, and its partial record is kept up as it goes.
    ``sampling`` gives what is different for a request (by number); one that is no timing is not added.
    """
    index = len(running.launches) + 1
    return _add(running, _session(running, index, enough, display, sampling=sampling, is_timing=is_timing))


def _add(running: Run, launched: Launched) -> BenchError | None:
    """Add a launch to the run; one that is doubtful takes its requests away again, and leaves those of others alone."""
    entry = document.launch(launched, running.directory)
    running.launches[launched.index - 1 :] = [entry]
    if not document.stands(entry["verdict"]):
        running.requests = [request for request in running.requests if request["launch"] != launched.index]
    return launched.error


def _single(running: Run, index: int, display: Observer | None) -> Launched:
    """Make the canonical single launch, `sglang generate`, which serves one request."""
    planned, directory = running.planned, running.directory
    guard = Guard(planned.expectation)
    command = commands.build(planned.engine, planned.workload, directory)
    (directory / commands.OUTPUTS).mkdir()
    log = directory / store.LOG
    commands.write_files(command)
    started, ended, stopped = store.now(), None, None
    with locks.hold(running.gpus), Watch(running.gpus) as watch:
        try:
            ended = launch.launch(command, guard=guard, log=log, timeout_s=planned.options.timeout_s, display=display)
        except BenchError as error:
            stopped = error
    finished = store.now()
    done = requests.read(directory, directory / commands.OUTPUTS, planned.expectation, (started, finished))
    verdict = conclude(
        guard,
        exit_code=None if ended is None else ended.exit_code,
        timed_out=isinstance(stopped, TimedOut),
        dump=done.dump if isinstance(done.dump, InvalidPerfDump) else None,
        requests=done.findings,
        observed=watch.findings(),
    )
    if verdict.counts and done.counts:
        running.requests.append(requests.document(done, directory))
    return Launched(
        index=index,
        mode="command-line",
        log=log,
        started=started,
        finished=finished,
        ended=ended,
        command=command,
        facts=guard.facts,
        verdict=verdict,
        rejected=None if verdict.counts else done,
        gpus_during=watch.document(),
        error=stopped or verdict.error(log),
    )


def _session(
    running: Run,
    index: int,
    enough: Callable[[], str | None],
    display: Observer | None,
    *,
    sampling: Callable[[int], Mapping[str, Any]],
    is_timing: Callable[[int], bool],
) -> Launched:
    planned = running.planned
    directory = running.directory / f"launch-{index}"
    directory.mkdir()
    guard, log = Guard(planned.expectation), directory / store.LOG
    command = commands.build_session(planned.engine, planned.workload, directory)
    started, watch = store.now(), Watch(running.gpus)
    told: dict[str, Finding] = {}
    """What requests that count have against them, the first of each kind."""

    def launched(ended: Ended | None, error: BenchError | None, rejected: Request | None = None) -> Launched:
        verdict = conclude(
            guard,
            exit_code=None if ended is None else ended.exit_code,
            timed_out=isinstance(error, TimedOut),
            failed=error,
            requests=tuple(told.values()) if rejected is None else rejected.findings,
            observed=watch.findings(),
        )
        return Launched(
            index=index, mode="session", log=log, started=started, finished=store.now(), ended=ended,
            command=command, facts=guard.facts, verdict=verdict, rejected=rejected,
            gpus_during=watch.document(), error=error or verdict.error(log),
        )  # fmt: skip

    def tell(done: Request) -> None:
        if not is_timing(done.index):
            return
        for finding in done.findings:
            told.setdefault(finding.id, finding)
        running.requests.append(requests.document(done, running.directory))
        running.launches[index - 1 :] = [document.launch(launched(None, None), running.directory)]
        # no statistics yet: loading scipy takes a second in which the engine would wait, and a CPU be busy
        running.write(complete=False, medians_only=True)

    partner = Session(
        directory,
        launch=index,
        first_request=len(running.requests) + 1,
        suffix=commands.SUFFIXES[planned.workload.preset.modality],
        expectation=planned.expectation,
        enough=enough,
        tell=tell,
        sampling=sampling,
    )
    try:
        with locks.hold(running.gpus), watch:
            ended = launch.launch(
                command, guard=guard, log=log, timeout_s=planned.options.timeout_s, display=display, partner=partner
            )
    except FallbackDetected as error:
        return launched(None, error, partner.rejected)
    except BenchError as error:
        return launched(None, error)
    running.stopped_because = partner.stopped_because
    return launched(ended, None)
