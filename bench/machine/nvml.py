"""The state of NVIDIA GPUs at one moment, through NVML: load, memory, clocks, what slows them, errors, processes.

What a driver does not tell is None, never 0. Bits and their meaning: nvml.h, ``nvmlClocksEventReason*``.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SLOWDOWNS = {
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}
"""Reasons that make a GPU slower than its settings say: heat, or a power supply that complains."""

LIMITS = {
    0x02: "application clocks are set",
    0x04: "power cap",
    0x10: "sync boost",
    0x100: "display clocks",
}
"""Reasons that a setting, or the card's power limit, stands behind; 0x01 (idle) is none of either."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process that has a context on a GPU; ``pid`` is the host's, which a container may not see."""

    pid: int
    memory_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU at one moment: load in percent, memory in bytes, clocks in MHz, temperature in degrees, power in W."""

    index: int
    name: str
    uuid: str
    memory_total_bytes: int
    memory_used_bytes: int
    load_percent: int | None
    sm_mhz: int | None
    sm_max_mhz: int | None
    temperature_c: int | None
    power_w: float | None
    reasons: int | None
    """Bits of what holds the clocks down."""
    ecc: bool | None
    ecc_uncorrected: int | None
    """Uncorrected memory errors since the driver was loaded."""
    mig: bool | None
    processes: tuple[Process, ...] | None

    def slowdowns(self) -> list[str]:
        """Return what makes it slower than its settings say."""
        return [text for bit, text in SLOWDOWNS.items() if (self.reasons or 0) & bit]

    def limits(self) -> list[str]:
        """Return the settings that hold its clocks down."""
        return [text for bit, text in LIMITS.items() if (self.reasons or 0) & bit]


@contextlib.contextmanager
def session() -> Iterator[bool]:
    """Open NVML for the block; the value tells whether there is one."""
    import pynvml  # noqa: PLC0415 - only a run needs it

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield False
        return
    try:
        yield True
    finally:
        pynvml.nvmlShutdown()


def sample() -> tuple[Gpu, ...]:
    """Return all GPUs as they are now; inside a `session` only."""
    import pynvml  # noqa: PLC0415 - only a run needs it

    return tuple(_gpu(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount()))


def _gpu(nvml: Any, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)

    def ask(call: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return call(handle, *arguments)
        except nvml.NVMLError:  # not supported on this card, or not permitted: not known
            return None

    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    load = ask(nvml.nvmlDeviceGetUtilizationRates)
    ecc = ask(nvml.nvmlDeviceGetEccMode)
    mig = ask(nvml.nvmlDeviceGetMigMode)
    power = ask(nvml.nvmlDeviceGetPowerUsage)
    running = ask(nvml.nvmlDeviceGetComputeRunningProcesses)
    return Gpu(
        index=index,
        name=_text(nvml.nvmlDeviceGetName(handle)),
        uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
        memory_total_bytes=int(memory.total),
        memory_used_bytes=int(memory.used),
        load_percent=None if load is None else int(load.gpu),
        sm_mhz=ask(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_SM),
        sm_max_mhz=ask(nvml.nvmlDeviceGetMaxClockInfo, nvml.NVML_CLOCK_SM),
        temperature_c=ask(nvml.nvmlDeviceGetTemperature, nvml.NVML_TEMPERATURE_GPU),
        power_w=None if power is None else power / 1000,
        reasons=ask(nvml.nvmlDeviceGetCurrentClocksThrottleReasons),
        ecc=None if ecc is None else bool(ecc[0]),
        ecc_uncorrected=ask(
            nvml.nvmlDeviceGetTotalEccErrors, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC
        ),
        mig=None if mig is None else bool(mig[0]),
        processes=None
        if running is None
        else tuple(Process(pid=found.pid, memory_bytes=found.usedGpuMemory) for found in running),
    )


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
