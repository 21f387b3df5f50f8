"""A load test of a server that is started here, under a guard, and of one that somebody else started."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bench.engine import code
from bench.engine import command as engine_commands
from bench.errors import BenchError, EngineFailed, UsageError
from bench.fallback.expectation import SERVER
from bench.fallback.guard import Guard
from bench.fallback.verdict import conclude
from bench.record import store
from bench.run import benchmark
from bench.serving import command as commands
from bench.serving import offline
from bench.serving import run as campaigns
from bench.serving.campaign import Attested, Campaign
from bench.serving.request import ImageRequest, refuse
from bench.serving.run import Remote
from bench.serving.server import Server

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bench.engine.workload import Workload
    from bench.process import Observer
    from bench.run.plan import Plan
    from bench.serving.options import LoadOptions

KIND = "load"
MODALITIES = ("image",)


def request_of(workload: Workload) -> ImageRequest:
    """Return the request that a workload means.

    Raises:
        UsageError: a server would change it in silence, or this client cannot send it.
    """
    preset = workload.preset
    if preset.modality not in MODALITIES:
        raise UsageError(f"preset {preset.key} makes {preset.modality}: only images are served here so far")
    if workload.width is None or workload.height is None or workload.steps is None:
        raise UsageError(
            "the server chooses size or steps by itself: nothing could be compared",
            where=f"preset {preset.key}",
            todo="say --width, --height and --steps",
        )
    request = ImageRequest(
        prompt=workload.prompt,
        negative_prompt=preset.negative_prompt,
        seed=workload.seed,
        steps=workload.steps,
        width=workload.width,
        height=workload.height,
        guidance=preset.guidance,
    )
    refuse(request, f"preset {preset.key}")
    return request


def _golden(
    options: LoadOptions, request: ImageRequest, version: str | None
) -> Mapping[tuple[str, ...], tuple[str, ...]]:
    return {} if options.golden is None else offline.pictures(options.golden, request, version)


def loadtest(
    planned: Plan, options: LoadOptions, display: Observer | None = None
) -> tuple[dict[str, Any], Path, BenchError | None]:
    """Start a server, load it, stop it, and return the record, its path and the error that the task ends with.

    Raises:
        UsageError: the workload is one that a server would change, or nothing can be written.
        FallbackDetected: arguments or environment show beforehand that the run would be invalid.
        PreflightFailed: the machine lacks something that this run needs.
    """
    request = request_of(planned.workload)
    golden = _golden(options, request, planned.engine.version)
    running = benchmark.begin(planned, kind=KIND)
    served = commands.build(
        planned.engine,
        planned.workload,
        running.directory,
        most_merged=options.batching,
        on_cpu=planned.machine.kind == "cpu",
    )
    commands.link(served, planned.workload)
    # seeds differ from request to request, so the log's cannot be held against one
    expectation = replace(planned.expectation, launch=SERVER, model=served.model_path, seed=None, warmup=True)
    guard = Guard(expectation)
    campaign = Campaign(
        options=options, workload=request, started=store.now(), directory=running.directory, golden=golden
    )
    server = Server(served, guard, ready_s=options.run.timeout_s, display=display)
    identity, died = None, False
    try:
        with server:
            identity = server.prove_identity()
            campaigns.run(campaign, server)
            died = not server.alive()
    except BenchError as error:
        campaign.failure = error
    # the pictures came with the answers and were judged there
    shutil.rmtree(running.directory / commands.SAVED, ignore_errors=True)
    if campaign.failure is None and died:
        campaign.failure = server.error or EngineFailed("the server ended during the load", where=server.log)
    if identity is None:
        assert campaign.failure is not None
        raise campaign.failure
    attested = Attested(
        identity=identity,
        run_id=served.run_id,
        version=planned.engine.version,
        verdict=conclude(guard, None, code.written_since(running.code)),
        ready_s=server.ready_after_s,
        argv=served.command.argv,
        environment=engine_commands.recorded_environment(served.command),
        died=died,
    )
    return campaigns.finish(campaign, server, attested)


def loadtest_elsewhere(
    url: str, request: ImageRequest, options: LoadOptions
) -> tuple[dict[str, Any], Path, BenchError | None]:
    """Load somebody else's server: outputs and counters are proven, its log and identity are not.

    Raises:
        UsageError: the workload is one that a server would change, or nothing can be written.
    """
    golden = _golden(options, request, None)
    directory = store.new_run(KIND, options.run.label or "elsewhere", options.run.output_dir)
    campaign = Campaign(options=options, workload=request, started=store.now(), directory=directory, golden=golden)
    target = Remote(url=url.rstrip("/"))
    campaigns.run(campaign, target)
    return campaigns.finish(campaign, target, None)
