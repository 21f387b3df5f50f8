"""Plain helpers of the tests."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest
from invoke.program import Program

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "tests" / "data"
LOGS = DATA / "logs"
NATIVE = {"log": "cpu/warmup_request.log", "dump": "cpu/warmup_request.json"}
"""The scenario of a replay engine that runs natively."""


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


def invoke_in_process(*arguments, env=None):
    """Run `invoke` in this process, from the repository's root; return its exit code and what it printed.

    A new interpreter for each task costs half a second. Environment, signal handlers and import path are put back; a
    module found through the PYTHONPATH of ``env`` (a simulated NVML) is imported anew each time.
    """
    given = env or {}
    shadows = [entry for entry in given.get("PYTHONPATH", "").split(os.pathsep) if entry]
    shadowed = [path.stem for entry in shadows for path in Path(entry).glob("*.py")]
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGPIPE)}
    bytecode = sys.dont_write_bytecode
    argv = ["invoke", *map(str, arguments)]
    with (
        open(os.devnull) as nothing,
        mock.patch.dict(os.environ, {"COLUMNS": "100"} | given),
        mock.patch.multiple(sys, argv=argv, stdin=nothing, path=[*shadows, str(ROOT), *sys.path]),
        contextlib.chdir(ROOT),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        for name in shadowed:
            sys.modules.pop(name, None)
        try:
            Program(name="Invoke", binary="inv[oke]", binary_names=["invoke", "inv"]).run(argv)
            code = 0
        except SystemExit as end:
            code = end.code or 0
        finally:
            for name in shadowed:
                sys.modules.pop(name, None)
            sys.dont_write_bytecode = bytecode
            for number, handler in handlers.items():
                signal.signal(number, handler)
    return Ended(code=code, out=out.buffer.getvalue().decode(), err=err.buffer.getvalue().decode())


def invoke_command(*arguments):
    return [sys.executable, "-m", "invoke", *map(str, arguments)]


def record_path(ended):
    """Return the path of the record that a task named on its last line."""
    lines = [line for line in ended.out.splitlines() if line.startswith("record: ")]
    assert lines, ended.out + ended.err
    return Path(lines[-1].removeprefix("record: "))


def record_of(ended):
    return json.loads(record_path(ended).read_text())


def processes_like(text, runs=None):
    """Return the command lines of running processes that contain ``text``; of those with these ``runs``, if given.

    Other tests may run beside this one: the environment tells whose a process is.
    """
    mine = None if runs is None else f"\0BENCH_RUNS={runs}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                environment = b"\0" + (entry / "environ").read_bytes()
            except OSError:
                continue
            if text in line and (mine is None or mine in environment):
                found.append(line)
    return found


def check_golden(name, text):
    """Compare a text with its golden file; UPDATE_GOLDEN=1 writes it anew, for a person to read in the diff."""
    path = DATA / "golden" / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), f"{path} differs; UPDATE_GOLDEN=1 writes it anew"


def stand_in_for_accuracy(environment):
    """Let a replay engine's Python run the stand-in for the programs of `invoke accuracy`."""
    python = environment / "bin" / "python"
    plain = python.read_text()
    if "replay_accuracy" not in plain:
        stand_in = f'exec "{sys.executable}" "{ROOT}/tests/replay_accuracy.py" "$@"'
        case = f'#!/bin/sh\ncase "$1" in *accuracy_*) {stand_in};; esac\n'
        python.write_text(plain.replace("#!/bin/sh\n", case))


def wait_until(condition, reason, within_s=120.0):
    """Return what the condition returns once it holds; fail with the reason if it does not come true in time.

    The time is generous: it bounds a broken test, it does not measure the machine.
    """
    deadline = time.monotonic() + within_s
    while not (result := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"{reason} within {within_s:g} s")
        time.sleep(0.02)
    return result


def wait_for_task(task, condition, reason, within_s=120.0):
    """Wait for the condition while a task runs; fail at once if it ends before."""

    def holds():
        result = condition()
        if not result and task.poll() is not None:
            pytest.fail(f"{reason}: the task ended with exit code {task.returncode}")
        return result

    return wait_until(holds, reason, within_s)


def cut_off(number, hung, home, *arguments, meanwhile=lambda task: None):
    """Run a task, send it a signal once ``hung`` is there, and return its exit code and messages; no server is left."""
    task = subprocess.Popen(
        invoke_command(*arguments), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"COLUMNS": "200"},
    )  # fmt: skip
    wait_for_task(task, hung.exists, "no request hangs", 600)
    meanwhile(task)
    task.send_signal(number)
    _, err = task.communicate(timeout=300)
    wait_until(lambda: not processes_like("stand_in_server.py", home / "runs"), "a server is still there")
    return task.returncode, err
