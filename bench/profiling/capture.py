"""Capture a torch.profiler trace in a guarded session: unprofiled requests first (the timing), then a traced one.

A profiled latency is never a timing: steps of 1,225 and 4,722 ms were seen under the profiler where 138 ms is true.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.engine import command as commands
from bench.errors import EngineFailed, PreflightFailed
from bench.record import store
from bench.run import benchmark, document
from bench.run import plan as plans
from bench.run.session import Course

if TYPE_CHECKING:
    from bench.process import Observer
    from bench.run.options import Options

TIMED_REQUESTS = 3
TRACES = "traces"
PROFILED_DUMP = "perf.profiled.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Captured:
    """A finished capture: the run's record and directory, the trace files (one for each rank), the true step in ms."""

    record: dict[str, Any]
    path: Path
    traces: tuple[Path, ...]
    unprofiled_step_ms: float | None


def nsys_wrapper(directory: Path) -> tuple[str, ...]:
    """Return the start of a command line under Nsight Systems, which writes into ``directory``.

    Raises:
        PreflightFailed: it is not installed.
    """
    program = shutil.which("nsys")
    if program is None:
        raise PreflightFailed(
            "Nsight Systems is not installed: no nsys on PATH", todo="profile without it", field="nsys"
        )
    return (program, "profile", "--trace=cuda,nvtx,osrt", "--sample=none", f"--output={directory / 'nsys'}")


def capture(
    options: Options, *, steps: int, all_stages: bool, nsys: bool = False, display: Observer | None = None
) -> Captured:
    """Run the session and return what was captured.

    Raises:
        BenchError: the plan cannot be made, or the run does not count; its record is written first.
        EngineFailed: the profiler left no trace.
    """
    if nsys:
        nsys_wrapper(Path())  # before anything is made
    planned = plans.plan(options, in_session=True)
    name = "-".join(filter(None, (options.model, options.label)))
    directory = store.new_run("profile", name, options.output_dir)
    (directory / TRACES).mkdir()
    variables = {**planned.workload.environment, "SGLANG_DIFFUSION_TORCH_PROFILER_DIR": str(directory / TRACES)}
    planned = planned.changed(
        replace(
            planned.workload,
            environment=variables,
            wrapper=nsys_wrapper(directory) if nsys else (),
            stage_sync=True,  # the trace is cut at the stages' ends
        ),
        replace(planned.expectation, profile=True),
    )
    run = benchmark.begin(planned, kind="profile", directory=directory)
    asked: list[int] = []

    def enough(_engine: int) -> str | None:
        return f"{TIMED_REQUESTS} timed and one traced" if TIMED_REQUESTS + 1 in asked else None

    def sampling(number: int) -> dict[str, Any]:
        asked.append(number)
        if number <= TIMED_REQUESTS:
            return {}
        return {"profile": True, "num_profiled_timesteps": steps, "profile_all_stages": all_stages}

    course = Course(enough=enough, is_timing=lambda number: number <= TIMED_REQUESTS, sampling=sampling)
    error = benchmark.session(run, course, display)
    traces = tuple(sorted((directory / TRACES).rglob("*.json*")))
    if error is None and not traces:
        error = EngineFailed("the profiler left no trace", where=directory / TRACES, todo="read the log's last lines")
    if error is None:
        dump = _set_aside(directory)
        run.profiled = {
            "steps": steps,
            "all_stages": all_stages,
            "traces": [store.file_entry(path, directory) for path in traces],
            "perf_dump": store.file_entry(dump, directory),
        }
    known, path = document.write(run, complete=error is None, failure=error)
    if error is not None:
        raise error
    step = known["timings"]["metrics"]["step_median_ms"]
    return Captured(record=known, path=path, traces=traces, unprofiled_step_ms=step)


def _set_aside(directory: Path) -> Path:
    """Rename the traced request's dump, so that nobody takes it for a timing, and return its path."""
    folder = directory / "launch-1" / f"request-{TIMED_REQUESTS + 1:03d}"
    return (folder / commands.PERF_DUMP).rename(folder / PROFILED_DUMP)
