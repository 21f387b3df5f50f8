"""Launches: an engine process is started here and nowhere else, and never without a guard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import paths, process
from bench.engine import find
from bench.errors import EngineFailed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.engine.command import Command
    from bench.engine.find import Engine
    from bench.fallback.guard import Guard
    from bench.process import Ended, Observer, Partner

PROGRAM_SECONDS = 3600


class _Both:
    """Shows a block to a display first, so that a person sees the line that the guard stops at."""

    def __init__(self, display: Observer, guard: Guard) -> None:
        self._observers = (display, guard)

    def observe(self, block: bytes, first_line: int) -> None:
        """Hand a block to both."""
        for observer in self._observers:
            observer.observe(block, first_line)


def launch(
    command: Command,
    *,
    guard: Guard,
    log: Path,
    timeout_s: float | None = None,
    display: Observer | None = None,
    partner: Partner | None = None,
) -> Ended:
    """Run one engine process to its end under ``guard``; its output goes to ``log``, its messages to ``partner``.

    Returns how it ended. No process of it is left when this returns or raises.

    Raises:
        FallbackDetected: the guard saw an invalid line, and the launch was stopped at it.
        EngineFailed: the guard saw a line that says so.
        TimedOut: it took longer than ``timeout_s`` seconds.
    """
    guard.start()
    return process.stream(
        command.argv,
        env=command.environment,
        cwd=command.directory,
        log=log,
        observer=guard if display is None else _Both(display, guard),
        timeout_s=timeout_s,
        partner=partner,
    )


def run_program(engine: Engine, name: str, arguments: Sequence[str], *, work: Path | None = None) -> str:
    """Run one of the programs in ``bench/inside/`` with the engine's interpreter; return what it printed.

    ``work`` is a folder of half-made things, which goes even if this process is killed.

    Raises:
        EngineFailed: it failed; the message has its last line.
    """
    environment = find.interpreter_environment()
    if engine.source:
        environment["PYTHONPATH"] = str(engine.source.python_path)
    program = paths.INSIDE / name
    argv = [str(engine.python), str(program), *arguments]
    ended = process.capture(argv, env=environment, timeout_s=PROGRAM_SECONDS, work=work)
    if ended.exit_code != 0:
        said = ended.stderr.strip().splitlines()
        last = said[-1] if said else f"exit code {ended.exit_code}"
        raise EngineFailed(f"{name} failed in engine {engine.name}: {last}", where=program)
    return ended.stdout


def has_module(engine: Engine, name: str) -> bool:
    """Tell whether the engine's interpreter can import a module; nothing of it is run."""
    code = f"import importlib.util as u, sys; sys.exit(u.find_spec({name!r}) is None)"
    environment = find.interpreter_environment()
    return process.capture([str(engine.python), "-c", code], env=environment).exit_code == 0


def run_module(engine: Engine, name: str, arguments: Sequence[str]) -> str:
    """Run ``python -m name`` with the engine's interpreter; return what it printed.

    Raises:
        EngineFailed: it failed; the message has its last lines.
    """
    environment = find.interpreter_environment() | {"FLASHINFER_DISABLE_VERSION_CHECK": "1"}
    if engine.source:
        environment["PYTHONPATH"] = str(engine.source.python_path)
    ended = process.capture([str(engine.python), "-m", name, *arguments], env=environment, timeout_s=PROGRAM_SECONDS)
    if ended.exit_code != 0:
        said = (ended.stdout + ended.stderr).strip().splitlines()[-20:]
        last = "\n         ".join(said) or f"exit code {ended.exit_code}"
        raise EngineFailed(f"{name} failed in engine {engine.name}: {last}", where=engine.python)
    return ended.stdout
