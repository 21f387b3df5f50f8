"""What a launch is doing while it runs: a progress line on a terminal, plain lines elsewhere. Goes to stderr."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench.fallback.matcher import clean

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import Console

REQUEST = "request"
FIRST = "checks, then the engine's imports"
"""Said at once: a refused run ends here, another spends half a minute."""
WARMING = "warming up"
PHASES = (
    (re.compile(r"server_args: \{"), "starting workers"),
    (re.compile(r"Loading pipeline modules|Loading diffusers pipeline"), "loading the model"),
    (re.compile(r"Compiling \w+ with mode"), "compiling"),
    (re.compile(r"Processing \d+ grouped request"), WARMING),
    (re.compile(r"Running pipeline stages"), REQUEST),
    (re.compile(r"\[(?P<stage>\w+)\] started"), None),
    (re.compile(r"Output saved to"), "saving"),
)
STEP = re.compile(r"(\d+)/(\d+) \[\d+:\d+")
CASE = re.compile(r"^accuracy case: (.+)$", re.MULTILINE)
LOOKED_AT_BYTES = 1 << 14


class Live:
    """A context that observes the log and shows the phase, the denoise steps and the time."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._start = time.monotonic()
        self._phase = ""
        self._requests = 0
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task(FIRST, total=None)

    def __enter__(self) -> Self:
        self._progress.start()
        self._show(FIRST)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def observe(self, block: bytes, first_line: int) -> None:  # noqa: ARG002 - the observer's interface
        """Take a block of the log; of a flood only the end is looked at."""
        for line in clean(block[-LOOKED_AT_BYTES:].decode("utf-8", "replace")).replace("\r", "\n").split("\n"):
            for pattern, phase in PHASES:
                if found := pattern.search(line):
                    self._show(phase or found["stage"])
            if self._phase.endswith("Stage") and (step := STEP.search(line)):
                self._progress.update(self._task, completed=int(step[1]), total=int(step[2]))

    def _show(self, phase: str) -> None:
        if phase == self._phase or (phase == WARMING and self._requests):
            return  # the engine groups every request; only before the first one it is a warm-up
        self._phase = phase
        self._requests += phase == REQUEST
        name = f"request {self._requests}" if phase == REQUEST else phase
        self._progress.update(self._task, description=name, completed=0, total=None)
        # the stages of the first request are told; of later ones a person wants to see no more than that they come
        if not self._console.is_terminal and (self._requests <= 1 or phase == REQUEST):
            elapsed = time.monotonic() - self._start
            self._console.print(f"[{elapsed:6.1f} s] {name}", markup=False, highlight=False)


class Cases:
    """Observes the log of an accuracy check and tells each case as it ends."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._start = time.monotonic()

    def observe(self, block: bytes, first_line: int) -> None:  # noqa: ARG002 - the observer's interface
        """Take a block of whole lines."""
        for case in CASE.findall(block.decode("utf-8", "replace")):
            elapsed = time.monotonic() - self._start
            self._console.print(f"[{elapsed:6.1f} s] done: {case}", markup=False, highlight=False)
