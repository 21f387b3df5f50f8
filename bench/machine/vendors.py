"""Accelerators of other makers, through the makers' own tools where they are installed.

Sources: AMD SMI's command line manual (``amd-smi list --json``) and Ascend's ``npu-smi info -l``. Written from the
manuals; never tried on such a machine.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass

from bench import process

TOOL_SECONDS = 20
FAULT_CHARACTERS = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class VendorDevices:
    """How many devices a maker's tool lists; ``count`` is None if its answer was not understood: see ``fault``."""

    maker: str
    tool: str
    count: int | None
    fault: str | None = None


def devices() -> tuple[VendorDevices, ...]:
    """Return what each tool on PATH lists; empty if none is installed."""
    readers = (("AMD", "amd-smi", _amd), ("Ascend", "npu-smi", _ascend))
    return tuple(reader(maker, tool) for maker, tool, reader in readers if shutil.which(tool) is not None)


def _amd(maker: str, tool: str) -> VendorDevices:
    ended = process.capture([tool, "list", "--json"], timeout_s=TOOL_SECONDS)
    try:
        return VendorDevices(maker=maker, tool=tool, count=len(json.loads(ended.stdout)))
    except ValueError:
        return _not_understood(maker, tool, ended)


def _ascend(maker: str, tool: str) -> VendorDevices:
    ended = process.capture([tool, "info", "-l"], timeout_s=TOOL_SECONDS)
    total = re.search(r"Total Count\s*:\s*(\d+)", ended.stdout)
    if total is None:
        return _not_understood(maker, tool, ended)
    return VendorDevices(maker=maker, tool=tool, count=int(total[1]))


def _not_understood(maker: str, tool: str, ended: process.Captured) -> VendorDevices:
    lines = (ended.stderr or ended.stdout).strip().splitlines()
    fault = lines[-1][:FAULT_CHARACTERS] if lines else f"exit code {ended.exit_code}"
    return VendorDevices(maker=maker, tool=tool, count=None, fault=fault)
