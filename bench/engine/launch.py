"""Launches: an engine that serves requests is started here and nowhere else, and never without a guard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench import process, redact
from bench.engine import command as commands
from bench.fallback.verdict import conclude
from bench.record import store

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

    from bench.conversation import Partner
    from bench.engine.command import Command
    from bench.errors import BenchError
    from bench.fallback.finding import Finding
    from bench.fallback.guard import Guard
    from bench.fallback.verdict import Verdict
    from bench.process import Ended, Observer


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One launch that has ended, whatever ended it, with the guard that watched it."""

    guard: Guard
    log: Path
    started: datetime
    finished: datetime
    ended: Ended

    def conclude(self, findings: Sequence[Finding]) -> Verdict:
        """Return the verdict, with what was found of its dump, outputs and device."""
        return conclude(self.guard, self.ended, findings)

    def error(self, verdict: Verdict) -> BenchError | None:
        """Return what the launch failed with: what stopped it, else its verdict; None if it counts."""
        return self.ended.stopped_by or verdict.error(self.log)


class _Tee:
    """Shows a block to a display first, so that a person sees the line that the guard stops at."""

    def __init__(self, display: Observer, guard: Guard) -> None:
        self._observers = (display, guard)

    def observe(self, block: bytes, first_line: int) -> None:
        """Hand a block to both."""
        for observer in self._observers:
            observer.observe(block, first_line)


def guarded(
    command: Command,
    *,
    guard: Guard,
    log: Path,
    timeout_s: float | None = None,
    display: Observer | None = None,
    partner: Partner | None = None,
) -> Attempt:
    """Write the files that the launch reads, run it to its end under ``guard``, and return how it went.

    This is the one way of launching an engine: its output goes to ``log``, its messages to ``partner``; whatever stops
    it is in the attempt and not raised. No process of it is left.
    """
    commands.write_files(command)
    guard.note(command.argv, command.environment)
    redact.learn(command.added, command.argv)
    started = store.now()
    guard.start()
    if display is not None:
        display.observe(b"", 1)  # the engine starts now: its first line may be half a minute away
    ended = process.stream(
        command.argv,
        env=command.environment,
        cwd=command.directory,
        log=log,
        observer=guard if display is None else _Tee(display, guard),
        timeout_s=timeout_s,
        partner=partner,
    )
    return Attempt(guard=guard, log=log, started=started, finished=store.now(), ended=ended)


def stop_all() -> None:
    """End the engines that other threads have launched."""
    process.stop_all()
