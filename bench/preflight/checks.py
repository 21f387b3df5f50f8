"""The list of checks, the gathering of the state they look at, and the error for those that fail."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bench import paths
from bench.errors import PreflightFailed
from bench.machine import gpus as nvml
from bench.machine import vendors
from bench.preflight import gpus, host, model
from bench.preflight.state import FAIL, CheckResult, MachineState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bench.engine.find import Engine
    from bench.engine.workload import Workload
    from bench.machine.gpus import Machine

SAMPLES = 4
BETWEEN_S = 0.3
"""Load is sampled over about a second, because the driver's figure is an average over up to one."""


CHECKS = (
    model.engine,
    model.spelled,
    gpus.visible,
    gpus.enough,
    gpus.slices,
    gpus.idle,
    gpus.clocks,
    gpus.memory_errors,
    host.cpu,
    host.load,
    host.memory,
    host.writable,
    host.disk,
    host.ports,
    model.weights,
    model.pipeline,
    model.classes,
    model.image,
)


def gather(
    engine: Engine | None,
    workload: Workload | None,
    environment: Mapping[str, str],
    machine: Machine,
    output: Path | None,
) -> MachineState:
    """Return the state of ``machine`` (as a launch sees it); with a GPU this takes a second."""
    samples = []
    with nvml.opened() as available:
        if available:
            for turn in range(SAMPLES):
                if turn:
                    time.sleep(BETWEEN_S)
                samples.append(nvml.sample())
                if not samples[0]:
                    break
    return MachineState(
        engine=engine,
        workload=workload,
        machine=machine,
        samples=tuple(sample for sample in samples if sample),
        vendors=vendors.devices(),
        environment=environment,
        output=output or paths.runs(),
    )


def run(state: MachineState) -> list[CheckResult]:
    """Return the results of all checks, in the list's order."""
    return [line for look in CHECKS for line in look(state)]


def refuse_failed(results: Sequence[CheckResult]) -> None:
    """Raise PreflightFailed if a check failed; the message lists every failure."""
    failed = [result for result in results if result.state == FAIL]
    if failed:
        first, *others = failed
        more = "".join(f"\n  also: {result.saw} ({result.todo})" for result in others)
        raise PreflightFailed(
            f"{first.id}: {first.saw}",
            todo=f"{first.todo}{more}\n  `invoke doctor` shows all checks",
            field="preflight",
            instead="; the run can be launched anyway",
        )
