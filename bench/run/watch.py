"""The device during a run, and what disturbed the run as findings of its verdict.

GPUs are sampled once a second beside the engine. For a CPU the time that other processes used is counted.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import psutil

from bench.fallback import finding as f
from bench.fallback.finding import Finding
from bench.machine import gpus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.machine.gpus import Gpu

INTERVAL_S = 1.0
WORKING_PERCENT = 50
CLOCK_DROP = 0.9
"""A working GPU below this share of the highest clock that the run saw has dropped."""

READINGS = 5
"""Of the processes below this one, until none came or went meanwhile."""

SHARED_CPU = 0.1
"""Share of all cores' time that others may use before it is said."""


@dataclass(slots=True)
class _Seen:
    """What a run saw of one GPU."""

    index: int
    working_mhz: list[int] = field(default_factory=list)
    slowdowns: Counter[str] = field(default_factory=Counter)
    limits: Counter[str] = field(default_factory=Counter)
    foreign: set[int] = field(default_factory=set)
    hottest_c: int | None = None
    samples: int = 0


class Watch:
    """Watches from entering to leaving the block: the GPUs that are named, or without any the CPU.

    ``during`` is what the block is called in a finding.
    """

    def __init__(self, uuids: Sequence[str], interval_s: float = INTERVAL_S, *, during: str = "launch") -> None:
        self._during = during
        self._seen: dict[str, _Seen] = {}
        self._uuids = frozenset(uuids)
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._cpu_start = _cpu_seconds()
        self._others_share: float | None = None

    def __enter__(self) -> Self:
        if self._uuids:
            self._thread = threading.Thread(target=self._run, name="gpu-watch", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_raised: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        else:
            self._others_share = _share_of_others(self._cpu_start, _cpu_seconds())

    def _run(self) -> None:
        with gpus.opened() as available:
            if not available:
                return
            ended = False
            while not ended:  # once more after the end: what is on the GPU now was not ours
                ended = self._stop.wait(self._interval_s)
                for gpu in gpus.sample():
                    if gpu.uuid in self._uuids:
                        self._note(gpu)

    def _note(self, gpu: Gpu) -> None:
        seen = self._seen.setdefault(gpu.uuid, _Seen(index=gpu.index))
        seen.samples += 1
        if gpu.load_percent is not None and gpu.load_percent >= WORKING_PERCENT and gpu.sm_mhz is not None:
            seen.working_mhz.append(gpu.sm_mhz)
        seen.slowdowns.update(gpu.slowdowns())
        seen.limits.update(gpu.limits())
        if gpu.temperature_c is not None:
            seen.hottest_c = max(gpu.temperature_c, seen.hottest_c or gpu.temperature_c)
        seen.foreign |= {found.pid for found in gpu.processes or () if _is_foreign(found.pid)}

    def findings(self) -> list[Finding]:
        """Return what disturbed the run, one finding for each kind and GPU."""
        found = []
        if self._others_share is not None and self._others_share > SHARED_CPU:
            found.append(
                _finding(
                    "cpu.shared",
                    f"other processes used {100 * self._others_share:.0f} % of the CPU during the {self._during}",
                    "the CPU was not this run's own: its times are longer, by how much nobody knows",
                    "run again when it is quiet",
                    severity=f.INFO,
                )
            )
        for seen in self._seen.values():
            if seen.foreign:
                pids = ", ".join(map(str, sorted(seen.foreign)))
                found.append(
                    _finding(
                        "gpu.foreign_process",
                        f"GPU {seen.index}: process {pids}",
                        "another job was on the GPU during the run: neither's time is its own",
                        "run again on a GPU of its own",
                    )
                )
            if seen.slowdowns:
                texts = ", ".join(f"{text} in {count} of {seen.samples}" for text, count in seen.slowdowns.items())
                found.append(
                    _finding(
                        "gpu.throttled",
                        f"GPU {seen.index}: {texts} samples, up to {seen.hottest_c} degrees",
                        "the GPU was slower than its settings say, for a part of the run",
                        "let it cool and run again; nvidia-smi -q -d PERFORMANCE",
                    )
                )
            elif seen.working_mhz and min(seen.working_mhz) < CLOCK_DROP * max(seen.working_mhz):
                held = f" ({', '.join(seen.limits)})" if seen.limits else ""
                found.append(
                    _finding(
                        "gpu.clock_drop",
                        f"GPU {seen.index}: {min(seen.working_mhz)} to {max(seen.working_mhz)} MHz under load{held}",
                        "the clock changed during the run, and the times with it",
                        "compare with interleaved repeats, or lock the clocks: nvidia-smi -lgc",
                        severity=f.INFO,
                    )
                )
        return found

    def document(self) -> list[dict[str, Any]]:
        """Return what was seen, for the record: one entry for each GPU."""
        return [
            {
                "index": seen.index,
                "samples": seen.samples,
                "working_mhz": [min(seen.working_mhz), max(seen.working_mhz)] if seen.working_mhz else None,
                "hottest_c": seen.hottest_c,
                "slowdowns": dict(seen.slowdowns),
                "limits": dict(seen.limits),
            }
            for seen in self._seen.values()
        ]


def _cpu_seconds() -> tuple[float, float, float]:
    """Return seconds of all cores' time so far: of everybody, of us and what we started, and idle ones."""
    everybody, mine = psutil.cpu_times(), _own_seconds()
    idle = everybody.idle + getattr(everybody, "iowait", 0.0)
    guests = getattr(everybody, "guest", 0.0) + getattr(everybody, "guest_nice", 0.0)  # counted in user time, too
    return sum(everybody) - idle - guests, mine, idle


def _own_seconds() -> float:
    """Return seconds of this process and of what it started, the ended included.

    A process that ends during the reading would be counted twice, here and in its parent, or not at all: so they are
    read again until they are the same before and after.
    """
    started, seconds = _started(), 0.0
    for _ in range(READINGS):
        seconds = sum(os.times()[:4]) + sum(map(_seconds_of, started))
        before, started = started, _started()
        if started == before:
            break
    return seconds


def _started() -> list[psutil.Process]:
    """Return the processes below this one that are running: the engine of the other arm of a pair is not foreign."""
    return psutil.Process().children(recursive=True)


def _seconds_of(process: psutil.Process) -> float:
    """Return the seconds that a process and the children that it waited for have used, 0 if it has just ended."""
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system + times.children_user + times.children_system)


def _share_of_others(start: tuple[float, float, float], end: tuple[float, float, float]) -> float | None:
    """Return the share of all cores' time that others used between two moments, None if no time has passed."""
    busy, own, idle = (after - before for before, after in zip(start, end, strict=True))
    return max(0.0, busy - own) / (busy + idle) if busy + idle > 0 else None


def _is_foreign(pid: int) -> bool:
    """Tell whether a process is not one that we started; one that this container cannot see is not judged.

    The driver may give the host's numbers, and another process can have the same number in here: so it must be seen to
    have a GPU open.
    """
    try:
        process = psutil.Process(pid)
        mine = psutil.Process()
        return process.pid != mine.pid and mine not in process.parents() and _has_gpu_open(pid)
    except psutil.Error:
        return False


def _has_gpu_open(pid: int) -> bool:
    try:
        return any(str(link.readlink()).startswith("/dev/nvidia") for link in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


def _finding(identity: str, text: str, means: str, todo: str, severity: str = f.DEGRADED) -> Finding:
    return Finding(
        id=identity, category="device", severity=severity, source="device", text=text, means=means, todo=todo
    )
