"""What the machine has: accelerators and driver through NVML, and the host itself."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from typing import Any

import psutil


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


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def machine() -> Machine:
    """Return the accelerators that NVML shows; without NVML or a GPU, the CPU."""
    import pynvml  # noqa: PLC0415 - only a run needs it

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return Machine(kind="cpu", devices=(), driver=None)
    try:
        devices = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            devices.append(
                Device(
                    index=index,
                    name=_text(pynvml.nvmlDeviceGetName(handle)),
                    uuid=_text(pynvml.nvmlDeviceGetUUID(handle)),
                    memory_bytes=int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
                )
            )
        driver = _text(pynvml.nvmlSystemGetDriverVersion())
    finally:
        pynvml.nvmlShutdown()
    if not devices:
        return Machine(kind="cpu", devices=(), driver=None)
    return Machine(kind="cuda", devices=tuple(devices), driver=driver)


def visible(found: Machine, cuda_visible_devices: str | None) -> Machine:
    """Return the machine as a launch sees it through CUDA_VISIBLE_DEVICES (indices or UUIDs; None: all)."""
    if cuda_visible_devices is None or found.kind == "cpu":
        return found
    wanted = [part.strip() for part in cuda_visible_devices.split(",") if part.strip()]
    devices = tuple(
        device
        for part in wanted
        for device in found.devices
        if part == str(device.index) or device.uuid.startswith(part)
    )
    return Machine(kind="cuda" if devices else "cpu", devices=devices, driver=found.driver)


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123 - a kernel file, read by line
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def host() -> dict[str, Any]:
    """Return the host for a record: system, machine type, CPU and its bfloat16 support, cores, memory in bytes."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
    }


def for_record(found: Machine) -> dict[str, Any]:
    """Return the machine as a record holds it."""
    return {"kind": found.kind, "driver": found.driver, "items": [asdict(device) for device in found.devices]}
