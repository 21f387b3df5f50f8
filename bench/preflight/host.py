"""Checks of the host: memory, disk, ports, write access, and the CPU if it is the device."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from bench import paths
from bench.engine import command
from bench.machine import host
from bench.models import checkpoint, hub
from bench.preflight.gpus import used_now
from bench.preflight.model import weights_bytes
from bench.preflight.state import FAIL, OK, UNKNOWN, WARN, CheckResult

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.preflight.state import MachineState

RUN_BYTES = 200_000_000
"""What one run may write apart from weights: log, outputs, dumps."""

BUSY_SHARE = 0.5
"""Load per core above which an engine is slowed down."""

BF16_FLAGS = ("avx512_bf16", "amx_bf16", "asimd bf16", " bf16")


def cpu(state: MachineState) -> Iterator[CheckResult]:
    """Check the CPU's bfloat16 support, if the CPU is the device."""
    if state.machine.kind != "cpu" or any(vendor.count for vendor in state.vendors):
        return
    document = host.as_document()
    saw = f"{document['cpu']}, {document['cores']} cores"
    workload = state.workload
    try:
        fast = any(flag in Path("/proc/cpuinfo").read_text(encoding="utf-8") for flag in BF16_FLAGS)
    except OSError:
        fast = True
    if fast or (workload is not None and workload.preset.precision == "fp32"):
        yield CheckResult(id="cpu", state=OK, saw=f"{saw}: the device")
    else:
        yield CheckResult(
            id="cpu",
            state=WARN,
            saw=f"{saw}, no bfloat16 instructions",
            means="bfloat16 is emulated: decoding once took 26 s instead of 0.4 s",
            todo='set precision = "fp32" in the preset',
        )


def load(state: MachineState) -> Iterator[CheckResult]:
    """Check that the CPU is idle, if it is the device."""
    if state.machine.kind != "cpu" or any(vendor.count for vendor in state.vendors):
        return
    cores, (average, *_) = os.cpu_count() or 1, os.getloadavg()
    saw = f"load average {average:.1f} on {cores} cores over the last minute"
    if average > BUSY_SHARE * cores:
        yield CheckResult(
            id="cpu.load",
            state=WARN,
            saw=saw,
            means="this machine is busy: timings may be far too high (a tiny run once took 60 times as long)",
            todo="wait until it is quiet, or do not quote the timings",
        )
    else:
        yield CheckResult(id="cpu.load", state=OK, saw=saw)


def memory(state: MachineState) -> Iterator[CheckResult]:
    """Check that the weights fit: into the GPUs' memory, or the host's if the CPU is the device."""
    size = weights_bytes(state)
    free = psutil.virtual_memory().available
    if state.workload is None:
        yield CheckResult(id="memory", state=OK, saw=f"{_gb(free)} of memory free")
        return
    if size is None:
        yield CheckResult(
            id="memory",
            state=UNKNOWN,
            saw=f"{_gb(free)} of memory free",
            means="the model's size is unknown until it is downloaded",
            todo="check the model's page on the hub",
        )
        return
    used = used_now(state)
    if used:
        room = sum(gpu.memory_bytes - gpu.memory_used_bytes for gpu in used)
        if size > room:
            yield CheckResult(
                id="memory.gpu",
                state=WARN,
                saw=f"{_gb(room)} free on {len(used)} GPUs, the weights take {_gb(size)}",
                means="the engine must offload, or runs out of memory",
                todo="use more GPUs, or a preset that offloads",
            )
        else:
            saw = f"{_gb(room)} free on the GPUs, the weights take {_gb(size)}"
            yield CheckResult(id="memory.gpu", state=OK, saw=saw)
    elif size > free:
        yield CheckResult(
            id="memory",
            state=FAIL,
            saw=f"{_gb(free)} of memory free, the weights take {_gb(size)}",
            means="the engine would be killed while loading",
            todo="free memory, or choose a smaller model",
        )
        return
    yield CheckResult(id="memory", state=OK, saw=f"{_gb(free)} of memory free")


def disk(state: MachineState) -> Iterator[CheckResult]:
    """Check the disk space for the run's files, and for a model that is yet to be made or downloaded."""
    places = [("disk.runs", state.output, RUN_BYTES, _elsewhere(state))]
    workload = state.workload
    if workload is not None:
        here = Path(workload.model_path)
        made = workload.preset.checkpoint
        if here.is_absolute() and not here.exists() and made is not None:
            size = checkpoint.RECIPES[made.recipe].bytes_by_size[made.size]
            places.append(("disk.checkpoints", here, size, "set XDG_CACHE_HOME"))
    for identity, place, needed, elsewhere in places:
        existing = nearest(place)
        free = shutil.disk_usage(existing).free
        if free < needed:
            yield CheckResult(
                id=identity,
                state=FAIL,
                saw=f"{_gb(free)} free at {existing}, {_gb(needed)} needed",
                means="a file would be truncated and the run lost",
                todo=f"free some space, or {elsewhere}",
            )
        else:
            yield CheckResult(id=identity, state=OK, saw=f"{_gb(free)} free at {existing}")
    if workload is not None and not Path(workload.model_path).is_absolute():
        cache = hub.cache_folder(state.environment)
        if hub.cached(workload.model_path, state.environment) is None:
            free = shutil.disk_usage(nearest(cache)).free
            yield CheckResult(
                id="disk.model",
                state=UNKNOWN,
                saw=f"{_gb(free)} free at {cache}",
                means="the model's size is unknown until it is downloaded",
                todo="check the model's page on the hub",
            )


def writable(state: MachineState) -> Iterator[CheckResult]:
    """Check that run directories and the cache can be written."""
    for identity, place, todo in (
        ("write.runs", state.output, _elsewhere(state)),
        ("write.cache", paths.cache(), "set XDG_CACHE_HOME"),
    ):
        existing = nearest(place)
        # /proc and the like grant root access and refuse later; they have no capacity
        if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK) and shutil.disk_usage(existing).total:
            yield CheckResult(id=identity, state=OK, saw=f"{place} is writable")
        else:
            yield CheckResult(
                id=identity,
                state=FAIL,
                saw=f"{place} is not writable",
                means="the run's files cannot be stored",
                todo=todo,
            )


def ports(state: MachineState) -> Iterator[CheckResult]:  # noqa: ARG001 - all checks have one signature
    """Check that a launch can get its two ports."""
    try:
        command.free_ports(2)
    except OSError as error:
        yield CheckResult(
            id="ports",
            state=FAIL,
            saw=f"no free port on 127.0.0.1: {error.strerror}",
            means="the engine's processes could not communicate",
            todo="find out what holds them: ss -tlnp",
        )
        return
    try:
        low, high = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="utf-8").split()
        saw = f"free ports between {low} and {high}"
    except (OSError, ValueError):
        saw = "free ports"
    yield CheckResult(id="ports", state=OK, saw=saw)


def _elsewhere(state: MachineState) -> str:
    """Return how to have run directories made elsewhere: by what chose the present folder."""
    return "set BENCH_RUNS" if state.output == paths.runs() else "name another folder with --output-dir"


def nearest(place: Path) -> Path:
    """Return the path itself, or its nearest existing parent."""
    return next(folder for folder in (place.absolute(), *place.absolute().parents) if folder.exists())


def _gb(size: int) -> str:
    return f"{size / 1e9:,.1f} GB"
