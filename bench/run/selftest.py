"""The guard's negative control: known faults on the real engine, each of which must be caught, and a clean run."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import EngineFailed, EvidenceMissing, FallbackDetected
from bench.record import store
from bench.run import benchmark, plan

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from bench.process import Observer
    from bench.run.options import Options
    from bench.run.plan import Plan

    Shown = AbstractContextManager[Observer]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A way to lose the native backend or the workload: what is done, and the expected exit code."""

    name: str
    done: str
    exit_code: int
    arguments: tuple[str, ...] = ()
    suffix: str = ""
    attention_backend: str | None = None
    only_on: str | None = None


FAULTS = (
    Fault(name="clean", done="nothing", exit_code=0),
    Fault(
        name="quantised-name",
        done="a model path that ends in -awq",
        exit_code=FallbackDetected.exit_code,
        suffix="-awq",
    ),
    Fault(
        name="diffusers",
        done="--backend=diffusers",
        exit_code=FallbackDetected.exit_code,
        arguments=("--backend=diffusers",),
    ),
    Fault(
        name="attention",
        done="an attention backend that this device lacks (fa on a CPU)",
        exit_code=FallbackDetected.exit_code,
        attention_backend="fa",
        only_on="cpu",
    ),
    Fault(
        name="silent-log",
        done="--log-level=warning",
        exit_code=EvidenceMissing.exit_code,
        arguments=("--log-level=warning",),
    ),
    Fault(
        name="failed-save",
        done="an output folder that cannot be written",
        exit_code=EngineFailed.exit_code,
        arguments=("--output-path=/dev/null/nowhere",),
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultResult:
    """How one fault ended: the exit code and the finding that decided."""

    fault: Fault
    exit_code: int
    outcome: str
    finding: str | None
    record: Path

    @property
    def right(self) -> bool:
        """Whether the fault was caught, or the clean run was let through."""
        return self.exit_code == self.fault.exit_code


def run(
    options: Options, tell: Callable[[FaultResult], None], display: Callable[[str, str, int], Shown]
) -> list[FaultResult]:
    """Run every fault that this device can have, telling each result as it comes; return them all.

    ``display`` takes a fault's name, its place among the others and how many are left, as that of a batch does.

    Raises:
        BenchError: the plan cannot be made at all.
    """
    planned = plan.plan(options)
    folder = store.new_run("self-test", options.model, options.output_dir)
    results = []
    with tempfile.TemporaryDirectory(prefix="bench-self-test-") as scratch:
        faults = [fault for fault in FAULTS if fault.only_on in (None, planned.machine.kind)]
        for number, fault in enumerate(faults, 1):
            with display(fault.name, f"fault {number}/{len(faults)}", len(faults) - number + 1) as observer:
                directory = folder / fault.name  # not a run by itself: no trend and no `last` is made of it
                directory.mkdir()
                result = benchmark.run(_with_fault(planned, fault, Path(scratch)), observer, directory=directory)
            verdict = result.record["verdict"]
            outcome = FaultResult(
                fault=fault,
                exit_code=0 if result.error is None else result.error.exit_code,
                outcome=verdict["outcome"],
                finding=verdict["findings"][0]["id"] if result.error is not None else None,
                record=result.path,
            )
            tell(outcome)
            results.append(outcome)
    return results


def _with_fault(planned: Plan, fault: Fault, scratch: Path) -> Plan:
    """Return the plan with the fault in it. The expectation stays that of a clean run."""
    workload = replace(planned.workload, sabotage=fault.arguments, attention_backend=fault.attention_backend)
    if fault.suffix:
        model = Path(planned.workload.model_path)
        renamed = scratch / (model.name + fault.suffix)
        shutil.copytree(model, renamed)
        workload = replace(workload, model_path=str(renamed))
    expectation = plan.expect(workload, planned.engine, planned.machine)
    options = replace(planned.options, precheck=False, label=f"self-test-{fault.name}")
    return replace(planned.changed(workload, expectation), options=options)
