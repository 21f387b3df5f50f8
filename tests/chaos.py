"""Processes of a measurement are killed or stopped at random moments, by themselves and in pairs, the task or others.

Each time: nothing is left after two seconds, no record looks finished that is not, and a campaign goes on without
measuring anything twice. `nox -s chaos` runs it CHAOS_ROUNDS times (200). A failure names its seed; CHAOS_SEED=SEED
CHAOS_ROUNDS=1 repeats it.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time

import psutil
import pytest
from helpers import NATIVE, ROOT, invoke_command, processes_like, wait_until

ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "200"))
FIRST_SEED = int(os.environ.get("CHAOS_SEED", "1"))
GONE_WITHIN_S = 2.0
LONGEST_ROUND_S = 600.0
"""Of a round or of going on: no more than a bound, on a busy machine."""
LIMIT_S = 30
"""Of a launch: one whose process was stopped hangs until then, and one on a busy machine must not reach it."""
FROM_THE_START = 0.25
"""The share of rounds whose attack may come before an engine runs; else one is waited for."""

PRESET = """
[tiny]
description = "replayed"
model = "{}"
modality = "image"
prompt = "p"
seed = 1
width = 256
height = 256
steps = 4
"""
SECONDS = {"request": 1.5, "session": 2.5, "ab": 6.0, "matrix": 5.0}
"""How long each takes from its first engine on, so that the attack comes at any moment of it."""
ENGINES = ("session_worker.py", "/bin/sglang")
HELPER = "helper"


def roles(task):
    """Return the processes of a task by what they are, those of helper commands (git, the engine's description) apart.

    The keeper shows its name, the supervisor is its child, the command is the supervisor's, and workers are below.
    """
    found = {"task": [psutil.Process(task.pid)]}
    with contextlib.suppress(psutil.Error):
        for keeper in found["task"][0].children():
            below = keeper.children(recursive=True)
            commands = [process for process in below if process.ppid() in [other.pid for other in keeper.children()]]
            is_engine = any(word in " ".join(command.cmdline()) for command in commands for word in ENGINES)
            for process in (keeper, *below):
                role = (
                    "keeper" if process == keeper
                    else "supervisor" if process.ppid() == keeper.pid
                    else "engine" if process in commands
                    else "worker"
                )  # fmt: skip
                found.setdefault(role if is_engine else HELPER, []).append(process)
    return found


def attack(task, chance):
    """Kill or stop one or two processes; return what was done, and whether the task was among them."""
    done, on_task = [], False
    with contextlib.suppress(psutil.Error):
        found = roles(task)
        # a role first: there are more workers than tasks
        for role in chance.choices(sorted(found), k=chance.choice([1, 1, 2])):
            victim = chance.choice(found[role])
            # a helper command that is stopped costs its minute each time, and is no other case than an engine's
            stops = [signal.SIGSTOP] * (role != HELPER) + [signal.SIGTERM] * (role == "task")
            number = chance.choice([signal.SIGKILL] * 4 + stops)
            with contextlib.suppress(psutil.Error):
                victim.send_signal(number)
                done.append(f"{number.name} {role}")
                on_task |= role == "task"
    return done, on_task


def strike(task, chance):
    """Attack a task's processes and wait for its end; return what was done, and whether the task was struck."""
    done, on_task = attack(task, chance)
    if on_task:
        closes = "SIGTERM task" in done and "SIGSTOP task" not in done
        with contextlib.suppress(subprocess.TimeoutExpired):
            task.wait(LONGEST_ROUND_S if closes else chance.uniform(0, 0.5))
        task.kill()
    print(done, file=sys.stderr)
    task.wait(LONGEST_ROUND_S)
    return done, on_task


def command_of(kind, replay, presets):
    """Return the command of a measurement on replay engines that leave workers about."""
    common = ("--preset-file", presets, f"--timeout={LIMIT_S}")
    if kind == "request":
        replay(name="old", **NATIVE, children=2, pause_after="Loaded vae", pause_s=1)
        return ("bench", "--model=tiny", "--engine=old", *common)
    replay(name="old", **NATIVE, children=1, within=0.001, between=0.02, request_s=0.1)
    if kind == "ab":
        replay(name="new", **NATIVE, children=1, within=0.001, between=0.02, request_s=0.1, seed=7)
        arms = ("--baseline=old", "--candidate=new", "--pairs=4", "--repeats=1", "--metric=denoise")
        return ("ab", "--model=tiny", *arms, *common)
    size = ("--repeats=2", "--launches=2")
    return ("bench", "--model=tiny", "--engine=old", *size, *common, *(("--matrix=quality",) * (kind == "matrix")))


def files_of(folder):
    """Return the dumps, pictures and logs of launches that have ended, by path."""
    return {path: path.read_bytes() for path in folder.glob("**/launch-*/**/*") if path.is_file()}


def check_records(runs, told):
    """A record that looks finished is: all its launches ended by themselves, and it has every request."""
    for path in runs.glob("**/run.json"):
        record = json.loads(path.read_text())
        if record["complete"]:
            assert record["requests"], told
            assert [launch["exit_code"] for launch in record["launches"]] == [0] * len(record["launches"]), told
    for path in runs.glob("**/comparison.json"):
        document = json.loads(path.read_text())
        assert document["complete"] or (path.parent / "campaign.json").exists(), told


def resume(kind, folder, told):
    """Go on with a campaign: what was finished stays as it is, and only what is missing is measured."""
    state = json.loads((folder / "campaign.json").read_text())
    finished = state["finished"]
    kept = {
        path: content
        for arm in folder.iterdir() if arm.is_dir()
        for number in range(1, 1 + (len(finished) if kind == "ab" else sum(
            entry["part"].startswith(f"{arm.name} ") for entry in finished)))
        for path, content in files_of(arm).items() if f"launch-{number}/" in str(path)
    }  # fmt: skip
    before = {path: path.stat().st_size for path in folder.parent.parent.glob("environments/*/launches")}
    verb = "ab" if kind == "ab" else "bench"
    command = invoke_command(verb, "--resume", folder, "--json")
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=LONGEST_ROUND_S)
    # a cell that was killed has failed for good, a killed pair is measured anew
    assert ended.returncode in ({0, 7, 9} if kind == "ab" else {0, 3, 8}), (told, ended.stderr)
    assert not (folder / "campaign.json").exists(), told
    assert all(path.read_bytes() == content for path, content in kept.items()), told
    document = json.loads(ended.stdout)
    starts = sum(path.stat().st_size for path in folder.parent.parent.glob("environments/*/launches"))
    if kind == "ab":
        missing = 2 * (len(document["pairs"]) - len(finished))
    else:
        failed = {entry["part"].rpartition(" ")[0] for entry in finished if entry["result"] is not None}
        going_on = [cell["name"] for cell in document["cells"] if cell["name"] not in failed]
        missing = 2 * len(going_on) - sum(entry["part"].rpartition(" ")[0] in going_on for entry in finished)
    assert starts - sum(before.values()) == missing, told


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + ROUNDS))
def test_nothing_is_left_and_nothing_is_measured_twice_whoever_dies(seed, home, replay, model):
    chance = random.Random(seed)
    kind = chance.choice(sorted(SECONDS))
    presets = home / "mine.toml"
    presets.write_text(PRESET.format(model()))
    command = invoke_command(*command_of(kind, replay, presets))
    task = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        if chance.random() > FROM_THE_START:
            wait_until(
                lambda: "engine" in roles(task) or task.poll() is not None, "no engine was started", LONGEST_ROUND_S
            )
            time.sleep(chance.uniform(0, SECONDS[kind]))
        else:
            time.sleep(chance.uniform(0, 2.0))
        told = (seed, kind, *strike(task, chance))
    finally:
        task.kill()
        task.wait()
    gone = time.monotonic() + GONE_WITHIN_S
    while (left := processes_like("", home / "runs")) and time.monotonic() < gone:
        time.sleep(0.02)
    assert not left, (told, left)
    check_records(home / "runs", told)
    for state in (home / "runs").glob("*/campaign.json"):
        resume(kind, state.parent, told)
        check_records(home / "runs", told)
    wait_until(lambda: not processes_like("", home / "runs"), "a process is left by what was resumed")
