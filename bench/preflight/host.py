"""Checks of the host: memory, disk, ports, write access, and the CPU where it is the device."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from bench import paths
from bench.engine import command
from bench.machine import devices
from bench.models import checkpoint, hub
from bench.preflight.gpus import used_now
from bench.preflight.line import FAIL, OK, UNKNOWN, WARN, Line
from bench.preflight.size import weights_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.preflight.line import Situation

RUN_BYTES = 200_000_000
"""What one run may write beside weights: log, outputs, dumps."""

BUSY_SHARE = 0.5
"""Load for each core that leaves too little for an engine."""

BF16_FLAGS = ("avx512_bf16", "amx_bf16", "asimd bf16", " bf16")


def cpu(situation: Situation) -> Iterator[Line]:
    """Tell what the CPU is good for, where it is the device."""
    if situation.machine.kind != "cpu" or any(other.count for other in situation.others):
        return
    host = devices.host()
    saw = f"{host['cpu']}, {host['cores']} cores"
    workload = situation.workload
    try:
        fast = any(flag in Path("/proc/cpuinfo").read_text(encoding="utf-8") for flag in BF16_FLAGS)
    except OSError:
        fast = True
    if fast or (workload is not None and workload.preset.precision == "fp32"):
        yield Line(id="cpu", state=OK, saw=f"{saw}: the device")
    else:
        yield Line(
            id="cpu",
            state=WARN,
            saw=f"{saw}, no bfloat16 instructions",
            means="bfloat16 is emulated: decoding took 26 s in place of 0.4 s",
            todo="presets for a CPU say precision = fp32",
        )


def load(situation: Situation) -> Iterator[Line]:
    """Check that the CPU is free, where it is the device."""
    if situation.machine.kind != "cpu" or any(other.count for other in situation.others):
        return
    cores, (average, *_) = os.cpu_count() or 1, os.getloadavg()
    saw = f"load average {average:.1f} on {cores} cores over the last minute"
    if average > BUSY_SHARE * cores:
        yield Line(
            id="cpu.load",
            state=WARN,
            saw=saw,
            means="other work would share the CPU: on a busy one a tiny run took 60 times as long",
            todo="wait until it is quiet, before you take a number from here",
        )
    else:
        yield Line(id="cpu.load", state=OK, saw=saw)


def memory(situation: Situation) -> Iterator[Line]:
    """Check that the weights fit: into the GPUs' memory, or the host's where the CPU is the device."""
    size = weights_bytes(situation)
    free = psutil.virtual_memory().available
    if situation.workload is None:
        yield Line(id="memory", state=OK, saw=f"{_gb(free)} of memory free")
        return
    if size is None:
        yield Line(
            id="memory",
            state=UNKNOWN,
            saw=f"{_gb(free)} of memory free",
            means="the model's size is not known before it is fetched",
            todo="see the model's page on the hub",
        )
        return
    used = used_now(situation)
    if used:
        room = sum(gpu.memory_total_bytes - gpu.memory_used_bytes for gpu in used)
        if size > room:
            yield Line(
                id="memory.gpu",
                state=WARN,
                saw=f"{_gb(room)} free on {len(used)} GPUs, the weights take {_gb(size)}",
                means="the engine has to offload, or runs out of memory",
                todo="more GPUs, or a preset that offloads on purpose",
            )
        else:
            yield Line(id="memory.gpu", state=OK, saw=f"{_gb(room)} free on the GPUs, the weights take {_gb(size)}")
    elif size > free:
        yield Line(
            id="memory",
            state=FAIL,
            saw=f"{_gb(free)} of memory free, the weights take {_gb(size)}",
            means="the engine would be killed while it loads",
            todo="free memory, or choose a smaller model",
        )
        return
    yield Line(id="memory", state=OK, saw=f"{_gb(free)} of memory free")


def disk(situation: Situation) -> Iterator[Line]:
    """Check the room for the run's files, and for a model that has to be made or fetched."""
    places = [("disk.runs", situation.output, RUN_BYTES)]
    workload = situation.workload
    if workload is not None:
        here = Path(workload.model_path)
        made = workload.preset.checkpoint
        if here.is_absolute() and not here.exists() and made is not None:
            places.append(("disk.checkpoints", here, checkpoint.RECIPES[made.recipe].bytes_by_size[made.size]))
    for identity, place, needed in places:
        existing = nearest(place)
        free = shutil.disk_usage(existing).free
        if free < needed:
            yield Line(
                id=identity,
                state=FAIL,
                saw=f"{_gb(free)} free at {existing}, {_gb(needed)} needed",
                means="a file would be cut short, and the run lost",
                todo="free some, or choose another place: --output-dir, XDG_CACHE_HOME, HF_HOME",
            )
        else:
            yield Line(id=identity, state=OK, saw=f"{_gb(free)} free at {existing}")
    if workload is not None and not Path(workload.model_path).is_absolute():
        cache = hub.cache_folder(situation.environment)
        if hub.cached(workload.model_path, situation.environment) is None:
            free = shutil.disk_usage(nearest(cache)).free
            yield Line(
                id="disk.model",
                state=UNKNOWN,
                saw=f"{_gb(free)} free at {cache}",
                means="the model's size is not known before it is fetched",
                todo="see the model's page on the hub",
            )


def writable(situation: Situation) -> Iterator[Line]:
    """Check that run directories and the cache can be written."""
    for identity, place, option in (
        ("write.runs", situation.output, "choose another --output-dir, or set BENCH_RUNS"),
        ("write.cache", paths.cache(), "set XDG_CACHE_HOME"),
    ):
        existing = nearest(place)
        # /proc and the like say yes to root and refuse later: nothing can be made where nothing can be stored
        if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK) and shutil.disk_usage(existing).total:
            yield Line(id=identity, state=OK, saw=f"{place} can be written")
        else:
            yield Line(
                id=identity,
                state=FAIL,
                saw=f"{place} cannot be written",
                means="there is no place for the run's files",
                todo=option,
            )


def ports(situation: Situation) -> Iterator[Line]:  # noqa: ARG001 - all checks are called alike
    """Check that a launch gets its two ports."""
    try:
        command.free_ports(2)
    except OSError as error:
        yield Line(
            id="ports",
            state=FAIL,
            saw=f"no free port on 127.0.0.1: {error.strerror}",
            means="the engine's processes could not talk to each other",
            todo="see what holds them: ss -tlnp",
        )
        return
    try:
        low, high = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="utf-8").split()
        saw = f"free ports between {low} and {high}"
    except (OSError, ValueError):
        saw = "free ports"
    yield Line(id="ports", state=OK, saw=saw)


def nearest(place: Path) -> Path:
    """Return the place itself, or the nearest folder above it that exists."""
    return next(folder for folder in (place.absolute(), *place.absolute().parents) if folder.exists())


def _gb(size: int) -> str:
    return f"{size / 1e9:,.1f} GB"
