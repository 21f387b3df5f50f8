"""A finished launch as a run record: the document that ``schemas/run-record.json`` describes."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import checkpoint, record
from bench.engine import command as commands
from bench.engine import devices, images
from bench.errors import InvalidPerfDump
from bench.measure import metrics

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from bench.engine.command import Command
    from bench.engine.find import Engine
    from bench.engine.workload import Workload
    from bench.fallback.guard import Guard
    from bench.fallback.outputs import Output
    from bench.fallback.verdict import Verdict
    from bench.measure.plan import Plan
    from bench.process import Ended

RESOLVED = (
    "backend", "attention_backend", "enable_torch_compile", "warmup_mode", "num_gpus", "tp_size", "ulysses_degree",
    "ring_degree", "performance_mode", "quantization", "cache_dit_config",
)  # fmt: skip
"""What of the engine's resolved arguments goes into a record."""


def document(
    planned: Plan,
    command: Command,
    guard: Guard,
    verdict: Verdict,
    dump: dict[str, Any] | InvalidPerfDump,
    outputs: Sequence[Output],
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
        "workload": _workload(workload, guard),
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


def _workload(workload: Workload, guard: Guard) -> dict[str, Any]:
    resolved = guard.facts.server_args or {}
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
        "warmup": "request" if workload.warmup else "off",
        "attention_backend": workload.attention_backend,
        "sync_stages": True,
        "extra": list(workload.extra),
        "resolved": {name: resolved[name] for name in RESOLVED if name in resolved},
        "delivered": dict(guard.facts.sampling) | {"attention": dict(guard.facts.attention)},
    }


def _image(path: Path) -> dict[str, Any]:
    """Return the input image by name and hash: its place on this machine is nobody's business."""
    return {"name": path.name, "sha256": images.sha256(path) if path.is_file() else None}


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
