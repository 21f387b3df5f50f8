"""The tour: what stops it, and how it is taken. Its whole way on the real engine is in test_engine.py."""

import json
import os
import pty
import select
import signal
import subprocess
import time

import pytest
from helpers import NATIVE, ROOT, invoke_command, processes_like, wait_for_task, wait_until

from bench.tour import steps

SECONDS = 240.0


@pytest.fixture
def came_to(home, model):
    """A tour that was taken up to its checkpoint."""
    folder = home / "runs" / "20261122T100000Z-tour-flux-tiny-abcdef"
    folder.mkdir(parents=True)
    made = folder / "FLUX.1-dev-tiny"
    model().rename(made)
    (folder / "02-checkpoint.txt").write_text(f"checkpoint: {made}\n")
    return folder


# --- unhappy first ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--step", "nowhere"], "no step of the tour is called 'nowhere'"),
        (["--step", "0"], "no step of the tour is called '0'"),
        (["--from", "99"], "no step of the tour is called '99'"),
        (["--step", "bench", "--from", "ab"], "--step and --from exclude each other"),
        (["--engine", "sglang-9"], "no built engine is called 'sglang-9'"),
        ([], "no engine was named"),
    ],
)
def test_what_cannot_be_taken_is_refused_at_once(invoke, home, arguments, says):
    ended = invoke("tour", "--yes", *arguments, env={"PATH": "/nowhere"})
    assert ended.code == 1
    assert says in ended.err
    assert not (home / "runs").exists()


def test_a_step_whose_forerunners_were_never_run_names_them(invoke, replay):
    ended = invoke("tour", "--step", "validate", "--engine", replay(**NATIVE))
    assert ended.code == 1
    assert "these steps make: bench, fallback, repeats, ab; no tour has been taken here yet" in ended.err
    assert "`invoke tour --engine replay`" in ended.err


def test_a_step_that_fails_stops_the_tour_with_its_exit_code(invoke, replay, home):
    """A replay engine has no torch: no checkpoint can be made, which ends with 3."""
    ended = invoke("tour", "--yes", "--engine", replay(**NATIVE))
    assert ended.code == 3
    assert "the tour stops: step checkpoint ended with exit code 3, expected 0" in ended.err
    assert "invoke tour --from checkpoint --engine replay" in ended.err
    assert "3 of 13" not in ended.out
    (kept,) = (home / "runs").glob("*-tour-*/02-checkpoint.txt")
    assert "failed in engine" in kept.read_text()


def test_a_fallback_that_is_not_caught_stops_the_tour(invoke, replay, came_to):
    """This engine stays native whatever the folder is called: 0 where 4 is due."""
    ended = invoke("tour", "--step", "fallback", "--engine", replay(**NATIVE))
    assert ended.code == 1
    assert "step fallback ended with exit code 0, expected 4" in ended.err


def test_an_interrupt_ends_the_step_and_leaves_nothing(replay, home, came_to):
    engine = replay(**NATIVE, pause_after="Loaded transformer", pause_s=299.5)
    task = subprocess.Popen(
        invoke_command("tour", "--step", "bench", "--engine", engine),
        cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for_task(
        task,
        lambda: any("Loaded transformer" in log.read_text() for log in home.glob("runs/*-bench-*/engine.log")),
        "the engine has not loaded its transformer",
    )
    assert processes_like(str(home))
    task.send_signal(signal.SIGINT)
    _, said = task.communicate()
    assert task.returncode == 130
    assert "interrupted" in said
    wait_until(lambda: not processes_like(str(home)), "the engine's processes are still there")
    assert list(home.glob("runs/*-bench-*/run.json")) == [], "nothing may look finished"


# --- how it is taken --------------------------------------------------------------------------------------------------


def test_the_list_has_every_step(invoke):
    ended = invoke("tour", "--list")
    assert ended.code == 0
    for number, step in enumerate(steps.STEPS, 1):
        assert f"{number}" in ended.out
        assert f" {step.name} " in ended.out
    (line,) = invoke("tour", "--step", "bench", "--list").out.splitlines()[1:]
    assert line.split()[:2] == ["3", "bench"]


def test_a_step_shows_what_is_typed_why_and_how_to_read_it(invoke, replay, came_to, home):
    ended = invoke("tour", "--step", "3", "--engine", replay(**NATIVE))
    assert ended.code == 0, ended.out + ended.err
    words = " ".join(ended.out.split())
    step = steps.STEPS[2]
    assert step.why in words
    assert step.read in words
    assert f"$ invoke bench --model flux-tiny --model-path {came_to}/FLUX.1-dev-tiny --engine replay" in ended.out
    assert "| verdict  NATIVE" in ended.out
    assert "exit code 0, as expected" in words
    record = next(home.glob("runs/*-bench-*/run.json"))
    assert json.loads(record.read_text())["verdict"]["outcome"] == "native"
    assert f"record: {record}" in (came_to / "03-bench.txt").read_text()


def test_a_step_that_is_taken_again_leaves_what_it_said_before(invoke, replay, came_to):
    engine = replay(**NATIVE)
    for _ in range(2):
        assert invoke("tour", "--step", "bench", "--engine", engine).code == 0
    assert sorted(path.name for path in came_to.glob("03-*")) == ["03-bench-2.txt", "03-bench.txt"]
    assert (came_to / "03-bench-2.txt").read_text() != (came_to / "03-bench.txt").read_text()


def test_a_later_tour_that_did_not_come_so_far_is_passed_over(invoke, replay, came_to):
    later = came_to.with_name("20261122T110000Z-tour-flux-tiny-fedcba")
    later.mkdir()
    ended = invoke("tour", "--step", "bench", "--engine", replay(**NATIVE))
    assert ended.code == 0, ended.out + ended.err
    assert [path.name for path in came_to.glob("03-*")] == ["03-bench.txt"]
    assert list(later.iterdir()) == []


def test_a_checkpoint_is_never_made_into_an_old_folder(invoke, replay, came_to):
    """A replay engine cannot make one; the point is where it was to be made."""
    ended = invoke("tour", "--step", "checkpoint", "--engine", replay(**NATIVE))
    assert ended.code == 3
    assert str(came_to) not in ended.out
    assert len(list(came_to.parent.glob("*-tour-*"))) == 2


def test_the_output_folder_is_handed_to_the_steps(invoke, replay, came_to, home):
    other = home / "elsewhere"
    (home / "runs").rename(other)
    made = other / came_to.name / "02-checkpoint.txt"
    made.write_text(f"checkpoint: {other / came_to.name}/FLUX.1-dev-tiny\n")
    ended = invoke("tour", "--step", "bench", "--engine", replay(**NATIVE), "--output-dir", other)
    assert ended.code == 0, ended.out + ended.err
    assert f"--output-dir {other}" in ended.out
    assert len(list(other.glob("*-bench-*"))) == 1
    assert not (home / "runs").exists()


@pytest.mark.parametrize(("typed", "says"), [(b"q\n", "go on with: invoke tour --from checkpoint"), (b"\n", "2 of 13")])
def test_a_person_is_waited_for(replay, home, typed, says):
    engine = replay(**NATIVE)
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(ROOT)
        command = invoke_command("tour", "--engine", engine)
        os.execv(command[0], command)
    seen, answered = "", False
    deadline = time.monotonic() + SECONDS
    try:
        while says not in seen:
            assert time.monotonic() < deadline, seen
            if select.select([terminal], [], [], 0.1)[0]:
                seen += os.read(terminal, 4096).decode(errors="replace")
            if "q ends" in seen and not answered:
                assert "2 of 13" not in seen
                os.write(terminal, typed)
                answered = True
    finally:
        os.kill(child, signal.SIGTERM)
        os.close(terminal)
        os.waitpid(child, 0)


# --- the data ---------------------------------------------------------------------------------------------------------


def test_a_step_uses_only_what_earlier_ones_make():
    names = [step.name for step in steps.STEPS]
    assert len(set(names)) == len(names)
    for place, step in enumerate(steps.STEPS):
        assert set(step.needs()) <= set(names[:place]), step.name


def test_every_step_says_why_and_how_to_read_it():
    for step in steps.STEPS:
        assert min(len(step.title), len(step.why), len(step.read)) > 10
        assert step.seconds > 0


def test_the_tour_takes_less_than_ten_minutes_by_its_own_word():
    assert sum(step.seconds for step in steps.STEPS) < 600
