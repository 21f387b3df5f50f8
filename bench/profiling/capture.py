"""Capture a torch.profiler trace in a guarded session: unprofiled requests first (the timing), then a traced one.

A profiled latency is never a timing: steps of 1,225 and 4,722 ms were seen under the profiler where 138 ms is true.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import EngineFailed, PreflightFailed
from bench.profiling.bottleneck import Unprofiled, host_ahead
from bench.record import store
from bench.run import benchmark, document, traced
from bench.run import plan as plans
from bench.run.session import Course

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.process import Observer
    from bench.run.options import Options

TIMED_REQUESTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Captured:
    """A finished capture: the run's record and its path, the trace files (one for each rank), the true step.

    ``request_ms`` is the median of the ``requests`` that ran without the profiler; None is unknown.
    """

    record: Mapping[str, Any]
    path: Path
    traces: tuple[Path, ...]
    unprofiled: Unprofiled | None
    request_ms: float | None
    requests: int


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
    planned = traced.planned(planned, directory, wrapper=nsys_wrapper(directory) if nsys else ())
    run = benchmark.begin(planned, kind="profile", directory=directory)
    asked: list[int] = []

    def enough(_engine: int) -> str | None:
        return f"{TIMED_REQUESTS} timed and one traced" if TIMED_REQUESTS + 1 in asked else None

    def sampling(number: int) -> dict[str, Any]:
        asked.append(number)
        if number <= TIMED_REQUESTS:
            return {}
        return traced.sampling(steps, all_stages=all_stages)

    course = Course(enough=enough, is_timing=lambda number: number <= TIMED_REQUESTS, sampling=sampling)
    error = benchmark.session(run, course, display)
    if error is None:
        try:
            request = directory / "launch-1" / f"request-{TIMED_REQUESTS + 1:03d}"
            run.profiled = traced.document(directory, request, steps, all_stages=all_stages)
        except EngineFailed as failed:
            error = failed
    known, path = document.write(run, complete=error is None, failure=error)
    if error is not None:
        raise error
    timings = known["timings"]
    assert timings is not None, "a run that counts has timings"
    return Captured(
        record=known,
        path=path,
        traces=traced.traces(directory),
        unprofiled=_unprofiled(timings),
        request_ms=timings["metrics"]["total_ms"],
        requests=timings["requests"],
    )


def _unprofiled(timings: Mapping[str, Any]) -> Unprofiled | None:
    """Return the step of the timed requests; None where the engine records no steps."""
    step_ms = timings["metrics"]["step_median_ms"]
    if step_ms is None:
        return None
    return Unprofiled(step_ms=step_ms, host_ahead=host_ahead([step["median"] for step in timings["steps_ms"]]))
