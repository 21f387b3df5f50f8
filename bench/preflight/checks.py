"""The table of checks, the gathering of the state they look at, and the error for those that fail."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench import paths
from bench.errors import PreflightFailed
from bench.machine import gpus as nvml
from bench.machine import vendors
from bench.preflight import gpus, host, model
from bench.preflight.state import FAIL, CheckResult, MachineState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from bench.engine.find import Engine
    from bench.engine.workload import Workload
    from bench.machine.gpus import Machine

SAMPLES = 4
BETWEEN_S = 0.3
"""Load is sampled over about a second, because the driver's figure is an average over up to one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One row of the table: its subject and its function."""

    about: str
    look: Callable[[MachineState], Iterator[CheckResult]]


CHECKS = (
    Check(about="the engine", look=model.engine),
    Check(about="the engine", look=model.spelled),
    Check(about="accelerators", look=gpus.visible),
    Check(about="accelerators", look=gpus.enough),
    Check(about="accelerators", look=gpus.slices),
    Check(about="accelerators", look=gpus.idle),
    Check(about="accelerators", look=gpus.clocks),
    Check(about="accelerators", look=gpus.memory_errors),
    Check(about="the host", look=host.cpu),
    Check(about="the host", look=host.load),
    Check(about="the host", look=host.memory),
    Check(about="the host", look=host.writable),
    Check(about="the host", look=host.disk),
    Check(about="the host", look=host.ports),
    Check(about="the model", look=model.weights),
    Check(about="the model", look=model.pipeline),
    Check(about="the model", look=model.classes),
    Check(about="the model", look=model.image),
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
    """Return the results of all checks, in the table's order."""
    return [line for check in CHECKS for line in check.look(state)]


def refuse_failed(results: Sequence[CheckResult]) -> None:
    """Raise PreflightFailed if a check failed; the message lists every failure."""
    failed = [result for result in results if result.state == FAIL]
    if failed:
        first, *others = failed
        more = "".join(f"\n  also: {result.saw} ({result.todo})" for result in others)
        raise PreflightFailed(
            f"{first.id}: {first.saw}",
            todo=f"{first.todo}{more}\n  `invoke doctor` shows all checks; the run can be launched anyway",
            field="preflight",
        )
