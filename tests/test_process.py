import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading

import psutil
import pytest
from helpers import ROOT, processes_like, wait_until
from hypothesis import given
from hypothesis import strategies as st

from bench import orphans, process
from bench.errors import TimedOut


class Collector:
    def __init__(self, stop_at=None):
        self.blocks = []
        self.stop_at = stop_at

    def observe(self, block, first_line):
        self.blocks.append((block, first_line))
        if self.stop_at is not None and self.stop_at in block:
            raise ZeroDivisionError("the observer's own error")


def stream(tmp_path, script, observer=None, **settings):
    observer = observer or Collector()
    ended = process.stream(["bash", "-c", script], env=os.environ, log=tmp_path / "log", observer=observer, **settings)
    return ended, observer


NUMBERS = itertools.count(1000)


@pytest.fixture
def marked():
    """Return a command that sleeps for minutes and that no other test of this machine runs."""
    return f"sleep {os.getpid()}{next(NUMBERS)}.5"


def wait_until_gone(marker):
    wait_until(lambda: not processes_like(marker), f"{marker!r} is still running")


@pytest.mark.parametrize(("script", "code"), [("exit 3", 3), ("kill -9 $$", 137), ("true", 0)])
def test_the_exit_code_is_the_programs_own(tmp_path, script, code):
    ended, _ = stream(tmp_path, script)
    assert ended.exit_code == code


def test_a_program_that_is_not_there_says_so(tmp_path):
    ended = process.stream(["/no/such/engine"], env=os.environ, log=tmp_path / "log", observer=Collector())
    assert ended.exit_code == 127
    assert "cannot start /no/such/engine" in (tmp_path / "log").read_text()


def test_both_streams_arrive_in_the_log_as_they_were_printed(tmp_path):
    stream(tmp_path, "echo one; echo two >&2; printf 'no end'")
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\nno end"


def test_an_existing_log_is_never_overwritten(tmp_path):
    (tmp_path / "log").write_text("of an earlier run")
    with pytest.raises(FileExistsError):
        stream(tmp_path, "echo new")
    assert (tmp_path / "log").read_text() == "of an earlier run"


def test_an_observers_error_stops_the_whole_tree(tmp_path, marked):
    script = f"{marked} & setsid {marked} & (setsid {marked} &) ; echo BAD; {marked}"
    with pytest.raises(ZeroDivisionError):
        stream(tmp_path, script, Collector(stop_at=b"BAD"))
    assert not processes_like(marked)
    assert (tmp_path / "log").read_text() == "BAD\n"


def test_a_time_limit_stops_the_whole_tree(tmp_path, marked):
    ended, _ = stream(tmp_path, f"echo hi; setsid {marked} & {marked}", timeout_s=0.5)
    assert isinstance(ended.stopped_by, TimedOut)
    assert ended.exit_code is None
    assert ended.stopped_after_s >= 0.5
    assert ended.gone_within_s >= 0
    assert not processes_like(marked)


def test_what_a_program_leaves_behind_is_stopped_when_it_ends(tmp_path, marked):
    ended, _ = stream(tmp_path, f"setsid {marked} >/dev/null 2>&1 & exit 0")
    assert ended.exit_code == 0
    assert not processes_like(marked)


def is_gone(process):
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def keeper_of(task):
    """Return the keeper of a task's only program, once it has its name: it starts the program before it takes that."""

    def named():
        found = []
        for child in task.children():
            with contextlib.suppress(psutil.NoSuchProcess):  # a zombie is one too
                found += [child] * (child.cmdline()[:1] == ["launch-keeper"])
        return found

    (keeper,) = wait_until(named, "the keeper has not started")
    return keeper


RUNNER = """
import os, sys; sys.path.insert(0, sys.argv[1])
from pathlib import Path
from bench import process
class Nobody:
    def observe(self, block, first_line): pass
script = "{0} & setsid {0} & (setsid {0} &) ; echo up; {0}".format(sys.argv[3])
ended = process.stream(["bash", "-c", script], env=os.environ, log=Path(sys.argv[2]), observer=Nobody())
print(ended.exit_code)
"""
"""A task with a program whose workers live on when their parent dies, and do not ask the kernel to be killed."""


@pytest.fixture
def tree(tmp_path, marked):
    """Start a task; return it, its keeper, its supervisor, and what tells its workers from other processes."""
    argv = [sys.executable, "-c", RUNNER, str(ROOT), str(tmp_path / "log"), marked]
    task = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    log = tmp_path / "log"
    wait_until(lambda: log.exists() and b"up" in log.read_bytes(), "the program has not started")
    keeper = keeper_of(psutil.Process(task.pid))
    (supervisor,) = keeper.children()
    yield {"task": task, "keeper": keeper, "supervisor": supervisor}, marked
    task.kill()
    task.communicate()
    wait_until(lambda: all(is_gone(process) for process in (keeper, supervisor)), "its keeper is still there")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_task_leaves_no_process_behind(tree, number):
    processes, workers = tree
    processes["task"].send_signal(number)
    wait_until_gone(workers)


@pytest.mark.parametrize("victims", [["supervisor"], ["keeper"], ["supervisor", "keeper"], ["keeper", "supervisor"]])
def test_killed_guardians_end_the_program_and_the_task_says_how(tree, victims):
    processes, workers = tree
    for victim in victims:
        processes[victim].kill()
    assert processes["task"].communicate(timeout=300)[0] == b"137\n"
    assert not processes_like(workers)


@pytest.mark.parametrize("stopped", [[], ["supervisor"], ["keeper"], ["keeper", "supervisor"]])
@pytest.mark.parametrize("killed", [["task"], ["task", "supervisor"], ["supervisor", "task"], ["task", "keeper"]])
def test_the_task_killed_and_a_guardian_killed_or_stopped_leave_no_process_behind(tree, killed, stopped):
    processes, workers = tree
    for name in stopped:
        processes[name].suspend()
    for name in killed:
        processes[name].kill()
    wait_until_gone(workers)
    for name in ("keeper", "supervisor"):
        with contextlib.suppress(psutil.NoSuchProcess):
            processes[name].wait(120)


def test_a_pattern_of_our_own_name_misses_the_keeper(tree):
    processes, workers = tree
    for victim in processes.values():
        if any(word in " ".join(psutil.Process(victim.pid).cmdline()) for word in ("bench", "python", "sleep")):
            victim.kill()
    wait_until_gone(workers)


@pytest.mark.parametrize("stopped", ["supervisor", "keeper"])
def test_a_time_limit_holds_though_a_guardian_is_stopped(tmp_path, marked, stopped):
    class Stops:
        def observe(self, block, first_line):
            keeper = keeper_of(psutil.Process())
            (keeper if stopped == "keeper" else keeper.children()[0]).suspend()

    ended, _ = stream(tmp_path, f"setsid {marked} & echo up; exec {marked} >/dev/null 2>&1", Stops(), timeout_s=1)
    assert isinstance(ended.stopped_by, TimedOut)
    assert not processes_like(marked)


def test_a_time_limit_holds_for_a_program_that_closed_its_output(tmp_path, marked):
    ended, _ = stream(tmp_path, f"exec {marked} >/dev/null 2>&1", timeout_s=0.5)
    assert isinstance(ended.stopped_by, TimedOut)
    assert not processes_like(marked)


@pytest.mark.parametrize("limit_s", [1e7, 1e300, float("inf")])
def test_a_time_limit_of_ages_is_no_fault(tmp_path, limit_s):
    assert stream(tmp_path, "true", timeout_s=limit_s)[0].exit_code == 0


def test_whether_all_was_stopped_is_looked_at():
    assert orphans.left_running() == []
    child = subprocess.Popen(["sleep", "303.5"])
    assert orphans.left_running(within_s=0.05) == [f"{child.pid} sleep"]
    child.kill()
    child.wait()


HELPER = """
import sys; sys.path.insert(0, sys.argv[1])
from pathlib import Path
from bench import process
work = Path(sys.argv[2])
process.capture(["bash", "-c", f"touch {work}/half; setsid {sys.argv[3]} & {sys.argv[3]}"], work=work)
"""


def test_a_helper_command_whose_guardians_are_killed_ends(marked):
    def kill_guardians():
        # before that the keeper has not changed its name
        own = f"{marked} "
        wait_until(lambda: own in processes_like(own), "the helper command has not started")
        keeper = keeper_of(psutil.Process())
        for guardian in (*keeper.children(), keeper):
            guardian.kill()

    thread = threading.Thread(target=kill_guardians)
    thread.start()
    ended = process.capture(["bash", "-c", f"setsid {marked} & wait"])
    thread.join()
    assert ended.exit_code == 137
    assert not processes_like(marked)


def test_a_program_that_just_starts_is_not_an_orphan_of_another(tmp_path, marked, monkeypatch):
    """A keeper is killed in the moment between another's start and its entry among the keepers."""
    first = threading.Thread(target=stream, args=(tmp_path, f"setsid {marked} & {marked}"))
    first.start()
    wait_until(lambda: len(processes_like(marked)) > 2, "the program has not started")
    keeper = keeper_of(psutil.Process())
    supervisor = keeper.children()[0]

    class Slow(subprocess.Popen):
        def __init__(self, *arguments, **settings):
            super().__init__(*arguments, **settings)
            supervisor.kill()
            keeper.kill()
            first.join(2)

    monkeypatch.setattr(subprocess, "Popen", Slow)
    ended = process.capture(["bash", "-c", "sleep 0.1; echo alive"])
    first.join()
    assert (ended.exit_code, ended.stdout) == (0, "alive\n")


def test_all_programs_of_other_threads_can_be_stopped(tmp_path, marked):
    ended = []
    thread = threading.Thread(target=lambda: ended.append(stream(tmp_path, f"setsid {marked} & {marked}")[0]))
    thread.start()
    wait_until(lambda: len(processes_like(marked)) > 2, "the program has not started")
    process.stop_all()
    thread.join()
    assert ended[0].exit_code == 137
    assert not processes_like(marked)


@pytest.mark.parametrize("with_supervisor", [False, True])
def test_a_helper_command_of_a_killed_task_ends_and_its_half_made_things_go(tmp_path, marked, with_supervisor):
    work = tmp_path / "work"
    work.mkdir()
    task = subprocess.Popen([sys.executable, "-c", HELPER, str(ROOT), str(work), marked])
    wait_until((work / "half").exists, "the helper command has not started")
    if with_supervisor:
        psutil.Process(task.pid).children()[0].children()[0].kill()
    task.kill()
    task.wait()
    wait_until_gone(marked)
    wait_until(lambda: not work.exists(), "the half-made folder is still there")


def test_a_helper_command_that_ends_keeps_what_it_made(tmp_path, marked):
    assert process.capture(["sh", "-c", f"echo hi; setsid {marked} &"], work=tmp_path).stdout == "hi\n"
    assert tmp_path.exists()
    assert not processes_like(marked)


@given(st.binary(max_size=400).map(lambda raw: raw.replace(b"\x00", b"\n")), st.lists(st.integers(1, 40), max_size=30))
def test_however_output_is_cut_the_lines_are_the_same(data, cuts):
    lines = process._Lines()
    blocks, start = [], 0
    for cut in [*cuts, len(data)]:
        if (block := lines.feed(data[start : start + cut])) is not None:
            blocks.append(block)
        start += cut
    if (block := lines.finish()) is not None:
        blocks.append(block)
    assert b"".join(block for block, _ in blocks) == data
    position = 1
    for block, first in blocks:
        assert first == position
        position += block.count(b"\n")
    for block, _ in blocks[:-1]:
        assert block.endswith((b"\n", b"\r"))


def test_output_without_line_ends_is_handed_on_in_pieces(tmp_path):
    _, observer = stream(tmp_path, "head -c 10000000 /dev/zero | tr '\\0' x")
    assert sum(len(block) for block, _ in observer.blocks) == 10_000_000
    assert max(len(block) for block, _ in observer.blocks) < 1_000_000
    assert {first for _, first in observer.blocks} == {1}


def test_a_helper_command_never_raises():
    assert process.capture(["/no/such/program"]).exit_code == 127
    assert process.capture(["sleep", "5"], timeout_s=0.1).exit_code == 124
    assert process.capture(["echo", "hi"]).stdout == "hi\n"


class Teacher:
    """A partner that answers the first messages and keeps all."""

    def __init__(self, answers):
        self.answers = list(answers)
        self.heard = []

    def hear(self, message):
        self.heard.append(message)
        return self.answers.pop(0) if self.answers else None


PUPIL = """
import os, sys
commands, events = os.fdopen(int(os.environ["BENCH_COMMANDS_FD"])), os.fdopen(int(os.environ["BENCH_EVENTS_FD"]), "w")
print("loaded", flush=True); events.write("ready\\n"); events.flush()
for line in commands:
    print("doing", line.strip(), flush=True); events.write("did " + line); events.flush()
    if line == "stop\\n": break
"""


def test_a_program_and_its_partner_talk_beside_the_log(tmp_path):
    teacher, seen = Teacher([b"one", b"two", b"stop"]), Collector()
    ended = process.stream(
        [sys.executable, "-c", PUPIL], env=os.environ, log=tmp_path / "log", observer=seen, partner=teacher
    )
    assert ended.exit_code == 0
    assert teacher.heard == [b"ready", b"did one", b"did two", b"did stop"]
    assert (tmp_path / "log").read_text() == "loaded\ndoing one\ndoing two\ndoing stop\n"


def test_what_was_printed_before_a_message_is_seen_before_it(tmp_path):
    seen = Collector()

    class Checks(Teacher):
        def hear(self, message):
            printed = b"".join(block for block, _ in seen.blocks)
            assert printed.endswith(b"loaded\n" if message == b"ready" else b"doing " + message[4:] + b"\n")
            return super().hear(message)

    answers = [str(number).encode() for number in range(50)] + [b"stop"]
    process.stream(
        [sys.executable, "-c", PUPIL], env=os.environ, log=tmp_path / "log", observer=seen, partner=Checks(answers)
    )


def test_the_last_message_is_heard_although_the_program_has_ended(tmp_path):
    """On a busy machine the end of the output and the last message are there at the same time."""

    class Slow(Collector):
        def observe(self, block, first_line):
            super().observe(block, first_line)
            supervisor = int(block)
            wait_until(lambda: not psutil.pid_exists(supervisor), "the supervisor has not ended")

    teacher = Teacher([])
    ended = process.stream(
        ["bash", "-c", "echo $PPID; echo the last words >&$BENCH_EVENTS_FD"], env=os.environ, log=tmp_path / "log",
        observer=Slow(), partner=teacher,
    )  # fmt: skip
    assert ended.exit_code == 0
    assert teacher.heard == [b"the last words"]


def test_a_partners_error_stops_the_program(tmp_path):
    class Upset:
        def hear(self, message):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        process.stream(
            [sys.executable, "-c", PUPIL], env=os.environ, log=tmp_path / "log", observer=Collector(), partner=Upset()
        )


def test_a_program_that_dies_in_a_conversation_ends_it(tmp_path):
    ended = process.stream(
        ["bash", "-c", "echo hello >&$BENCH_EVENTS_FD; kill -9 $$"], env=os.environ, log=tmp_path / "log",
        observer=Collector(), partner=Teacher([b"an answer that nobody reads"] * 5),
    )  # fmt: skip
    assert ended.exit_code == 137


EARLY = """
import os, signal, sys
class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == "bench.task":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupts())
sys.argv = ["invoke"]
sys.path.insert(0, sys.path.pop(0) or os.getcwd())
import tasks
"""


def test_an_interrupt_while_modules_are_imported_is_an_interrupt():
    ended = subprocess.run([sys.executable, "-c", EARLY], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (130, "")
