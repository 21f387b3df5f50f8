"""Cells on this machine: one child process each, packed onto idle devices, never two on one."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from typing import TYPE_CHECKING

from bench import paths, process
from bench.errors import PreflightFailed
from bench.machine import gpus, locks
from bench.sweep import executor
from bench.sweep.cell import last_words
from bench.sweep.executor import Seen

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bench.sweep.executor import Task
    from bench.sweep.folder import Folder

THE_CPU = "cpu"
"""The one device of a machine without GPUs: cells beside each other would disturb each other."""


ORDERLY_SECONDS = 10.0
STOP_AGAIN_SECONDS = 0.2


class Local:
    """Runs cells as children of this process, whose end is theirs."""

    def __init__(self, folder: Folder, logs: str = "processes") -> None:
        machine = gpus.visible(gpus.machine(), os.environ.get(gpus.VISIBLE))
        self._devices = [device.uuid for device in machine.devices] or [THE_CPU]
        self._on_cpu = machine.kind == "cpu"
        self.silence: str | None = None
        self._folder = folder
        self._logs = folder.path / logs
        self._logs.mkdir(exist_ok=True)
        self._running: dict[str, tuple[threading.Thread, list[str], Path]] = {}
        self._ended: dict[str, str] = {}
        """How the last process of each cell ended."""
        self._jobs: dict[str, int] = {}
        """How many processes were started for each cell."""

    def look(self) -> Mapping[str, Seen]:
        """Return which of the cells that were given to it run and which have ended."""
        for name, (thread, _, log) in list(self._running.items()):
            if not thread.is_alive():
                thread.join()
                del self._running[name]
                said = last_words(log) if log.exists() else None
                self._ended[name] = "its process ended" + (f": {said}" if said else "")
        return {
            name: Seen(state=executor.RUNNING, where="here")
            if name in self._running
            else Seen(state=executor.ENDED, job=str(job), why=self._ended[name])
            for name, job in self._jobs.items()
        }

    def begin(self, tasks: Sequence[Task]) -> Mapping[str, str]:
        """Begin a cell on each set of idle devices; one that needs more than this machine has is refused."""
        refused = {}
        for task in tasks:
            name, wanted = task.cell["id"], 1 if self._on_cpu else max(1, task.cell["gpus"])
            if wanted > len(self._devices):
                refused[name] = f"it needs {wanted} GPUs, and this machine has {len(self._devices)}"
                continue
            if task.avoid:
                refused[name] = "it has to run on another host, and this machine is one host"
                continue
            idle = self._idle()
            if len(idle) >= wanted:
                self._start(task, idle[:wanted])
        return refused

    def _idle(self) -> list[str]:
        """Return the devices that neither a cell nor another run of the workbench uses."""
        busy = {device for _, devices, _ in self._running.values() for device in devices}
        return [device for device in self._devices if device not in busy and _is_free(device)]

    def _start(self, task: Task, devices: list[str]) -> None:
        name, attempt = task.cell["id"], task.attempt
        words = [str(self._folder.path), name, str(attempt)]
        variables = {} if self._on_cpu else {gpus.VISIBLE: ",".join(devices)}

        log = self._logs / f"{name}-{attempt}.log"
        log.unlink(missing_ok=True)  # of an attempt that was cut off before it began

        def run() -> None:
            # a run on GPUs holds their locks itself
            with contextlib.suppress(PreflightFailed), locks.hold(devices if self._on_cpu else []):
                process.stream(
                    [sys.executable, "-m", "bench.sweep.cell", *words],
                    env={**os.environ, **variables},
                    log=log,
                    observer=executor.Unread(),
                    cwd=paths.ROOT,
                )

        thread = threading.Thread(target=run, name=name, daemon=True)
        self._running[name] = (thread, devices, log)
        self._jobs[name] = self._jobs.get(name, 0) + 1
        thread.start()

    def drop(self, cells: Sequence[str]) -> None:
        """Do nothing: no cell waits for what will not come."""

    def stop(self) -> None:
        """Stop all cells and wait for their end; where the sweep is cancelled they first end by themselves."""
        deadline = time.monotonic() + (ORDERLY_SECONDS if self._folder.is_cancelled() else 0)
        for thread, *_ in self._running.values():
            thread.join(max(0, deadline - time.monotonic()))
        for thread, *_ in self._running.values():
            while thread.is_alive():
                process.stop_all()  # again and again: its process may be about to start
                thread.join(STOP_AGAIN_SECONDS)


def _is_free(device: str) -> bool:
    """Tell whether no other run of the workbench holds a device now."""
    try:
        with locks.hold([device]):
            return True
    except PreflightFailed:
        return False
