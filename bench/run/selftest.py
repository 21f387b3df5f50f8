"""The guard's negative control: known losses on the real engine, each of which has to be caught, and a clean run."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import EngineFailed, EvidenceMissing, FallbackDetected
from bench.run import benchmark, plan

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.run.options import Options
    from bench.run.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """A way to lose the native backend or the workload: what is done, and the exit code that it has to end with."""

    name: str
    done: str
    exit_code: int
    arguments: tuple[str, ...] = ()
    suffix: str = ""
    attention_backend: str | None = None
    only_on: str | None = None


LOSSES = (
    Loss(name="clean", done="nothing", exit_code=0),
    Loss(
        name="quantised-name",
        done="a model path that ends in -awq",
        exit_code=FallbackDetected.exit_code,
        suffix="-awq",
    ),
    Loss(
        name="diffusers",
        done="--backend=diffusers",
        exit_code=FallbackDetected.exit_code,
        arguments=("--backend=diffusers",),
    ),
    Loss(
        name="attention",
        done="an attention backend that this device lacks (fa on a CPU)",
        exit_code=FallbackDetected.exit_code,
        attention_backend="fa",
        only_on="cpu",
    ),
    Loss(
        name="silent-log",
        done="--log-level=warning",
        exit_code=EvidenceMissing.exit_code,
        arguments=("--log-level=warning",),
    ),
    Loss(
        name="failed-save",
        done="an output folder that cannot be written",
        exit_code=EngineFailed.exit_code,
        arguments=("--output-path=/dev/null/nowhere",),
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caught:
    """How one loss ended: the exit code, the finding that decided, and whether that is what had to happen."""

    loss: Loss
    exit_code: int
    outcome: str
    finding: str | None
    record: Path

    @property
    def right(self) -> bool:
        """Whether the loss was caught, or the clean run was let through."""
        return self.exit_code == self.loss.exit_code


def run(options: Options, tell: Callable[[Caught], None]) -> list[Caught]:
    """Run every loss that this device can have, telling each result as it comes; return them all.

    Raises:
        BenchError: the plan cannot be made at all.
    """
    planned = plan.plan(options)
    results = []
    with tempfile.TemporaryDirectory(prefix="bench-self-test-") as scratch:
        for loss in LOSSES:
            if loss.only_on not in (None, planned.machine.kind):
                continue
            result = benchmark.run(_lose(planned, loss, Path(scratch)))
            verdict = result.record["verdict"]
            caught = Caught(
                loss=loss,
                exit_code=0 if result.error is None else result.error.exit_code,
                outcome=verdict["outcome"],
                finding=verdict["findings"][0]["id"] if result.error is not None else None,
                record=result.path,
            )
            tell(caught)
            results.append(caught)
    return results


def _lose(planned: Plan, loss: Loss, scratch: Path) -> Plan:
    """Return the plan with the loss in it. The expectation stays: that is the point."""
    workload = replace(planned.workload, sabotage=loss.arguments, attention_backend=loss.attention_backend)
    if loss.suffix:
        model = Path(planned.workload.model_path)
        lost = scratch / (model.name + loss.suffix)
        shutil.copytree(model, lost)
        workload = replace(workload, model_path=str(lost))
    expectation = plan.expect(workload, planned.engine, planned.machine)
    options = replace(planned.options, precheck=False, label=f"self-test-{loss.name}")
    return replace(planned.changed(workload, expectation), options=options)
