"""`invoke doctor`: what this machine can run, and what is in the way."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from bench import paths
from bench.errors import BenchError, PreflightFailed, UsageError
from bench.options import OUTPUT, nested, option
from bench.run.options import Options
from bench.task import Context, task

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.engine.find import Engine
    from bench.preflight.state import MachineState


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorOptions:
    """What `invoke doctor` takes."""

    model: str | None = option(
        None,
        completes="presets",
        help="check for this preset; without it, for the machine in general and which presets run here",
    )
    run: Options = nested(Options, "engine", "model_path", "preset_file", "image", "output_dir")
    as_json: bool = option(False, name="json", group=OUTPUT, help="print the checks as JSON on stdout")


@task(DoctorOptions, example="doctor --model flux")
def doctor(c: Context, options: DoctorOptions) -> None:
    """Check what this machine can run and what is in the way; exit code 10 if a check fails."""
    from bench.engine import command, find
    from bench.machine import gpus
    from bench.preflight import checks
    from bench.preflight.state import FAIL
    from bench.report import doctor as report
    from bench.report import text
    from bench.run import plan

    workload = None if options.model is None else plan.workload(replace(options.run, model=options.model))
    engine = _engine(options.run.engine)
    environment: Mapping[str, str] = (
        find.interpreter_environment()
        if engine is None or workload is None
        else command.launch_environment(engine, workload)
    )
    machine = gpus.visible(gpus.machine(), environment.get(gpus.VISIBLE))
    situation = checks.gather(engine, workload, environment, machine, options.run.output_dir)
    lines = checks.run(situation)
    can, cannot = _runnable(situation) if options.model is None else ([], {})
    version = _version()
    if options.as_json:
        document: dict[str, Any] = {"workbench": version, "model": options.model, "lines": [*map(asdict, lines)]}
        if options.model is None:
            document |= {"can_run": can, "cannot_run": cannot}
        text.write_json(document)
    else:
        text.line(text.stdout(), f"workbench {version}")
        report.show(lines, text.stdout())
        if options.model is None:
            report.show_runnable(can, cannot, text.stdout())
    failed = [line.id for line in lines if line.state == FAIL]
    if failed:
        raise PreflightFailed(f"{len(failed)} of {len(lines)} checks failed: {', '.join(failed)}")


def _version() -> str:
    """Return the version of the workbench, with its commit where it is a checkout of its own."""
    from bench.engine import source

    version = paths.version()
    with suppress(BenchError):
        if source.top(paths.ROOT) == paths.ROOT:
            version += f", commit {source.commit_of(paths.ROOT, 'HEAD')[:12]}"
    return version


def _engine(spec: str | None) -> Engine | None:
    """Return the engine; None if none was asked for and none is there."""
    from bench.engine import find

    try:
        return find.find(spec)
    except UsageError as error:
        if error.field != "engine":  # one was named, or the one that is there is broken
            raise
        return None


def _runnable(situation: MachineState) -> tuple[list[str], dict[str, str]]:
    """Return the presets that this machine has enough accelerators for, and for each other one the reason."""
    from bench.catalog import presets
    from bench.preflight import model

    there = len(situation.machine.devices) or max((vendor.count or 0 for vendor in situation.vendors), default=0)
    can, cannot = [], {}
    for key, preset in presets.built_in().items():
        if model.runs_with(preset, there):
            can.append(key)
        else:
            cannot[key] = f"needs {preset.gpus} GPU{'s' if preset.gpus > 1 else ''}"
    return can, cannot
