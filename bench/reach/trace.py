"""One engine start under line tracing: which lines of given files ran, in which process, and when.

The launch serves two requests, and neither counts: the first warms up, as in every session. It has a folder of its own
and leaves no timing, so that no traced request can ever be taken for a timed one.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from bench.errors import EngineFailed
from bench.run import benchmark
from bench.run.session import Course

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.process import Observer
    from bench.record.types import Launch
    from bench.run.plan import Plan

LOAD, WARMUP, REQUEST, END = "load", "warm-up", "request", "end"
LETTERS = {"l": LOAD, "w": WARMUP, "r": REQUEST, "e": END}
IMPORT = "import"


@dataclass(slots=True)
class Process:
    """A process of the engine: its name, its rank (None: it has none), and the lines that it ran.

    ``lines`` has the line numbers by file and phase; a line that ran while a module was imported has the phase import.
    """

    name: str
    rank: int | None
    lines: dict[str, dict[str, set[int]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(set)))


@dataclass(frozen=True, slots=True)
class Trace:
    """What a traced launch gave: its processes that ran a wanted file, and the launch as a record holds it."""

    processes: list[Process]
    launch: Launch

    def lines(self, path: str, phase: str) -> set[int]:
        """Return the lines of a file that any process ran in a phase."""
        found: set[int] = set()
        for process in self.processes:
            if path in process.lines:
                found |= process.lines[path].get(phase, set())
        return found


def take(planned: Plan, wanted: Sequence[str], directory: Path, display: Observer | None = None) -> Trace:
    """Start the engine once, traced, serve two requests, and return what ran of the files in ``wanted``.

    ``directory``, which is made, keeps what the processes wrote, the log and the outputs.

    Raises:
        BenchError: the launch does not count: what did not run natively shows nothing of the native path.
    """
    directory.mkdir(parents=True)
    notes = directory / "tracer"
    notes.mkdir()
    (notes / "wanted").write_text("".join(f"{path}\n" for path in wanted), encoding="utf-8")
    phase = notes / "phase"
    phase.write_bytes(b"l")
    traced = planned.changed(replace(planned.workload, tracer=notes))
    following = iter((b"w", b"r", b"e"))

    def enough(_engine: int) -> str | None:
        now = next(following)
        with phase.open("r+b") as file:  # in place: the processes have it mapped
            file.write(now)
        return "one request to warm up and one that was traced" if now == b"e" else None

    running = benchmark.begin(traced, directory=directory, kind="reach")
    error = benchmark.session(running, Course(enough=enough, is_timing=lambda _: False), display)
    if error is not None:
        raise error
    processes = [_process(file, wanted) for file in sorted(notes.glob("lines-*"))]
    return Trace(processes, running.launches[0])


def _process(file: Path, wanted: Sequence[str]) -> Process:
    """Return what one process wrote.

    Raises:
        EngineFailed: it is not what the tracer writes.
    """
    head, *rows = file.read_text(encoding="utf-8").splitlines()
    rank, _, name = head.partition(" ")
    process = Process(name=name, rank=int(rank) if rank.isdigit() else None)
    for row in rows:
        try:
            letter, how, number, line = row.split()
            phase = IMPORT if how == "i" else LETTERS[letter]
            process.lines[wanted[int(number)]][phase].add(int(line))
        except (ValueError, KeyError, IndexError) as error:
            raise EngineFailed(f"the tracer left a line that cannot be read: {row!r}", where=file) from error
    return process
