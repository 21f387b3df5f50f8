"""Child processes: the only module that imports subprocess.

`stream` runs a long program under ``supervisor.py``: merged output goes to a log file and, in whole lines, to an
observer; nothing that the program started outlives the call, whatever ends it (its own end, an exception of the
observer, the time limit, Ctrl-C, or ``kill -9`` of this process). `capture` is for short helper commands.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Protocol

from bench import paths
from bench.errors import BenchError, TimedOut

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

CHUNK_BYTES = 1 << 18
LONGEST_LINE_BYTES = 1 << 16
"""A line longer than this is handed on in pieces, so that output without line ends takes flat memory."""


class Observer(Protocol):
    """What is told of the output. Anything it raises stops the program at once; `stream` returns or raises it."""

    def observe(self, block: bytes, first_line: int) -> None:
        """Take a block of whole lines; ``first_line`` is the 1-based number, counting line feeds, of its first."""


class Partner(Protocol):
    """Whom a program talks to on pipes of its own, beside its output. What it raises stops the program."""

    def hear(self, message: bytes) -> bytes | None:
        """Take one line of the program (without its end) and return the line to answer with, or None."""


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
    pipes = None if partner is None else _Pipes(partner)
    variables = {} if pipes is None else pipes.variables()
    with log.open("xb") as file:
        output = _Output(file, observer)
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", str(paths.PACKAGE / "supervisor.py"), "--", *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**env, **variables},
            cwd=cwd,
            pass_fds=[int(descriptor) for descriptor in variables.values()],
            start_new_session=True,  # Ctrl-C reaches this process only, which then ends the child in order
        )
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(child.stdout, selectors.EVENT_READ)
                if pipes is not None:
                    pipes.close_childs()
                    selector.register(pipes.events, selectors.EVENT_READ)
                running = True
                while running:
                    left = None if timeout_s is None else start + timeout_s - time.monotonic()
                    if left is not None and left <= 0:
                        raise TimedOut(
                            f"the launch was stopped at its limit of {timeout_s:g} s",
                            where=log,
                            todo="give it a longer time limit, or read the log's last lines",
                        )
                    ready = {key.fileobj for key, _ in selector.select(left)}
                    if child.stdout in ready:
                        running = output.take(os.read(child.stdout.fileno(), CHUNK_BYTES))
                    elif pipes is not None and pipes.events in ready:  # only once no output is waiting
                        pipes.talk()
            output.finish()
            _hear_out(pipes)
            exit_code = child.wait()
        except BenchError as error:
            stopped_by, stopped_at = error, time.monotonic()
        finally:
            child.stdin.close()  # the supervisor's lifeline: now it kills whatever is left
            if pipes is not None:
                pipes.close()
            while chunk := os.read(child.stdout.fileno(), CHUNK_BYTES):
                file.write(chunk)
            child.stdout.close()
            child.wait()
    end = time.monotonic()
    return Ended(
        exit_code=exit_code,
        wall_s=end - start,
        stopped_by=stopped_by,
        stopped_after_s=None if stopped_by is None else stopped_at - start,
        gone_within_s=None if stopped_by is None else end - stopped_at,
    )


class _Output:
    """Writes output to the log and hands its lines to the observer."""

    def __init__(self, file: IO[bytes], observer: Observer) -> None:
        self._file = file
        self._observer = observer
        self._lines = _Lines()

    def take(self, chunk: bytes) -> bool:
        """Take what was read; return False at the end of the output."""
        self._file.write(chunk)
        self._file.flush()  # a person may be following the log
        if (block := self._lines.feed(chunk)) is not None:
            self._observer.observe(*block)
        return bool(chunk)

    def finish(self) -> None:
        """Hand over a last line that has no end."""
        if (block := self._lines.finish()) is not None:
            self._observer.observe(*block)


class _Pipes:
    """The two pipes between a program and its partner."""

    def __init__(self, partner: Partner) -> None:
        self._partner = partner
        self.events, self._childs_events = os.pipe()
        self._childs_commands, self._commands = os.pipe()
        self._rest = b""
        self._open = {self.events, self._childs_events, self._childs_commands, self._commands}

    def variables(self) -> dict[str, str]:
        """Return the program's variables that name its ends."""
        return {"BENCH_COMMANDS_FD": str(self._childs_commands), "BENCH_EVENTS_FD": str(self._childs_events)}

    def talk(self) -> bool:
        """Read what the program said and answer each whole line; return False at the end of its messages."""
        chunk = os.read(self.events, CHUNK_BYTES)
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            if (answer := self._partner.hear(line)) is not None:
                with contextlib.suppress(BrokenPipeError):  # it ended: its output and exit code tell why
                    os.write(self._commands, answer + b"\n")
        return bool(chunk)

    def close_childs(self) -> None:
        """Close the program's ends in this process."""
        self._close(self._childs_events, self._childs_commands)

    def close(self) -> None:
        """Close whatever is open."""
        self._close(*self._open)

    def _close(self, *descriptors: int) -> None:
        for descriptor in set(descriptors) & self._open:
            os.close(descriptor)
            self._open.discard(descriptor)


def _hear_out(pipes: _Pipes | None) -> None:
    """Hear the messages that still wait after the output has ended; nothing is waited for."""
    if pipes is not None:
        os.set_blocking(pipes.events, False)  # a process that escaped may hold the other end open
        with contextlib.suppress(BlockingIOError):
            while pipes.talk():
                pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Captured:
    """What a short command printed, and its exit code (127 if it could not be started, 124 if it took too long)."""

    exit_code: int
    stdout: str
    stderr: str


def capture(
    argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None, timeout_s: float = 60
) -> Captured:
    """Run a short helper command without standard input and return what it printed; it never raises for a failure."""
    try:
        ended = subprocess.run(
            list(argv),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=None if env is None else dict(env),
            cwd=cwd,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Captured(exit_code=124, stdout="", stderr=f"no answer in {timeout_s:g} s")
    except OSError as error:
        return Captured(exit_code=127, stdout="", stderr=str(error))
    return Captured(
        exit_code=ended.returncode,
        stdout=ended.stdout.decode(errors="replace"),
        stderr=ended.stderr.decode(errors="replace"),
    )
