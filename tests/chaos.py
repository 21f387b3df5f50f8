"""Any process of a launch is killed or stopped at a random moment: nothing is left, and no record looks finished.

`nox -s chaos` runs it CHAOS_ROUNDS times (200). A failure names its seed; CHAOS_SEED=SEED CHAOS_ROUNDS=1 repeats it.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import time

import psutil
import pytest
from helpers import ROOT, invoke_command, processes_like

ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "200"))
FIRST_SEED = int(os.environ.get("CHAOS_SEED", "1"))
GONE_WITHIN_S = 2.0
LONGEST_START_S = 4.0


def tree(task):
    with contextlib.suppress(psutil.NoSuchProcess):
        return [psutil.Process(task.pid), *psutil.Process(task.pid).children(recursive=True)]
    return []


def attack(task, chance):
    """Kill or stop one or two processes of the tree; return what was done."""
    time.sleep(chance.uniform(0, LONGEST_START_S))
    done = []
    processes = tree(task)
    for victim in chance.sample(processes, min(len(processes), chance.choice([1, 1, 2]))):
        number = chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGSTOP])
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            done.append(f"{number.name} {' '.join(victim.cmdline())[:40]}")
            victim.send_signal(number)
    return done


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + ROUNDS))
def test_nothing_is_left_whoever_dies(seed, home, replay, model):
    chance = random.Random(seed)
    name = replay(
        log="cpu/warmup_request.log", dump="cpu/warmup_request.json", children=2, linger_s=30, pause_after="Loaded vae",
        pause_s=1,
    )  # fmt: skip
    command = invoke_command(
        "bench", "--model=flux-tiny", f"--engine={name}", f"--model-path={model()}", "--timeout=20"
    )
    task = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    done = attack(task, chance)
    time.sleep(chance.uniform(0, 0.5))
    task.kill()
    task.wait()
    deadline = time.monotonic() + GONE_WITHIN_S
    while (left := processes_like("", home / "runs")) and time.monotonic() < deadline:
        time.sleep(0.02)
    left = [line for line in processes_like("", home / "runs") if line and "pytest" not in line]
    assert not left, (seed, done, left)
    for path in (home / "runs").glob("**/run.json"):
        assert json.loads(path.read_text())["complete"] is False, (seed, done)
