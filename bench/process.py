"""Child processes: the only module that imports subprocess.

`stream` runs a long program under ``supervisor.py``: merged output goes to a log file and, in whole lines, to an
observer; nothing that the program started outlives the call, whatever ends it (its own end, an exception of the
observer, the time limit, Ctrl-C, or ``kill -9`` of this process or of its guardians; ``supervisor.py`` says what holds
where). `capture` is for helper commands, under the same roof.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Protocol

from bench import orphans, paths, redact
from bench.conversation import Partner, Pipes
from bench.errors import BenchError, TimedOut

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

CHUNK_BYTES = 1 << 18
LONGEST_LINE_BYTES = 1 << 16
"""A line longer than this is handed on in pieces, so that output without line ends takes flat memory."""
LONGEST_WAIT_S = 0.5
"""How long is waited for output at once: a Ctrl-C that comes just before the wait interrupts nothing (PEP 475)."""
STOP_SECONDS = 60.0
"""A process that the kernel cannot end by then (a driver hangs) is given up; `orphans.left_running` names it."""
LOOK_SECONDS = 0.5
"""How often a helper command's keeper is looked at."""


class Observer(Protocol):
    """What is told of the output. Anything it raises stops the program at once; `stream` returns or raises it."""

    def observe(self, block: bytes, first_line: int) -> None:
        """Take a block of whole lines; ``first_line`` is the 1-based number, counting line feeds, of its first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a program ended: by itself, with its exit code (128 + signal when killed by one), or stopped by an error.

    ``stopped_after_s`` are the seconds from its start to the stop, ``gone_within_s`` those from there until nothing of
    it was left; ``wall_s`` is the whole.
    """

    exit_code: int | None
    wall_s: float
    stopped_by: BenchError | None = None
    stopped_after_s: float | None = None
    gone_within_s: float | None = None


class _Lines:
    """Cuts a byte stream into blocks of whole lines and counts them."""

    def __init__(self) -> None:
        self._rest = b""
        self._next_line = 1

    def feed(self, chunk: bytes) -> tuple[bytes, int] | None:
        """Return the whole lines that are complete now, with the number of the first, or None."""
        data = self._rest + chunk
        # a carriage return ends a line too (progress bars), but an editor counts line feeds: so do we
        cut = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        if cut == 0:
            if len(data) < LONGEST_LINE_BYTES:
                self._rest = data
                return None
            cut = len(data)
        return self._hand_over(data, cut)

    def finish(self) -> tuple[bytes, int] | None:
        """Return what is left, a last line without an end."""
        return self._hand_over(self._rest, len(self._rest)) if self._rest else None

    def _hand_over(self, data: bytes, cut: int) -> tuple[bytes, int]:
        block, self._rest = data[:cut], data[cut:]
        first, self._next_line = self._next_line, self._next_line + block.count(b"\n")
        return block, first


def stream(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    log: Path,
    observer: Observer,
    cwd: Path | None = None,
    timeout_s: float | None = None,
    partner: Partner | None = None,
) -> Ended:
    """Run ``argv``, write its output to ``log`` (a new file) and hand it line by line to ``observer``.

    With a ``partner`` the program also gets two pipes, whose descriptors are in its variables BENCH_COMMANDS_FD (it
    reads) and BENCH_EVENTS_FD (it writes). What was printed before a message is observed before the message is heard.

    Returns how it ended: what stopped it is a `BenchError` that the observer or the partner raised, or `TimedOut` if
    it ran longer than ``timeout_s`` seconds. When this returns or raises, no process of the program is left.

    Raises:
        FileExistsError: ``log`` is there already; nothing is ever overwritten.
        Exception: whatever else the observer or the partner raised.
    """
    start, exit_code = time.monotonic(), None
    stopped_by: BenchError | None = None
    stopped_at = start
    pipes = None if partner is None else Pipes(partner)
    with log.open("xb") as file:
        child = _start(argv, env, cwd, pipes)
        output = _Output(file, observer)
        try:
            _hear(child, output, pipes, deadline=None if timeout_s is None else start + timeout_s)
            exit_code = _exit_code(child.wait(None if timeout_s is None else start + timeout_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            stopped_by, stopped_at = _limit_reached(timeout_s, log), time.monotonic()
        except BenchError as error:
            stopped_by, stopped_at = error, time.monotonic()
        finally:
            assert child.stdin is not None
            child.stdin.close()  # the supervisor's lifeline: now it kills whatever is left
            if pipes is not None:
                pipes.close()
            _await_end(child, output)
            del _KEEPERS[child.pid]
    end = time.monotonic()
    return Ended(
        exit_code=exit_code,
        wall_s=end - start,
        stopped_by=stopped_by,
        stopped_after_s=None if stopped_by is None else stopped_at - start,
        gone_within_s=None if stopped_by is None else end - stopped_at,
    )


_KEEPERS: dict[int, subprocess.Popen[bytes]] = {}
"""The keepers of the programs that run now, by process id."""

_STARTING = threading.Lock()
"""Held while a keeper is started: what looks for orphans must find each of them in `_KEEPERS`."""


def stop_all() -> None:
    """Stop the programs that `stream` runs in other threads, whose calls then return as if these had been killed."""
    for child in list(_KEEPERS.values()):
        if child.stdin is not None:
            child.stdin.close()


def _stop_orphans(keeper: subprocess.Popen[bytes]) -> None:
    """If a keeper was killed, and the supervisor perhaps with it: stop what came from them to this process."""
    if (keeper.poll() or 0) < 0:
        with _STARTING:
            orphans.stop(spared=_KEEPERS.keys() - {keeper.pid})


@contextlib.contextmanager
def _end_of(child: subprocess.Popen[bytes], selector: selectors.BaseSelector) -> Iterator[int | None]:
    """Register and yield a descriptor that is readable once a process has ended (Linux; elsewhere None)."""
    descriptor = None
    if hasattr(os, "pidfd_open"):
        with contextlib.suppress(OSError):  # it has ended and was waited for
            descriptor = os.pidfd_open(child.pid)
            selector.register(descriptor, selectors.EVENT_READ)
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _start(
    argv: Sequence[str], env: Mapping[str, str], cwd: Path | None, pipes: Pipes | None
) -> subprocess.Popen[bytes]:
    variables = {} if pipes is None else pipes.variables()
    with _STARTING:
        child = subprocess.Popen(
            _supervised(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**env, **variables},
            cwd=cwd,
            pass_fds=[int(descriptor) for descriptor in variables.values()],
            start_new_session=True,  # Ctrl-C reaches this process only, which then ends the child in order
        )
        _KEEPERS[child.pid] = child
    if pipes is not None:
        pipes.close_childs()
    return child


def _hear(child: subprocess.Popen[bytes], output: _Output, pipes: Pipes | None, *, deadline: float | None) -> None:
    """Hand on the program's output and messages until its output ends; ``deadline`` is a monotonic time.

    Raises:
        subprocess.TimeoutExpired: the deadline has passed.
    """
    assert child.stdout is not None
    with selectors.DefaultSelector() as selector, _end_of(child, selector) as end:
        selector.register(child.stdout, selectors.EVENT_READ)
        if pipes is not None:
            selector.register(pipes.events, selectors.EVENT_READ)
        running = True
        while running:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise subprocess.TimeoutExpired(child.args, timeout=0)
            events = selector.select(LONGEST_WAIT_S if left is None else min(left, LONGEST_WAIT_S))
            ready = {key.fileobj for key, _ in events}
            if end in ready:
                selector.unregister(end)
                _stop_orphans(child)  # or they would hold the output open
            if child.stdout in ready:
                running = output.take(os.read(child.stdout.fileno(), CHUNK_BYTES))
            elif pipes is not None and pipes.events in ready:  # only once no output is waiting
                pipes.talk()
    output.finish()
    while pipes is not None and pipes.waiting() and pipes.talk():
        pass  # its last messages, written while its output ended


def _limit_reached(timeout_s: float | None, log: Path) -> TimedOut:
    return TimedOut(
        f"the launch was stopped at its limit of {timeout_s:g} s",
        where=log,
        todo="give it a longer time limit, or read the log's last lines",
    )


def _supervised(argv: Sequence[str], *options: str) -> list[str]:
    """Return the command that runs ``argv`` under the supervisor."""
    orphans.adopt()
    return [sys.executable, "-I", "-S", str(paths.PACKAGE / "supervisor.py"), *options, "--", *argv]


def _exit_code(returned: int) -> int:
    return returned if returned >= 0 else 128 - returned


def _await_end(child: subprocess.Popen[bytes], output: _Output) -> None:
    """Write the rest of the output to the log until nothing of the program is left, `STOP_SECONDS` at most."""
    assert child.stdout is not None
    deadline = time.monotonic() + STOP_SECONDS
    child.send_signal(signal.SIGCONT)  # whoever stopped the keeper
    with selectors.DefaultSelector() as selector, _end_of(child, selector) as end, child.stdout:
        selector.register(child.stdout, selectors.EVENT_READ)
        while events := selector.select(max(0.0, deadline - time.monotonic())):
            ready = {key.fileobj for key, _ in events}
            if end in ready:
                selector.unregister(end)
                _stop_orphans(child)
            if child.stdout in ready:
                if not (chunk := os.read(child.stdout.fileno(), CHUNK_BYTES)):
                    break
                output.keep(chunk)
    output.keep(b"", last=True)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(max(0.0, deadline - time.monotonic()))
    _stop_orphans(child)  # those that had closed their output


class _Output:
    """Writes output to the log, without secrets, and hands its lines to the observer."""

    def __init__(self, file: IO[bytes], observer: Observer) -> None:
        self._file = file
        self._observer = observer
        self._lines = _Lines()

    def take(self, chunk: bytes) -> bool:
        """Take what was read; return False at the end of the output."""
        if (block := self.keep(chunk)) is not None:
            self._observer.observe(*block)
        return bool(chunk)

    def keep(self, chunk: bytes, *, last: bool = False) -> tuple[bytes, int] | None:
        """Write the lines that are complete now (the ``last`` needs no end) and return them; nobody else sees them."""
        block = self._lines.finish() if last else self._lines.feed(chunk)
        if block is not None:
            self._file.write(redact.log(block[0]))
            self._file.flush()  # a person may be following the log
        return block

    def finish(self) -> None:
        """Hand over a last line that has no end."""
        if (block := self.keep(b"", last=True)) is not None:
            self._observer.observe(*block)


@dataclass(frozen=True, slots=True, kw_only=True)
class Captured:
    """What a short command printed, and its exit code (127 if it could not be started, 124 if it took too long)."""

    exit_code: int
    stdout: str
    stderr: str

    def last_line(self, otherwise: str) -> str:
        """Return the last line of its standard error, ``otherwise`` where it has none."""
        return (self.stderr.strip().splitlines() or [otherwise])[-1]


def capture(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout_s: float = 60,
    work: Path | None = None,
) -> Captured:
    """Run a helper command without standard input and return what it printed; it never raises for a failure.

    Nothing of it outlives the call, as with `stream`. ``work`` is a folder of half-made things that is removed if this
    process ends before the command does.
    """
    if shutil.which(argv[0], path=None if env is None else env.get("PATH")) is None:
        return Captured(exit_code=127, stdout="", stderr=f"cannot start {argv[0]}: {os.strerror(errno.ENOENT)}")
    lifeline, held = os.pipe()
    try:
        with _STARTING:
            child = subprocess.Popen(
                _supervised(argv, *([] if work is None else ["--remove", str(work)])),
                stdin=lifeline,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=None if env is None else dict(env),
                cwd=cwd,
                start_new_session=True,
            )
            _KEEPERS[child.pid] = child
    except OSError as error:
        os.close(held)
        return Captured(exit_code=127, stdout="", stderr=str(error))
    finally:
        os.close(lifeline)
    try:
        stdout, stderr = _output(child, timeout_s)
        exit_code = _exit_code(child.returncode)
    except subprocess.TimeoutExpired:
        stdout, stderr, exit_code = b"", f"no answer in {timeout_s:g} s".encode(), 124
    finally:
        os.close(held)
        child.send_signal(signal.SIGCONT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            _output(child, STOP_SECONDS)
        _stop_orphans(child)
        del _KEEPERS[child.pid]
    return Captured(exit_code=exit_code, stdout=stdout.decode(errors="replace"), stderr=stderr.decode(errors="replace"))


def _output(child: subprocess.Popen[bytes], timeout_s: float) -> tuple[bytes, bytes]:
    """Return both outputs at their end.

    Raises:
        subprocess.TimeoutExpired: they went on for longer.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return child.communicate(timeout=min(LOOK_SECONDS, max(0.0, deadline - time.monotonic())))
        except subprocess.TimeoutExpired:
            _stop_orphans(child)  # or they would hold the output open
            if time.monotonic() >= deadline:
                raise
