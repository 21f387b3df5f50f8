"""One benchmark launch, from a plan to a record: the middle of `invoke bench`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from bench import record
from bench.engine import command as commands
from bench.engine import launch
from bench.errors import BenchError, InvalidPerfDump, TimedOut
from bench.fallback import dump as dumps
from bench.fallback import outputs as files
from bench.fallback.guard import Guard
from bench.fallback.verdict import conclude
from bench.measure import document
from bench.preflight import checks
from bench.preflight.gpus import used_now
from bench.preflight.watch import Watch

if TYPE_CHECKING:
    from pathlib import Path

    from bench.measure.plan import Plan
    from bench.process import Observer


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A finished run: its record, where it is, and the error that the task ends with (None: the run counts)."""

    record: dict[str, Any]
    path: Path
    error: BenchError | None


def run(planned: Plan, display: Observer | None = None) -> Result:
    """Launch the engine under guard and return the finished run, whatever its verdict.

    Raises:
        PreflightFailed: the machine lacks something that this run needs.
        FallbackDetected: arguments or environment show beforehand that the run would be invalid.
        UsageError: the run directory or the record cannot be written.
    """
    options = planned.options
    guard = Guard(planned.expectation)
    if options.precheck:
        arguments, variables = commands.arguments, commands.launch_environment
        guard.precheck(arguments(planned.engine, planned.workload), variables(planned.engine, planned.workload))
    environment = commands.launch_environment(planned.engine, planned.workload)
    situation = checks.gather(planned.engine, planned.workload, environment, options.output_dir)
    lines = checks.run(situation)
    if options.preflight:
        checks.refuse_failed(lines)
    directory = record.new_run("bench", "-".join(filter(None, (options.model, options.label))), options.output_dir)
    command = commands.build(planned.engine, planned.workload, directory)
    log, dump_path = directory / record.LOG, directory / commands.PERF_DUMP
    (directory / commands.OUTPUTS).mkdir()
    commands.write_files(command)

    started, stopped, ended = record.now(), None, None
    with Watch([gpu.uuid for gpu in used_now(situation)]) as watch:
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
        observed=watch.findings(),
    )
    if not verdict.counts and dump_path.exists():
        dump_path.rename(directory / record.REJECTED_DUMP)  # no later reader may take it for a result
    written = document.document(planned, command, guard, verdict, dump, outputs, (started, finished), ended)
    written["preflight"] = [asdict(line) for line in lines]
    written["gpus_during"] = watch.document()
    path = record.write(written, directory)
    return Result(record=written, path=path, error=stopped or verdict.error(path))


def _load(path: Path) -> dict[str, Any] | InvalidPerfDump:
    try:
        return dumps.load(path)
    except InvalidPerfDump as error:
        return error
