"""All checks in one table, the gathering of what they look at, and the error of those that fail."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench import paths
from bench.errors import PreflightFailed
from bench.machine import devices, nvml, vendors
from bench.preflight import gpus, host, model
from bench.preflight.line import FAIL, Line, Situation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from bench.engine.find import Engine
    from bench.engine.workload import Workload

SAMPLES = 4
BETWEEN_S = 0.3
"""Load is sampled over about a second: the driver's own figure is an average over up to one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One row of the table: what it is about, and who looks."""

    about: str
    look: Callable[[Situation], Iterator[Line]]


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
    Check(about="the model", look=model.image),
)


def gather(
    engine: Engine | None, workload: Workload | None, environment: Mapping[str, str], output: Path | None
) -> Situation:
    """Look at the machine once; with a GPU this takes a second."""
    samples = []
    with nvml.session() as there:
        if there:
            for turn in range(SAMPLES):
                if turn:
                    time.sleep(BETWEEN_S)
                samples.append(nvml.sample())
                if not samples[0]:
                    break
    return Situation(
        engine=engine,
        workload=workload,
        machine=devices.visible(devices.machine(), environment.get(gpus.VISIBLE)),
        samples=tuple(sample for sample in samples if sample),
        others=vendors.found(),
        environment=environment,
        output=output or paths.runs(),
    )


def run(situation: Situation) -> list[Line]:
    """Return the lines of all checks, in the table's order."""
    return [line for check in CHECKS for line in check.look(situation)]


def refuse_failed(lines: Sequence[Line]) -> None:
    """Raise PreflightFailed if a line failed; the message has each of them."""
    failed = [line for line in lines if line.state == FAIL]
    if failed:
        first, *others = failed
        more = "".join(f"\n  also: {line.saw} ({line.todo})" for line in others)
        raise PreflightFailed(
            f"{first.id}: {first.saw}",
            todo=f"{first.todo}{more}\n  `invoke doctor` shows all checks; --no-preflight launches all the same",
        )
