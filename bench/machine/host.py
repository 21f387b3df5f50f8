"""The host: system, CPU, cores and memory."""

from __future__ import annotations

import os
import platform
from typing import Any

import psutil


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123 - a kernel file, read by line
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def as_document() -> dict[str, Any]:
    """Return the host as a record holds it: system, machine type, CPU, cores, memory in bytes."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
    }
