"""Write down which lines of given files a process runs: imported by every Python process of a traced engine.

Python imports the first `sitecustomize` on its path when it starts, so that spawned workers and ranks are traced from
their first line on. BENCH_REACH names a folder that holds

    wanted   the files, one path a line
    phase    one character, which the runner replaces: l (load), w (the first request), r (the request), e (the end)

and takes a file ``lines-PID`` for each process: its name and rank first, then a line "PHASE HOW FILE LINE" whenever a
line of a wanted file runs for the first time in a phase; HOW is i while a module is being imported, else x, and FILE
counts the wanted files from 0. Nothing is buffered: workers are killed at their end.

Threads that the `threading` module does not start are not traced. Every call costs a look-up: never for a timing.
"""

from __future__ import annotations

import mmap
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import FrameType

IMPORTING = "<frozen importlib"


def name_of_this_process() -> str:
    """Return the process's rank and name as its engine set them, on one line."""
    process = sys.modules.get("multiprocessing.process")
    name = process.current_process().name if process else "MainProcess"
    return f"{os.environ.get('RANK', '-')} {name}\n"


def is_importing(frame: FrameType | None) -> bool:
    """Tell whether a module is being imported in this frame's stack."""
    while frame is not None:
        if frame.f_code.co_filename.startswith(IMPORTING):
            return True
        frame = frame.f_back
    return False


def begin(folder: Path) -> None:
    """Trace this process and all of its threads from now on."""
    paths = (folder / "wanted").read_text("utf-8").splitlines()
    wanted = {os.path.realpath(path): number for number, path in enumerate(paths)}
    with (folder / "phase").open("rb") as file:
        phase = mmap.mmap(file.fileno(), 1, access=mmap.ACCESS_READ)
    numbers: dict[str, int | None] = {}  # what code calls its file -> its number, None for all others
    seen: set[tuple[int | None, int, int, bool]] = set()
    opened: dict[int, int] = {}  # process id -> descriptor: a fork gets a file of its own

    def write(line: str) -> None:
        process = os.getpid()
        if process not in opened:
            opened[process] = os.open(folder / f"lines-{process}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.write(opened[process], name_of_this_process().encode())
        os.write(opened[process], line.encode())

    def on_line(frame: FrameType, event: str, _argument: object) -> Any:
        number, line, now = numbers[frame.f_code.co_filename], frame.f_lineno, phase[0]
        if event == "line" and (number, line, now, False) not in seen:
            importing = is_importing(frame)
            if (number, line, now, importing) not in seen:
                seen.add((number, line, now, importing))
                write(f"{chr(now)} {'i' if importing else 'x'} {number} {line}\n")
        return on_line

    def on_call(frame: FrameType, _event: str, _argument: object) -> Any:
        name = frame.f_code.co_filename
        if name not in numbers:
            numbers[name] = wanted.get(os.path.realpath(name))
        return None if numbers[name] is None else on_line

    os.register_at_fork(after_in_child=seen.clear)
    threading.settrace(on_call)
    sys.settrace(on_call)


def chain() -> None:
    """Import the `sitecustomize` that this one stands before, if there is one."""
    here = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != here]
    ours = sys.modules.pop("sitecustomize")
    try:
        import sitecustomize  # noqa: F401 - the next one on the path
    except ImportError:
        sys.modules["sitecustomize"] = ours


if notes := os.environ.get("BENCH_REACH"):
    chain()
    begin(Path(notes))
