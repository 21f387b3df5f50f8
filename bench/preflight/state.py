"""What the checks of a preflight look at, and what each returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bench.engine.find import Engine
    from bench.engine.workload import Workload
    from bench.machine.gpus import Gpu, Machine
    from bench.machine.vendors import VendorDevices

OK = "ok"
WARN = "warn"
FAIL = "fail"
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """State (ok, warn, fail, unknown), what was seen, what it means for a run, and the remedy (None: not needed)."""

    id: str
    state: str
    saw: str
    means: str | None = None
    todo: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineState:
    """Everything that the checks look at, gathered once; ``workload`` is None if no model was named.

    ``samples`` holds all GPUs, several times over an interval; ``environment`` is the launch's.
    """

    engine: Engine | None
    workload: Workload | None
    machine: Machine
    samples: tuple[tuple[Gpu, ...], ...]
    vendors: tuple[VendorDevices, ...]
    environment: Mapping[str, str]
    output: Path

    @property
    def gpus_required(self) -> int:
        """The number of accelerators that a launch uses."""
        return 1 if self.workload is None else self.workload.preset.gpus

    @property
    def now(self) -> tuple[Gpu, ...]:
        """The newest sample."""
        return self.samples[-1] if self.samples else ()
