"""The engine's interpreter for short helper programs: they serve no request, so no guard watches them.

An engine that serves requests is started by `launch`, and only there.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bench import paths, process
from bench.engine import find
from bench.errors import EngineFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.engine.find import Engine
    from bench.process import Captured

PROGRAM_SECONDS = 3600
SHORT_SECONDS = 60


def engine_variables(engine: Engine) -> dict[str, str]:
    """Return the variables that every process of this engine needs: a checkout is imported by its path."""
    variables = {"FLASHINFER_DISABLE_VERSION_CHECK": "1"}  # the check refuses to import beside some torch builds
    if engine.source:
        variables["PYTHONPATH"] = str(engine.source.python_path)
    return variables


def engine_environment(engine: Engine) -> dict[str, str]:
    """Return the whole environment in which this engine's modules are those that a launch would use."""
    return find.interpreter_environment() | engine_variables(engine)


def run_program(engine: Engine, name: str, arguments: Sequence[str], *, work: Path | None = None) -> str:
    """Run one of the programs in ``bench/inside/`` with the engine's interpreter; return what it printed.

    ``work`` is a folder of half-made things, which goes even if this process is killed.

    Raises:
        EngineFailed: it failed; the message has its last line.
    """
    program = paths.INSIDE / name
    ended = _run(engine, [str(program), *arguments], PROGRAM_SECONDS, work)
    if ended.exit_code != 0:
        last = ended.last_line(f"exit code {ended.exit_code}")
        raise EngineFailed(f"{name} failed in engine {engine.name}: {last}", where=program)
    return ended.stdout


def run_module(engine: Engine, name: str, arguments: Sequence[str]) -> str:
    """Run ``python -m name`` with the engine's interpreter; return what it printed.

    Raises:
        EngineFailed: it failed; the message has its last lines.
    """
    ended = _run(engine, ["-m", name, *arguments], PROGRAM_SECONDS)
    if ended.exit_code != 0:
        lines = (ended.stdout + ended.stderr).strip().splitlines()[-20:]
        last = "\n         ".join(lines) or f"exit code {ended.exit_code}"
        raise EngineFailed(f"{name} failed in engine {engine.name}: {last}", where=engine.python)
    return ended.stdout


def has_module(engine: Engine, name: str) -> bool:
    """Tell whether the engine's interpreter can import a module; nothing of it is run."""
    code = f"import importlib.util as u, sys; sys.exit(u.find_spec({name!r}) is None)"
    return _run(engine, ["-c", code], SHORT_SECONDS).exit_code == 0


def package(engine: Engine) -> Path:
    """Return the folder of the engine's sglang package, to be read as text.

    Raises:
        EngineFailed: its interpreter does not find one.
    """
    code = "import importlib.util as u; print(u.find_spec('sglang').submodule_search_locations[0])"
    ended = _run(engine, ["-c", code], SHORT_SECONDS)
    if ended.exit_code != 0:
        raise EngineFailed("cannot find the engine's sglang package", where=engine.python)
    return Path(ended.stdout.strip())


def _run(engine: Engine, arguments: Sequence[str], timeout_s: float, work: Path | None = None) -> Captured:
    argv = [str(engine.python), *arguments]
    return process.capture(argv, env=engine_environment(engine), timeout_s=timeout_s, work=work)
