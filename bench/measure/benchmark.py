"""One benchmark launch, from a preset to a record: the middle of `invoke bench`."""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import checkpoint, record
from bench.catalog import presets
from bench.engine import command as commands
from bench.engine import devices, find, launch
from bench.engine.workload import Workload
from bench.errors import BenchError, InvalidPerfDump, TimedOut
from bench.fallback import dump as dumps
from bench.fallback import outputs as files
from bench.fallback.expectation import Expectation
from bench.fallback.guard import Guard
from bench.fallback.verdict import Verdict, conclude
from bench.measure import metrics

if TYPE_CHECKING:
    from datetime import datetime

    from bench.catalog.presets import Preset
    from bench.engine.command import Command
    from bench.engine.devices import Machine
    from bench.engine.find import Engine
    from bench.fallback.outputs import Output
    from bench.process import Ended, Observer

DEFAULT_TIMEOUT_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the user asked for; None is the preset's value or the default."""

    model: str
    engine: str | None = None
    model_path: str | None = None
    preset_file: Path | None = None
    label: str | None = None
    steps: int | None = None
    seed: int | None = None
    width: int | None = None
    height: int | None = None
    torch_compile: bool = False
    warmup: bool = True
    attention_backend: str | None = None
    timeout_s: float = DEFAULT_TIMEOUT_S
    output_dir: Path | None = None
    precheck: bool = True
    extra: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that is settled before a launch; nothing has been started or written but a synthetic checkpoint."""

    options: Options
    preset: Preset
    engine: Engine
    machine: Machine
    workload: Workload
    expectation: Expectation
    made_checkpoint: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A finished run: its record, where it is, and the error that the task ends with (None: the run counts)."""

    record: dict[str, Any]
    path: Path
    error: BenchError | None


def plan(options: Options) -> Plan:
    """Return the plan for a run; a synthetic checkpoint that is not in the user's cache yet is made.

    Raises:
        UsageError: an unknown model or engine, a broken model folder, a wrong value.
        EngineFailed: the engine does not work.
    """
    preset = presets.get(options.model, options.preset_file)
    engine = find.find(options.engine)
    made = None
    if options.model_path is None and preset.checkpoint is not None:
        folder, is_new = checkpoint.cached(engine, preset.checkpoint, preset.model)
        made = folder if is_new else None
    workload = _workload(options, preset, _model(options, preset))
    visible = preset.environment.get("CUDA_VISIBLE_DEVICES", os.environ.get("CUDA_VISIBLE_DEVICES"))
    machine = devices.visible(devices.machine(), visible)
    return Plan(
        options=options,
        preset=preset,
        engine=engine,
        machine=machine,
        workload=workload,
        expectation=expect(workload, engine, machine),
        made_checkpoint=made,
    )


def _model(options: Options, preset: Preset) -> str:
    """Return what --model-path of the engine gets: a checked folder, or a name on the hub."""
    if options.model_path is not None:
        given = options.model_path
        on_hub = given.count("/") == 1 and not given.startswith((".", "/", "~")) and not Path(given).exists()
        if on_hub:
            return given
        folder = Path(given).expanduser().absolute()
        checkpoint.inspect(folder)
        return str(folder)
    return preset.model if preset.checkpoint is None else str(checkpoint.cached_path(preset.checkpoint, preset.model))


def _workload(options: Options, preset: Preset, model_path: str) -> Workload:
    return Workload(
        preset=preset,
        model_path=model_path,
        prompt=preset.prompt,
        seed=preset.seed if options.seed is None else options.seed,
        width=options.width or preset.width,
        height=options.height or preset.height,
        frames=preset.frames,
        steps=options.steps or preset.steps,
        torch_compile=options.torch_compile,
        warmup=options.warmup,
        attention_backend=options.attention_backend,
        extra=options.extra,
    )


def expect(workload: Workload, engine: Engine, machine: Machine) -> Expectation:
    """Return what a launch of this workload has to show."""
    return Expectation(
        version=engine.version,
        device=machine.kind,
        model=workload.model_path,
        prompt=workload.prompt,
        modality=workload.preset.modality,
        steps=workload.steps,
        width=workload.width,
        height=workload.height,
        frames=workload.frames,
        gpus=workload.preset.gpus,
        warmup=workload.warmup,
        compile=workload.torch_compile,
        attention_backend=workload.attention_backend,
    )


def dry_run(options: Options) -> Command:
    """Return the command that a run would use; nothing is made or written, and the run directory is a stand-in.

    Raises:
        what `plan` and `commands.build` raise.
    """
    preset = presets.get(options.model, options.preset_file)
    engine = find.find(options.engine)
    return commands.build(engine, _workload(options, preset, _model(options, preset)), Path("RUN_DIRECTORY").absolute())


def run(planned: Plan, display: Observer | None = None) -> Result:
    """Launch the engine under guard and return the finished run, whatever its verdict.

    Raises:
        FallbackDetected: arguments or environment show beforehand that the run would be invalid.
        UsageError: the run directory or the record cannot be written.
    """
    options = planned.options
    guard = Guard(planned.expectation)
    directory = record.new_run("bench", "-".join(filter(None, (options.model, options.label))), options.output_dir)
    command = commands.build(planned.engine, planned.workload, directory)
    if options.precheck:
        try:
            guard.precheck(command.argv, command.added)
        except BenchError:
            directory.rmdir()
            raise
    log, dump_path = directory / record.LOG, directory / commands.PERF_DUMP
    (directory / commands.OUTPUTS).mkdir()

    started, stopped, ended = record.now(), None, None
    try:
        ended = launch.launch(command, guard=guard, log=log, timeout_s=options.timeout_s, display=display)
    except BenchError as error:
        stopped = error
    finished = record.now()

    dump = _load(dump_path)
    outputs = files.read(directory / commands.OUTPUTS)
    verdict = conclude(
        guard,
        exit_code=None if ended is None else ended.exit_code,
        timed_out=isinstance(stopped, TimedOut),
        dump=dump,
        outputs=outputs,
        started=started,
        ended=finished,
    )
    if not verdict.counts and dump_path.exists():
        dump_path.rename(directory / record.REJECTED_DUMP)  # no later reader may take it for a result
    document = _document(planned, command, guard, verdict, dump, outputs, (started, finished), ended)
    path = record.write(document, directory)
    return Result(record=document, path=path, error=stopped or verdict.error(path))


def _load(path: Path) -> dict[str, Any] | InvalidPerfDump:
    try:
        return dumps.load(path)
    except InvalidPerfDump as error:
        return error


def _document(
    planned: Plan,
    command: Command,
    guard: Guard,
    verdict: Verdict,
    dump: dict[str, Any] | InvalidPerfDump,
    outputs: list[Output],
    times: tuple[datetime, datetime],
    ended: Ended | None,
) -> dict[str, Any]:
    """Return the run record; its form is ``schemas/run-record.json``."""
    directory, workload = command.directory, planned.workload
    started, finished = times
    counts = verdict.counts and not isinstance(dump, InvalidPerfDump)
    dump_name = commands.PERF_DUMP if counts else record.REJECTED_DUMP
    return {
        "schema": "run-record",
        "schema_version": record.SCHEMA_VERSION,
        "methodology": record.METHODOLOGY,
        "id": directory.name,
        "kind": "bench",
        "label": planned.options.label,
        "started": started.isoformat(),
        "finished": finished.isoformat(),
        "preset": {"key": planned.preset.key, "sha256": planned.preset.sha256, "document": planned.preset.document},
        "workload": _workload_document(workload, guard),
        "weights": _weights(planned),
        "command": {"argv": list(command.argv), "environment": commands.recorded_environment(command)},
        "engine": _engine(planned.engine),
        "devices": devices.for_record(planned.machine),
        "host": devices.host(),
        "verdict": verdict.document(),
        "timings": _timings(dump, ended, (finished - started).total_seconds()) if counts else None,
        "memory": dump["memory_checkpoints"] if counts and not isinstance(dump, InvalidPerfDump) else None,
        "outputs": [asdict(output) for output in outputs],
        "files": {
            "log": _file(directory / record.LOG, directory),
            "perf_dump": _file(directory / dump_name, directory),
        },
    }


def _workload_document(workload: Workload, guard: Guard) -> dict[str, Any]:
    resolved = guard.server_args or {}
    return {
        "prompt": workload.prompt,
        "seed": workload.seed,
        "width": workload.width,
        "height": workload.height,
        "frames": workload.frames,
        "steps": workload.steps,
        "gpus": workload.preset.gpus,
        "torch_compile": workload.torch_compile,
        "warmup": "request" if workload.warmup else "off",
        "attention_backend": workload.attention_backend,
        "sync_stages": True,
        "extra": list(workload.extra),
        "resolved": {
            name: resolved[name]
            for name in ("backend", "attention_backend", "enable_torch_compile", "warmup_mode", "num_gpus", "tp_size",
                         "ulysses_degree", "ring_degree", "performance_mode", "quantization", "cache_dit_config")
            if name in resolved
        },
    }  # fmt: skip


def _weights(planned: Plan) -> dict[str, Any]:
    """Return whose the weights are: the hub's, or random ones made here (with their hash)."""
    made = checkpoint.manifest(Path(planned.workload.model_path))
    if made is not None:
        return {"kind": "synthetic", "sha256": made["sha256"], "model": _name(planned.workload.model_path)}
    return {"kind": "real", "sha256": None, "model": _name(planned.workload.model_path)}


def _name(model_path: str) -> str:
    """Return a model's name without the place where it lies on this machine."""
    return Path(model_path).name if Path(model_path).is_absolute() else model_path


def _engine(engine: Engine) -> dict[str, Any]:
    """Return the engine without any path: its name, versions, and the code it ran if that is a checkout."""
    return {
        "name": engine.name,
        "version": engine.version,
        "python": engine.python_version,
        "packages": dict(engine.packages),
        "source": None
        if engine.source is None
        else {"commit": engine.source.commit, "changes_sha256": engine.source.changes_sha256},
    }


def _timings(dump: dict[str, Any] | InvalidPerfDump, ended: Ended | None, launch_s: float) -> dict[str, Any]:
    assert not isinstance(dump, InvalidPerfDump)
    return {
        "metrics": metrics.compute(dump),
        "steps_ms": metrics.steps_ms(dump),
        "stages_ms": [
            {"name": step["name"], "ms": step["duration_ms"], "kind": metrics.stage_kind(step["name"])}
            for step in dump["steps"]
        ],
        "launch_s": round(launch_s if ended is None else ended.wall_s, 3),
    }


def _file(path: Path, directory: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"file": str(path.relative_to(directory)), "sha256": digest, "size_bytes": path.stat().st_size}
