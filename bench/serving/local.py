"""A load test of a server that is started here, under a guard, and of one that somebody else started."""

from __future__ import annotations

import shutil
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path  # noqa: TC003 - a field's type, also at run time
from typing import TYPE_CHECKING, Any, Self

from bench.engine import code
from bench.errors import BenchError, EngineFailed, Interrupted, UsageError
from bench.fallback import attest
from bench.fallback import verdict as verdicts
from bench.fallback.expectation import SERVER
from bench.fallback.guard import Guard
from bench.fallback.verdict import Verdict, conclude
from bench.machine import locks
from bench.record import campaign, store
from bench.run import benchmark, plan
from bench.run import document as documents
from bench.run.options import restored
from bench.run.state import Launched
from bench.run.watch import Watch
from bench.serving import batching, checks, offline, review
from bench.serving import command as commands
from bench.serving import run as campaigns
from bench.serving.campaign import Campaign
from bench.serving.checks import Attested
from bench.serving.options import LoadOptions
from bench.serving.request import ImageRequest, VideoRequest, refuse
from bench.serving.run import Finished, Remote
from bench.serving.server import Server, refuse_silent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.engine.waiting import Waiting
    from bench.engine.workload import Workload
    from bench.process import Observer
    from bench.record.types import Launch
    from bench.run.options import Options
    from bench.run.plan import Plan
    from bench.serving.joins import Identity

KIND = "load"
MODALITIES = ("image", "video")


def request_of(workload: Workload) -> ImageRequest:
    """Return the request that a workload means.

    Raises:
        UsageError: a server would change it in silence, or this client cannot send it.
    """
    preset = workload.preset
    if preset.modality not in MODALITIES or workload.image is not None:
        made = preset.modality if workload.image is None else f"{preset.modality} from an image"
        raise UsageError(
            f"preset {preset.key} makes {made}: only images and videos from a prompt are served here so far"
        )
    if workload.width is None or workload.height is None:
        raise UsageError(
            "the server chooses the size by itself: no picture's could be checked",
            where=f"preset {preset.key}",
            todo="say --width and --height",
        )
    fields: dict[str, Any] = {
        "prompt": workload.prompt,
        "negative_prompt": preset.negative_prompt,
        "seed": workload.seed,
        "steps": workload.steps,
        "width": workload.width,
        "height": workload.height,
        "guidance": preset.guidance,
    }
    request = ImageRequest(**fields) if preset.modality == "image" else VideoRequest(**fields, frames=workload.frames)
    refuse(request, f"preset {preset.key}")
    return request


def _golden(
    options: LoadOptions, request: ImageRequest, version: str | None
) -> Mapping[tuple[str, ...], tuple[str, ...]]:
    return {} if options.golden is None else offline.pictures(options.golden, request, version)


class Hosted:
    """A load test of a server of our own, as a context manager: entered when it is ready, left when it is gone.

    What keeps the server from being ready is raised, that it died later is kept in the campaign. ``resumed`` is the
    folder of one that was cut off: this start goes on with what that has.
    """

    def __init__(
        self,
        planned: Plan,
        options: LoadOptions,
        display: Observer | None = None,
        directory: Path | None = None,
        resumed: Path | None = None,
    ) -> None:
        request = request_of(planned.workload)
        golden = _golden(options, request, planned.engine.version)
        earlier = None if resumed is None else review.settled(resumed)
        if resumed is not None:
            directory = resumed / f"start-{1 + (0 if earlier is None else len(earlier['launches']))}"
            benchmark.set_aside(directory)
        self.running = benchmark.begin(planned, kind=KIND, directory=directory)
        self.running.directory.mkdir(exist_ok=True)
        served = commands.build(
            planned.engine,
            planned.workload,
            self.running.directory,
            most_merged=options.batching,
            on_cpu=planned.machine.kind == "cpu",
        )
        commands.link(served, planned.workload)
        # seeds differ from request to request, so the log's cannot be held against one
        expectation = replace(planned.expectation, launch=SERVER, model=served.model_path, seed=None, warmup=True)
        self.guard = Guard(expectation)
        self.campaign = Campaign(
            options=options,
            workload=request,
            started=store.now(),
            directory=resumed or self.running.directory,
            golden=golden,
            keep=self._keep,
        )
        if resumed is not None and earlier is not None:
            environment = dict(served.command.environment) | commands.places(earlier["launches"][-1])
            documents.refuse_changed(planned, self.running.code, earlier, resumed, environment)
            review.take_up(self.campaign, earlier)
        self.server = Server(served, self.guard, ready_s=options.run.timeout_s, display=display)
        self._watch = Watch(self.running.gpus)
        self._open = ExitStack()
        self._identity: Identity | None = None
        self._died = False

    def start(self) -> None:
        """Launch the server, and do not wait until it is ready."""
        if self.server.started is None:
            self._open.enter_context(locks.hold(self.running.gpus))
            self._open.enter_context(self._watch)
            self._open.callback(self.server.stop)
            self.server.start()

    def stop(self) -> None:
        """End the server; nothing of it is left when this returns."""
        self._open.close()
        # the pictures came with the answers and were judged there
        shutil.rmtree(self.running.directory / commands.SAVED, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
            self.server.wait_until_ready()
            self._identity = self.server.prove_identity()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._died = not self.server.alive()
        self.stop()
        if self.campaign.failure is None and self._died:
            ended = EngineFailed("the server ended during the load", where=self.server.log)
            self.campaign.failure = self.server.error or ended

    def frozen(self, waiting: Waiting) -> AbstractContextManager[None]:
        """Return a context in which the server's processes are stopped."""
        return self.server.frozen(waiting)

    def finish(self) -> Finished:
        """Judge what was measured, write the record, and return it with the error that the task ends with."""
        against = code.against(self.running.code, self.guard.facts.components.values())
        attested = self._attested(conclude(self.guard, None, [*self._watch.findings(), *against]), self.guard)
        return campaigns.finish(self.campaign, self.server, attested)

    def _keep(self) -> None:
        """Write the record as far as it has come."""
        # the server's own guard is at work in another thread: a second one reads the log so far
        guard = Guard(self.guard.expectation, stop=False)
        command = self.server.command.command
        guard.note(command.argv, command.environment)
        attest.listen(guard, self.server.log)
        campaigns.keep(self.campaign, self.server, self._attested(conclude(guard, None, self._watch.findings()), guard))

    def _attested(self, verdict: Verdict, guard: Guard) -> Attested:
        assert self._identity is not None
        starts = [Verdict.from_document(launch["verdict"]) for launch in self.campaign.launches]
        return Attested(
            identity=self._identity,
            run_id=self.server.command.run_id,
            verdict=verdicts.overall([(each, True) for each in (*starts, verdict)]) if starts else verdict,
            ready_s=self.server.ready_after_s,
            origin=documents.origin(self.running),
            launch=self._launch(verdict, guard),
            died=self._died,
        )

    def _launch(self, verdict: Verdict, guard: Guard) -> Launch:
        attempt = self.server.attempt
        assert self.server.started is not None
        launched = Launched(
            index=self.campaign.start,
            mode=SERVER,
            log=self.server.log,
            started=self.server.started if attempt is None else attempt.started,
            finished=store.now() if attempt is None else attempt.finished,
            ended=None if attempt is None else attempt.ended,
            command=self.server.command.command,
            facts=guard.facts,
            verdict=verdict,
            rejected=None,
            gpus_during=self._watch.document(),
            error=None,
            stage_sync=False,
            profiler=self.guard.expectation.profile,
            load_s=self.server.ready_after_s,
        )
        return documents.launch(launched, self.campaign.directory)


def loadtest(planned: Plan, options: LoadOptions, display: Observer | None = None) -> Finished:
    """Start a server, load it, stop it, and return what came of it.

    Raises:
        UsageError: the workload is one that a server would change, or nothing can be written.
        FallbackDetected: arguments, environment or the starting server show that the run would be invalid.
        PreflightFailed: the machine lacks something that this run needs.
        EngineFailed: the server was never ready.
    """
    hosted = Hosted(planned, options, display)
    if options.batching > 1:
        # pictures of merged requests are held against those of lone ones, which are not kept: nothing could go on
        hosted.campaign.unbatched = _unbatched(planned, options, display, hosted.running.directory / batching.UNBATCHED)
        return _loaded(hosted)
    with campaign.begin(KIND, hosted.running.directory, options.document()) as hosted.campaign.state:
        return _loaded(hosted)


def resume(folder: Path, now: Options, display: Observer | None = None) -> Finished:
    """Measure the phases that a load test lacks which was cut off, on a new start of its server; return as `loadtest`.

    Raises:
        UsageError: it has ended or is going on elsewhere, engine or machine have changed, or a secret is not given
            ``now``.
        RecordEdited: a file of it has changed.
        BenchError: as `loadtest`.
    """
    with campaign.resume(folder, KIND) as state:
        then = LoadOptions.from_document(state.asked)
        options = replace(then, run=restored(then.run, now))
        with plan.private_model_cache(plan.plan(options.run)) as planned:
            hosted = Hosted(planned, options, display, resumed=state.folder)
            hosted.campaign.state = state
            return _loaded(hosted)


def _loaded(hosted: Hosted) -> Finished:
    """Load a server that can start and return what came of it; only what was interrupted can go on."""
    state = hosted.campaign.state
    try:
        with hosted:
            campaigns.run(hosted.campaign, hosted.server)
        finished = hosted.finish()
    except BenchError:
        if state is not None and not state.finished:
            state.end()
        raise
    if state is not None and not isinstance(hosted.campaign.failure, Interrupted):
        state.end()
    return finished


def _unbatched(planned: Plan, options: LoadOptions, display: Observer | None, directory: Path) -> Campaign:
    """Start a server that merges nothing, give it the load that merging is compared by, and return its load test.

    Raises:
        BenchError: it does not count, and so nothing can be compared with it.
    """
    directory.mkdir()
    plain = Hosted(planned, replace(options, batching=1), display, directory=directory)
    with plain:
        campaigns.run(plain.campaign, plain.server, beside=options.batching)
    record, path, ended = plain.finish()
    if (error := checks.of_service(record, ended, str(path.parent))) is not None:
        raise error
    return plain.campaign


def loadtest_elsewhere(url: str, request: ImageRequest, options: LoadOptions) -> Finished:
    """Load somebody else's server: outputs and counters are proven, its log and identity are not.

    Raises:
        UsageError: the workload is one that a server would change, or nothing can be written.
        EngineFailed: no server answers there.
    """
    golden = _golden(options, request, None)
    refuse_silent(url)
    directory = store.new_run(KIND, options.run.label or "elsewhere", options.run.output_dir)
    target = Remote(url=url.rstrip("/"))
    going = Campaign(options=options, workload=request, started=store.now(), directory=directory, golden=golden)
    going.keep = lambda: campaigns.keep(going, target, None)
    campaigns.run(going, target)
    return campaigns.finish(going, target, None)
