"""One request of a session under the profiler, which is never timed: how it is asked for, and what it leaves."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bench.engine import command as commands
from bench.errors import EngineFailed
from bench.record import store

if TYPE_CHECKING:
    from pathlib import Path

    from bench.engine.workload import Workload
    from bench.run.plan import Plan

TRACES = "traces"
PROFILED_DUMP = "perf.profiled.json"


def planned(plan: Plan, directory: Path, *, wrapper: tuple[str, ...] = (), stage_sync: bool = False) -> Plan:
    """Return the plan of a launch that can trace a request, and make the folder in ``directory`` for its traces.

    With ``stage_sync`` a trace is cut at the stages' ends, so not even its untraced requests are what a user would get.

    Raises:
        UsageError: the engine's version cannot do it.
    """
    (directory / TRACES).mkdir()
    workload = replace(of(plan.workload, directory), wrapper=wrapper, stage_sync=stage_sync)
    return plan.changed(workload, replace(plan.expectation, profile=True))


def of(workload: Workload, directory: Path) -> Workload:
    """Return the workload of a launch that leaves its traces in a folder of ``directory``."""
    variables = {**workload.environment, "SGLANG_DIFFUSION_TORCH_PROFILER_DIR": str(directory / TRACES)}
    return replace(workload, environment=variables)


def sampling(steps: int, *, all_stages: bool = False) -> dict[str, Any]:
    """Return what tells the engine to trace a request: so many denoise steps, and all stages if asked for."""
    return {"profile": True, "num_profiled_timesteps": steps, "profile_all_stages": all_stages}


def traces(directory: Path) -> tuple[Path, ...]:
    """Return the traces that were left, one for each rank.

    Raises:
        EngineFailed: the engine wrote no trace.
    """
    found = tuple(sorted((directory / TRACES).rglob("*.json*")))
    if not found:
        raise EngineFailed("the profiler left no trace", where=directory / TRACES, todo="read the log's last lines")
    return found


def document(directory: Path, request: Path, steps: int, *, all_stages: bool = False) -> dict[str, Any]:
    """Return the traced request as a record holds it; its dump in the folder ``request``, not a timing, is renamed.

    Raises:
        EngineFailed: no trace was left.
    """
    found = traces(directory)
    dump = (request / commands.PERF_DUMP).rename(request / PROFILED_DUMP)
    return {
        "steps": steps,
        "all_stages": all_stages,
        "traces": [store.file_entry(path, directory) for path in found],
        "perf_dump": store.file_entry(dump, directory),
    }
