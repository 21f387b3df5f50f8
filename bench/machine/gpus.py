"""NVIDIA GPUs through NVML: which ones this machine has, and the state of each at one moment.

A value that the driver does not report is None, never 0. Source of the clock-event bits: nvml.h,
``nvmlClocksEventReason*``.
"""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

VISIBLE = "CUDA_VISIBLE_DEVICES"

SLOWDOWNS = {
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}
"""Reasons why a GPU runs slower than its settings allow: heat or an inadequate power supply."""

LIMITS = {
    0x02: "application clocks are set",
    0x04: "power cap",
    0x10: "sync boost",
    0x100: "display clocks",
}
"""Clock limits that come from a setting or from the card's power limit; 0x01 (idle) belongs to neither table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One accelerator; memory in bytes."""

    index: int
    name: str
    uuid: str
    memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Device kind (``cuda`` or ``cpu``), the devices visible to a launch, and the driver's version (None on a CPU)."""

    kind: str
    devices: tuple[Device, ...]
    driver: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process with a context on a GPU; ``pid`` is the host's and may be invisible inside a container."""

    pid: int
    memory_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu(Device):
    """One GPU at one moment: load in percent, memory in bytes, clocks in MHz, temperature in degrees Celsius."""

    memory_used_bytes: int
    load_percent: int | None
    sm_mhz: int | None
    sm_max_mhz: int | None
    temperature_c: int | None
    reasons: int | None
    """Bits of ``SLOWDOWNS`` and ``LIMITS``."""
    ecc: bool | None
    ecc_uncorrected: int | None
    """Uncorrected memory errors since the driver was loaded."""
    mig: bool | None
    processes: tuple[Process, ...] | None

    def slowdowns(self) -> list[str]:
        """Return why it runs slower than its settings allow."""
        return [text for bit, text in SLOWDOWNS.items() if (self.reasons or 0) & bit]

    def limits(self) -> list[str]:
        """Return the settings that hold its clocks down."""
        return [text for bit, text in LIMITS.items() if (self.reasons or 0) & bit]


@contextlib.contextmanager
def opened() -> Iterator[bool]:
    """Open NVML for the block and yield whether it is available; blocks may be nested."""
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


def machine() -> Machine:
    """Return the accelerators that NVML lists; without NVML or a GPU, the CPU."""
    import pynvml  # noqa: PLC0415 - only a run needs it

    with opened() as available:
        count = pynvml.nvmlDeviceGetCount() if available else 0
        if not count:
            return Machine(kind="cpu", devices=(), driver=None)
        return Machine(
            kind="cuda",
            devices=tuple(Device(**_identity(pynvml, index)) for index in range(count)),
            driver=_text(pynvml.nvmlSystemGetDriverVersion()),
        )


def visible(machine: Machine, cuda_visible_devices: str | None) -> Machine:
    """Return the machine as a launch sees it through CUDA_VISIBLE_DEVICES (indices or UUIDs; None: all)."""
    if cuda_visible_devices is None or machine.kind == "cpu":
        return machine
    names = [part.strip() for part in cuda_visible_devices.split(",") if part.strip()]
    devices = tuple(
        device
        for name in names
        for device in machine.devices
        if name == str(device.index) or device.uuid.startswith(name)
    )
    return Machine(kind="cuda" if devices else "cpu", devices=devices, driver=machine.driver)


def as_document(machine: Machine) -> dict[str, Any]:
    """Return the machine as a record holds it."""
    return {"kind": machine.kind, "driver": machine.driver, "items": [asdict(device) for device in machine.devices]}


def sample() -> tuple[Gpu, ...]:
    """Return the present state of all GPUs; call it only while NVML is `opened`."""
    import pynvml  # noqa: PLC0415 - only a run needs it

    return tuple(_gpu(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount()))


def _identity(nvml: Any, index: int) -> dict[str, Any]:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    return {
        "index": index,
        "name": _text(nvml.nvmlDeviceGetName(handle)),
        "uuid": _text(nvml.nvmlDeviceGetUUID(handle)),
        "memory_bytes": int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
    }


def _gpu(nvml: Any, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)

    def ask(call: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return call(handle, *arguments)
        except nvml.NVMLError:  # unsupported on this card, or not permitted
            return None

    load = ask(nvml.nvmlDeviceGetUtilizationRates)
    ecc = ask(nvml.nvmlDeviceGetEccMode)
    mig = ask(nvml.nvmlDeviceGetMigMode)
    running = ask(nvml.nvmlDeviceGetComputeRunningProcesses)
    return Gpu(
        **_identity(nvml, index),
        memory_used_bytes=int(nvml.nvmlDeviceGetMemoryInfo(handle).used),
        load_percent=None if load is None else int(load.gpu),
        sm_mhz=ask(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_SM),
        sm_max_mhz=ask(nvml.nvmlDeviceGetMaxClockInfo, nvml.NVML_CLOCK_SM),
        temperature_c=ask(nvml.nvmlDeviceGetTemperature, nvml.NVML_TEMPERATURE_GPU),
        reasons=ask(nvml.nvmlDeviceGetCurrentClocksThrottleReasons),
        ecc=None if ecc is None else bool(ecc[0]),
        ecc_uncorrected=ask(
            nvml.nvmlDeviceGetTotalEccErrors, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC
        ),
        mig=None if mig is None else bool(mig[0]),
        processes=None
        if running is None
        else tuple(Process(pid=process.pid, memory_bytes=process.usedGpuMemory) for process in running),
    )


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
