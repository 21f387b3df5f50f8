"""A run as a record: the document that ``schemas/run-record.json`` describes, and taking one up again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from bench import paths, redact
from bench.catalog import qualities
from bench.engine import command as commands
from bench.engine import variables
from bench.errors import FallbackDetected, UsageError
from bench.fallback import verdict as verdicts
from bench.fallback.verdict import Verdict
from bench.machine import gpus, host
from bench.record import comparable, store
from bench.run import consistency, evidence
from bench.run import request as requests
from bench.run.timings import instrument_cost, stage_table, timings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.engine.code import Code
    from bench.errors import BenchError
    from bench.process import Ended
    from bench.record.types import Host, Instrument, Launch, Record, Stopped, Workload
    from bench.run.plan import Plan
    from bench.run.state import Launched, Run

HOST = ("cpu", "cores", "identity")
"""What says that a run goes on where it began."""

RESOLVED = (
    "backend", "attention_backend", "enable_torch_compile", "warmup_mode", "num_gpus", "tp_size", "ulysses_degree",
    "ring_degree", "performance_mode", "quantization", "cache_dit_config",
)  # fmt: skip
"""What of the engine's resolved arguments goes into a record."""


def document(run: Run, *, complete: bool, failure: BenchError | None, medians_only: bool = False) -> Record:
    """Return the record of a run as far as it has come; ``failure`` is what cut it off."""
    options = run.planned.options
    verdict = _overall(run)
    counts = bool(run.requests) and verdict.counts
    headline = [launch for launch in run.launches if launch["index"] in {one["launch"] for one in run.requests}]
    numbers = timings(run.requests, headline, medians_only=medians_only) if counts else None
    stages = stage_table(run.staged, _instrument(stage_sync=True, profiler=False)) if run.staged else None
    known = {
        "schema": "run-record",
        "schema_version": store.SCHEMA_VERSION,
        "methodology": store.METHODOLOGY,
        "id": run.directory.name,
        "kind": run.kind,
        "label": options.label,
        "complete": complete,
        "failure": None if failure is None else {"exit_code": failure.exit_code, "what": failure.what},
        "started": run.launches[0]["started"],
        "finished": run.launches[-1]["finished"],
        "asked": options.document(),
        **origin(run),
        "verdict": verdict.document(),
        "timings": numbers,
        "stages": stages,
        "instrument_cost_percent": None if numbers is None or stages is None else instrument_cost(numbers, stages),
        "stopped_because": run.stopped_because,
        "launches": run.launches,
        "requests": run.requests if counts else [],
        "fidelity": run.fidelity,
        "profiled": run.profiled,
        "evidence": consistency.files(run.launches, [*run.requests, *run.staged], run.profiled),
    }
    return cast("Record", redact.document(known))


def origin(run: Run) -> dict[str, Any]:
    """Return what records of every kind say of how a run came about: which workload, on which engine and machine."""
    planned = run.planned
    return {
        "preset": {
            "key": planned.preset.key,
            "sha256": planned.preset.sha256,
            "document": dict(planned.preset.document),
        },
        "workload": _workload(planned),
        "weights": dict(planned.resolved.weights),
        "engine": planned.engine.for_record(),
        "code": _code(planned, run.code),
        "devices": gpus.as_document(planned.machine),
        "host": _host(),
        "preflight": run.preflight,
        "instrument": _instrument(
            stage_sync=commands.synchronises_stages(planned.workload), profiler=planned.expectation.profile
        ),
    }


def family(planned: Plan) -> str:
    """Return the family that the record of a run will be of, before anything is launched."""
    known = {
        "preset": {"sha256": planned.preset.sha256},
        "workload": _workload(planned),
        "devices": gpus.as_document(planned.machine),
        "host": _host(),
        "instrument": _instrument(
            stage_sync=commands.synchronises_stages(planned.workload), profiler=planned.expectation.profile
        ),
        "methodology": store.METHODOLOGY,
    }
    return comparable.family(redact.document(known))


def launch(launched: Launched, directory: Path) -> Launch:
    """Return a launch as a record holds it."""
    ended, facts, rejected, dump = launched.ended, launched.facts, launched.rejected, launched.rejected_dump
    return {
        "index": launched.index,
        "mode": launched.mode,
        "started": launched.started.isoformat(),
        "finished": launched.finished.isoformat(),
        "wall_s": None if ended is None or ended.stopped_by else round(ended.wall_s, 3),
        "exit_code": None if ended is None else ended.exit_code,
        "stopped": _stopped(ended),
        "command": {
            "argv": redact.arguments(launched.command.argv),
            "environment": variables.recorded(launched.command.environment, launched.command.added),
        },
        "resolved": {name: (facts.server_args or {})[name] for name in RESOLVED if name in (facts.server_args or {})},
        "delivered": dict(facts.sampling) | {"attention": dict(facts.attention)},
        "gpus_during": launched.gpus_during,
        "log": store.file_entry(launched.log, directory),
        "rejected": None
        if rejected is None
        else {
            "perf_dump": None if dump is None else store.file_entry(dump, directory),
            "outputs": requests.outputs(rejected, directory),
        },
        "verdict": cast("Any", launched.verdict.document()),
        "instrument": _instrument(stage_sync=launched.stage_sync, profiler=launched.profiler),
        "left_out": list(launched.left_out),
        "load_s": launched.load_s,
        "first_answer_s": launched.first_answer_s,
    }


def _instrument(*, stage_sync: bool, profiler: bool) -> Instrument:
    return {"stage_sync": stage_sync, "profiler": profiler}


def _stopped(ended: Ended | None) -> Stopped | None:
    """Return when a launch was stopped by us, None if it ended by itself."""
    if ended is None or ended.stopped_after_s is None or ended.gone_within_s is None:
        return None
    return {"after_s": round(ended.stopped_after_s, 3), "within_s": round(ended.gone_within_s, 3)}


def _overall(run: Run) -> Verdict:
    """Return the verdict on the whole run; a resumed one has launches that are known from its record only.

    Of a launch with a traced request, the receipts stand for the run: they rest on more.
    """
    by_launch = {entry["index"]: Verdict.from_document(entry["verdict"]) for entry in run.launches}
    deciding = consistency.deciding(run.launches, run.requests, run.profiled)
    verdict = verdicts.overall([(each, index in deciding) for index, each in by_launch.items()])
    traced = [by_launch[index] for index in consistency.traced(run.launches, run.profiled)]
    return replace(verdict, receipts=traced[-1].receipts) if traced else verdict


def write(
    run: Run, *, complete: bool, failure: BenchError | None = None, medians_only: bool = False
) -> tuple[Record, Path]:
    """Write the record of what is known of a run now and return it and its path."""
    known = document(run, complete=complete, failure=failure, medians_only=medians_only)
    return known, save(run, known)


def save(run: Run, known: Record) -> Path:
    """Write a run's record, as a partial one if requests can be added to those it has, and return its path."""
    writer = store.write if known["complete"] or not run.requests else store.write_partial
    return writer(known, run.directory)


def _code(planned: Plan, known: Code) -> dict[str, Any] | None:
    """Return the code that ran and how it was installed, None where no file of it was found."""
    files = known.document()
    return None if files is None else {**files, "install": planned.engine.install}


def resumable(planned: Plan, known: Code, directory: Path, launches: int | None = None) -> Record:
    """Return the partial record in ``directory``, held against its evidence.

    ``launches`` says how many launches of a part of a campaign are finished; later ones are left out. None: it is a
    run by itself, whose requests all count.

    Raises:
        UsageError: it is complete, a part of something else, or of another preset, engine, machine or environment.
        RecordEdited: a file of it was changed, or the record was.
        InvalidDocument: it is not a record.
    """
    if not (directory / store.PARTIAL).is_file():
        raise UsageError("there is nothing to resume: no partial record", where=directory / store.PARTIAL)
    earlier = store.read(directory / store.PARTIAL)
    if launches is None and (earlier["kind"] != "bench" or not store.RUN.match(earlier["id"])):
        raise UsageError(
            "only a plain benchmark run can be resumed by itself, not a profile, an arm or a matrix cell",
            where=directory,
            todo="resume the whole",
        )
    check_unchanged(planned, known, earlier, directory)
    if launches is not None:
        _keep(earlier, launches)
    for entry in earlier["launches"]:
        if entry["log"] is not None and evidence.is_going_on(earlier, entry):
            # it was killed: its log went on after the record was written
            entry["log"] = store.file_entry(directory / entry["log"]["file"], directory)
    return earlier


def _keep(earlier: Record, launches: int) -> None:
    """Leave later launches out of a record.

    Raises:
        UsageError: a later one fell back, so the earlier ones prove nothing, or there are fewer.
    """
    if any(launch["verdict"]["exit_code"] == FallbackDetected.exit_code for launch in earlier["launches"]):
        raise UsageError(
            "a launch fell back, so this run cannot be resumed", where=earlier["id"], todo="measure the whole anew"
        )
    earlier["launches"] = [launch for launch in earlier["launches"] if launch["index"] <= launches]
    earlier["requests"] = [request for request in earlier["requests"] if request["launch"] <= launches]
    if len(earlier["launches"]) != launches:
        raise UsageError(f"{launches} launches were finished, and the record has fewer", where=earlier["id"])


def check_unchanged(planned: Plan, known: Code, earlier: Record, directory: Path) -> None:
    """Hold a record against the plan, the engine's code, this machine and its own evidence.

    Raises:
        UsageError: one of them is another, or evidence is gone.
        RecordEdited: a file of it was changed, or the record was.
    """
    refuse_changed(planned, known, earlier, directory, planned.resolved.environment)
    refuse_gone(evidence.review(earlier, directory), directory)


def refuse_gone(reviewed: evidence.Reviewed, directory: Path) -> None:
    """Raise UsageError for a record that goes on, if a file that it rests on is gone."""
    if reviewed.gone:
        raise UsageError(f"evidence of this run is gone: {', '.join(reviewed.gone)}", where=directory)


def refuse_changed(
    planned: Plan, known: Code, earlier: Mapping[str, Any], directory: Path, environment: Mapping[str, str]
) -> None:
    """Hold a record against the plan, the engine's code, this machine and a launch's environment.

    Raises:
        UsageError: one of them is another.
    """
    workload = _workload(planned)
    here: Mapping[str, Any] = _host()
    same = {
        "preset": (earlier["preset"]["sha256"], planned.preset.sha256),
        "engine": (earlier["engine"], planned.engine.for_record()),
        "code of the engine": (earlier["code"], _code(planned, known)),
        "methodology": (earlier["methodology"], store.METHODOLOGY),
        "devices": (earlier["devices"], gpus.as_document(planned.machine)),
        "weights": (comparable.same_weights(earlier["weights"], planned.resolved.weights), True),
        "workload": ({name: earlier["workload"].get(name) for name in workload}, workload),
        "host": ([earlier["host"].get(name) for name in HOST], [here[name] for name in HOST]),
    }
    different = [f"the {name}" for name, (then, now) in same.items() if then != now] + _variables(earlier, environment)
    if different:
        raise UsageError(
            f"changed since the run was started: {'; '.join(different)}",
            where=directory,
            todo="new requests would not be comparable: put it back, or measure the whole again",
        )


def _variables(earlier: Mapping[str, Any], environment: Mapping[str, str]) -> list[str]:
    """Return the variables that can matter and differ between a run's last launch and one that would start now.

    The launch of the stage table has a variable of its own, so the last one under the run's own instrument is taken.
    """
    alike = [launch for launch in earlier["launches"] if launch["instrument"] == earlier["instrument"]]
    if not alike:
        return []
    then = variables.recorded(alike[-1]["command"]["environment"])
    return comparable.unlike_variables(then, variables.recorded(environment))


def _host() -> Host:
    return cast("Host", host.as_document() | {"identity": host.identity()})


def _workload(planned: Plan) -> Workload:
    workload = planned.workload
    return {
        "prompt": workload.prompt,
        "seed": workload.seed,
        "width": workload.width,
        "height": workload.height,
        "frames": workload.frames,
        "steps": workload.steps,
        "image": None if workload.image is None else _image(Path(workload.image)),
        "gpus": workload.preset.gpus,
        "torch_compile": workload.torch_compile,
        "warmup": "off" if not workload.warmup else "start" if workload.warmup_at_start else "request",
        "quality": workload.quality,
        "quality_meaning": qualities.meaning(planned.engine.version, workload.quality),
        "cuda_graph": workload.cuda_graph,
        "attention_backend": workload.attention_backend,
        "sync_stages": commands.synchronises_stages(workload),
        "extra": list(workload.extra),
    }


def _image(path: Path) -> dict[str, Any]:
    """Return the input image by name and hash; its path on this machine is deliberately left out."""
    return {"name": path.name, "sha256": paths.sha256(path) if path.is_file() else None}
