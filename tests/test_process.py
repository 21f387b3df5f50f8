import os
import signal
import subprocess
import sys

import psutil
import pytest
from helpers import ROOT, processes_like, wait_until
from hypothesis import given
from hypothesis import strategies as st

from bench import process
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


def test_an_observers_error_stops_the_whole_tree(tmp_path):
    script = "sleep 300.25 & setsid sleep 300.25 & (setsid sleep 300.25 &) ; echo BAD; sleep 300.25"
    with pytest.raises(ZeroDivisionError):
        stream(tmp_path, script, Collector(stop_at=b"BAD"))
    assert not processes_like("sleep 300.25")
    assert (tmp_path / "log").read_text() == "BAD\n"


def test_a_time_limit_stops_the_whole_tree(tmp_path):
    ended, _ = stream(tmp_path, "echo hi; setsid sleep 300.5 & sleep 300.5", timeout_s=0.5)
    assert isinstance(ended.stopped_by, TimedOut)
    assert ended.exit_code is None
    assert ended.stopped_after_s >= 0.5
    assert ended.gone_within_s >= 0
    assert not processes_like("sleep 300.5")


def test_what_a_program_leaves_behind_is_stopped_when_it_ends(tmp_path):
    ended, _ = stream(tmp_path, "setsid sleep 300.75 >/dev/null 2>&1 & exit 0")
    assert ended.exit_code == 0
    assert not processes_like("sleep 300.75")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_runner_leaves_no_process_behind(tmp_path, number):
    program = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; from bench import process\n"
        "class O:\n  def observe(self, block, first_line): pass\n"
        "process.stream(['bash', '-c', 'sleep 301.5 & setsid sleep 301.5 & echo up; sleep 301.5'],"
        " env=os.environ, log=Path(sys.argv[2]), observer=O())\n"
    )
    runner = subprocess.Popen([sys.executable, "-c", program, str(ROOT), str(tmp_path / "log")], stderr=subprocess.PIPE)
    log = tmp_path / "log"
    wait_until(lambda: log.exists() and b"up" in log.read_bytes(), "the program has not started")
    runner.send_signal(number)
    runner.communicate()
    wait_until(lambda: not processes_like("sleep 301.5"), "a killed runner's processes are still there")


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
            ended = [psutil.Process(int(number)) for number in block.split()]
            wait_until(lambda: all(p.status() == psutil.STATUS_ZOMBIE for p in ended), "the supervisor has not ended")

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
