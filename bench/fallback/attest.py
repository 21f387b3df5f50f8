"""Judge a run that was made elsewhere, from its log and perf dump, with the code that guards our own runs.

What was asked for is read from the log itself: its server_args line and device line come within the first moments.
"""

from __future__ import annotations

import errno
import gzip
import os
import sys
import zlib
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from bench import files
from bench.errors import InvalidPerfDump, UsageError
from bench.fallback import dump as dumps
from bench.fallback import finding as f
from bench.fallback.expectation import COMMAND_LINE, DUMP_TAGS, NATIVE, SERVER, SESSION, Expectation
from bench.fallback.finding import Finding
from bench.fallback.guard import Guard
from bench.fallback.verdict import Verdict, conclude

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

STDIN = "-"
CHUNK_BYTES = 1 << 18
HEAD_BYTES = 4 << 20
"""How much of a log is read before the question is settled; a real one prints its arguments in the first 10 kB."""

NAME_DUMP = "name the perf dump that the engine wrote in the run of this log"
LONGEST_LINE_BYTES = 1 << 16
LOG_TIME = r"%m-%d %H:%M:%S"
TIME_ZONE_STEP = timedelta(minutes=15)
WRITTEN_WITHIN = timedelta(seconds=5)
FARTHEST_ZONE = timedelta(hours=15)


@contextmanager
def _open(log: str) -> Iterator[IO[bytes]]:
    if log == STDIN:
        yield sys.stdin.buffer
        return
    try:
        with files.opened(Path(log), todo="name the engine's log, or pipe it: ... | invoke attest --log -") as file:
            magic = file.read(2)
            file.seek(0)
            if magic == b"\x1f\x8b":
                with gzip.open(file) as unpacked:
                    yield unpacked  # type: ignore[misc]  # a GzipFile reads bytes
            else:
                yield file
    except OSError as error:
        raise UsageError(f"the log cannot be read: {error.strerror or error}", where=log) from error
    except (EOFError, zlib.error) as error:
        raise UsageError(f"the gzip file is incomplete: {error}", where=log, todo="fetch it again") from error


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the file in blocks that end with a line, or in pieces of a line that has no end."""
    rest = b""
    while chunk := file.read(CHUNK_BYTES):
        data = rest + chunk
        cut = data.rfind(b"\n") + 1 or (len(data) if len(data) > LONGEST_LINE_BYTES else 0)
        if cut:
            yield data[:cut]
        rest = data[cut:]
    if rest:
        yield rest


def attest(
    log: str,
    *,
    dump: Path | None = None,
    expect: str = NATIVE,
    version: str | None = None,
) -> Verdict:
    """Return the verdict on a log (a path, gzip or not, or ``-`` for standard input) and, if given, its perf dump.

    ``version`` is the engine's; without it every version's signals judge. Memory is flat however long the log is.

    Raises:
        UsageError: the log or the dump cannot be read, or the log is empty.
    """
    loaded = _load(dump)
    with _open(log) as file:
        blocks = _blocks(file)
        head: list[bytes] = []
        for block in blocks:
            head.append(block)
            if sum(map(len, head)) >= HEAD_BYTES:
                break
        if not head:
            raise UsageError("the log is empty: there is nothing to judge", where=log)
        guard = Guard(_asked(head, expect, version, loaded), stop=False)
        _observe(guard, chain(head, blocks))
    if loaded is None:
        return conclude(guard, None)
    if isinstance(loaded, InvalidPerfDump):
        return conclude(guard, None, [dumps.unreadable(loaded)])
    guard.facts.learn_steps(loaded)
    against = dumps.check(loaded, guard.expectation, None, None, guard.facts.requests)
    return conclude(guard, None, [*_left_over(guard, loaded), *against])


def listen(guard: Guard, log: Path) -> None:
    """Let a guard that stops at nothing hear a whole log.

    Raises:
        UsageError: it cannot be read.
    """
    with _open(str(log)) as file:
        _observe(guard, _blocks(file))


def _observe(guard: Guard, blocks: Iterable[bytes]) -> None:
    number = 1
    for block in blocks:
        guard.observe(block, number)
        number += block.count(b"\n")


def _load(dump: Path | None) -> dict[str, Any] | InvalidPerfDump | None:
    if dump is None:
        return None
    if not dump.exists():  # a slip of whoever typed it says nothing of the run
        raise UsageError(f"the perf dump cannot be read: {os.strerror(errno.ENOENT)}", where=dump, todo=NAME_DUMP)
    try:
        return dumps.load(dump)
    except InvalidPerfDump as error:
        error.todo = error.todo or NAME_DUMP
        return error


def _asked(
    head: list[bytes], expect: str, version: str | None, dump: dict[str, Any] | InvalidPerfDump | None
) -> Expectation:
    """Return what the run was asked to be, by its own resolved arguments."""
    scout = Guard(Expectation(backend=expect, version=version), stop=False)
    _observe(scout, head)
    facts = scout.facts
    said = facts.server_args or {}
    serves = bool(scout.seen_lines("listening"))
    tagged = isinstance(dump, dict) and dump["tag"] == DUMP_TAGS[SESSION]
    steps = facts.sampling.get("infer_steps")
    return Expectation(
        backend=expect,
        launch=SERVER if serves else SESSION if tagged else COMMAND_LINE,
        version=version,
        device=facts.device,
        model=said.get("model_path"),
        steps=None if steps is None else int(steps),
        gpus=said.get("num_gpus"),
        # before 0.5.15 a flag, later a mode; "server" warms nothing up in an offline run, and claims that it did
        warmup=said.get("warmup_mode") in ("request", "server") or said.get("warmup") is True,
        compile=said.get("enable_torch_compile") is True,
        cuda_graph=said.get("enable_breakable_cuda_graph") is True,
        attention_backend=said.get("attention_backend") if expect == NATIVE else None,
        cache=bool(said.get("cache_dit_config")),
        modality="video" if facts.sampling.get("num_frames", 1) > 1 else None,
    )


def _left_over(guard: Guard, dump: dict[str, Any]) -> list[Finding]:
    """Look for the dump's time among the log's "Metrics dumped" lines: a session writes one for each request."""
    written = guard.seen_lines("dumped")
    stamp = datetime.fromisoformat(dump["timestamp"])
    if not written or any(_agrees(line, stamp) for line in written):
        return []
    last = written[-1].partition("[")[2][:14]
    return [
        Finding(
            id="dump.timestamp",
            category="process",
            severity=f.INVALID,
            source="dump",
            text=f"dump of {dump['timestamp']}, the log wrote its last at {last}",
            means="the dump was left over from another run",
            todo="find the dump that this log names, or run again",
            exit_code=f.INVALID_DUMP,
        )
    ]


def _agrees(line: str, stamp: datetime) -> bool:
    """Tell whether a line can be of that time; a log has no year and no time zone, and a line may have no time at all.

    Zones differ by whole quarters of an hour, so the two must agree up to such a step.
    """
    start = line.find("[") + 1
    try:
        said = datetime.strptime(line[start : start + 14], LOG_TIME).replace(year=stamp.year, tzinfo=stamp.tzinfo)
    except ValueError:
        return True
    apart = abs(stamp - said)
    beside = min(apart % TIME_ZONE_STEP, TIME_ZONE_STEP - apart % TIME_ZONE_STEP)
    return apart <= FARTHEST_ZONE and beside <= WRITTEN_WITHIN
