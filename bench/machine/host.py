"""The host: system, CPU, cores and memory."""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path
from typing import Any

import psutil

MACHINE_IDS = ("/etc/machine-id", "/var/lib/dbus/machine-id")


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


def identity() -> str | None:
    """Return a hash of the machine's id, or of its network name where it has none; None if it has neither."""
    for place in MACHINE_IDS:
        try:
            named = Path(place).read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            continue
        if named:
            return hashlib.sha256(f"machine-id {named}".encode()).hexdigest()
    named = platform.node()
    return hashlib.sha256(f"node {named}".encode()).hexdigest() if named else None
