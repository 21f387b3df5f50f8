"""Accelerators that are not NVIDIA's, through their makers' own tools where they are installed.

Sources: AMD SMI's command line manual (``amd-smi list --json``), Ascend's ``npu-smi info -l``. Written from these; no
such machine was at hand.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass

from bench import process

TOOL_SECONDS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What one maker's tool said: how many devices (None: its answer was not understood), and the variable for them."""

    maker: str
    tool: str
    count: int | None
    variable: str
    fault: str | None = None


def found() -> tuple[Found, ...]:
    """Return what the tools say that are on PATH; empty where there are none."""
    return tuple(
        reader() for tool, reader in (("amd-smi", _amd), ("npu-smi", _ascend)) if shutil.which(tool) is not None
    )


def _amd() -> Found:
    ended = process.capture(["amd-smi", "list", "--json"], timeout_s=TOOL_SECONDS)
    try:
        count = len(json.loads(ended.stdout))
    except ValueError:
        return _not_understood("AMD", "amd-smi", "HIP_VISIBLE_DEVICES", ended)
    return Found(maker="AMD", tool="amd-smi", count=count, variable="HIP_VISIBLE_DEVICES")


def _ascend() -> Found:
    ended = process.capture(["npu-smi", "info", "-l"], timeout_s=TOOL_SECONDS)
    total = re.search(r"Total Count\s*:\s*(\d+)", ended.stdout)
    if total is None:
        return _not_understood("Ascend", "npu-smi", "ASCEND_RT_VISIBLE_DEVICES", ended)
    return Found(maker="Ascend", tool="npu-smi", count=int(total[1]), variable="ASCEND_RT_VISIBLE_DEVICES")


def _not_understood(maker: str, tool: str, variable: str, ended: process.Captured) -> Found:
    said = (ended.stderr or ended.stdout).strip().splitlines()
    fault = said[-1][:120] if said else f"exit code {ended.exit_code}"
    return Found(maker=maker, tool=tool, count=None, variable=variable, fault=fault)
