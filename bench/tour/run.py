"""Guides a newcomer through the steps: shows, runs and explains each, and stops at the first unexpected result."""

from __future__ import annotations

import os
import re
import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.padding import Padding
from rich.rule import Rule
from rich.text import Text

from bench import paths
from bench.engine import find
from bench.errors import BY_EXIT_CODE, BenchError, UsageError
from bench.record import store
from bench.report import text
from bench.report.figures import duration
from bench.tour import shell
from bench.tour.steps import HERE, ON_A_GPU, PLACEHOLDER, STEPS, Step

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

KIND = "tour"
MADE = re.compile(r"^(?:record|checkpoint): (.+)$", re.MULTILINE)
WIDEST = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How the tour is taken: which engine, whether it goes on by itself, and where runs are kept."""

    engine: str | None
    pauses: bool
    output_dir: Path | None


def show_steps(steps: Sequence[Step]) -> None:
    """Print steps with what each takes."""
    table = text.table("", "step", "about", "", right=("about",))
    for step in steps:
        table.add_row(str(STEPS.index(step) + 1), step.name, f"{step.seconds} s", step.title)
    console = text.stdout()
    console.print(table)
    if len(steps) > 1:
        console.print(f"{sum(step.seconds for step in steps) / 60:.0f} minutes on two cores, without the reading")


def take(steps: Sequence[Step], settings: Settings) -> None:
    """Run the steps one after another.

    Raises:
        UsageError: the engine is unknown, or what a step needs of earlier ones was never made.
        BenchError: a step ended with an unexpected exit code; the exit code is that step's.
    """
    console = _console()
    engine = find.find(settings.engine)
    folder = _folder(steps, settings)
    console.print(f"engine  sglang {engine.version} [{engine.name}]")
    console.print(f"folder  {shown(folder)}", soft_wrap=True)
    if (typed := shell.typed_as()) is not None:
        console.print(f"invoke  is {typed} here: type that, or put its folder on PATH", soft_wrap=True)
    begun = time.monotonic()
    for position, step in enumerate(steps):
        _take_one(step, steps[position + 1 :], settings, folder, console)
        if settings.pauses and position + 1 < len(steps) and not _goes_on(console):
            console.print(f"\ngo on with: invoke tour --from {steps[position + 1].name}{_engine_text(settings)}")
            return
    if steps[-1] is STEPS[-1]:
        console.print(Rule("on a machine with a GPU", align="left"))
        for what, command in ON_A_GPU:
            console.print(Text(f"{what}:"), Padding(Text(command, style="bold"), (0, 0, 0, 4)))
    elapsed = time.monotonic() - begun
    done = f"all {len(steps)} steps went as expected" if len(steps) > 1 else "the step went as expected"
    console.print(f"\n{done} ({duration(elapsed)})")
    console.print(f"what each printed: {shown(folder)}", soft_wrap=True)


def shown(path: Path) -> str:
    """Return a path as a person in this folder would type it."""
    relative = os.path.relpath(path)
    return relative if not relative.startswith("..") else str(path)


def _console() -> Console:
    console = text.stdout()
    console.width = min(console.width, WIDEST)
    return console


def _engine_text(settings: Settings) -> str:
    return f" --engine {shlex.quote(settings.engine)}" if settings.engine else ""


def _output(folder: Path, step: Step) -> Path:
    return folder / f"{STEPS.index(step) + 1:02}-{step.name}.txt"


def _folder(steps: Sequence[Step], settings: Settings) -> Path:
    """Return the newest tour's folder that has what the steps use, a fresh one if they put something new into it."""
    root = (settings.output_dir or paths.runs()).absolute()
    own = {step.name for step in steps}
    missing = list(dict.fromkeys(name for step in steps for name in step.needs() if name not in own))
    tours = sorted(root.glob(f"*-{KIND}-flux-tiny-*"), reverse=True)
    if not any(step.fills_folder() for step in steps):
        for tour in tours:
            if all(_made(tour, name) is not None for name in missing):
                return tour
    if not missing:
        return store.new_run(KIND, "flux-tiny", settings.output_dir)
    lacking = ", ".join(name for name in missing if not tours or _made(tours[0], name) is None)
    why = "the last tour did not reach them" if tours else "no tour has been taken here yet"
    raise UsageError(
        f"step {steps[0].name} uses what these steps make: {lacking}; {why}",
        where=tours[0] if tours else root,
        todo=f"`invoke tour{_engine_text(settings)}` takes the tour from its start",
    )


def _made(folder: Path, name: str) -> Path | None:
    """Return the run directory or checkpoint that a step printed the last time, None if it printed none."""
    step = next(step for step in STEPS if step.name == name)
    outputs = sorted(folder.glob(f"{_output(folder, step).stem}*.txt"), key=lambda path: path.stat().st_mtime)
    found = MADE.findall(outputs[-1].read_text(encoding="utf-8", errors="replace")) if outputs else []
    if not found:
        return None
    path = Path(found[-1])
    return path if path.is_dir() else path.parent


def _filled(word: str, folder: Path) -> str:
    """Return a word with its placeholders replaced by what was made."""

    def value(match: re.Match[str]) -> str:
        made = folder if match[1] == HERE else _made(folder, match[1])
        if made is None:
            raise UsageError(f"step {match[1]} made nothing that can be used", where=folder)
        return shown(made)

    return PLACEHOLDER.sub(value, word)


def _then(steps: Sequence[Step]) -> str:
    """Return how long the steps to come take, in words behind those of a step."""
    minutes = sum(step.seconds for step in steps) / 60
    return f"; then {minutes:.0f} min to the end" if minutes >= 1 else "; the end is near" if steps else ""


def _take_one(step: Step, to_come: Sequence[Step], settings: Settings, folder: Path, console: Console) -> None:
    words = [_filled(word, folder) for word in step.command]
    if step.takes_engine and settings.engine:
        words += ["--engine", settings.engine]
    if settings.output_dir is not None and step.takes_output_dir:
        words += ["--output-dir", shown(settings.output_dir)]
    console.print()
    console.print(Rule(f"{STEPS.index(step) + 1} of {len(STEPS)}: {step.name}", align="left"))
    console.print(Text(f"{step.title} (about {step.seconds} s on two quiet cores{_then(to_come)})", style="bold"))
    console.print(Text(step.why))
    console.print()
    if step.link is not None:
        target, name = step.link
        _link(_filled(target, folder), _filled(name, folder), console)
    console.print(Text(f"$ invoke {shlex.join(words)}", style="bold"), soft_wrap=True)
    log = _fresh(_output(folder, step))
    ended = shell.run_invoke(words, log=log, out=console.file, columns=console.width)
    if ended.exit_code is not None and ended.exit_code != step.exit_code:
        raise _unexpected(step, ended.exit_code, log, settings)
    console.print(f"\nexit code {ended.exit_code}, as expected, after {ended.wall_s:.0f} s\n")
    console.print(Text(f"How to read it: {step.read}"))


def _fresh(path: Path) -> Path:
    """Return the path, or one with a number: a step that is taken again leaves what it said before."""
    number, fresh = 2, path
    while fresh.exists():
        fresh, number = path.with_name(f"{path.stem}-{number}.txt"), number + 1
    return fresh


def _link(target: str, name: str, console: Console) -> None:
    """Make a symbolic link beside its target and show the command; one that is there is left."""
    link = Path(name)
    if link.is_symlink():
        return
    console.print(Text(f"$ ln -s {shlex.join([Path(target).name, name])}", style="bold"), soft_wrap=True)
    link.symlink_to(Path(target).name)


def _unexpected(step: Step, exit_code: int, log: Path, settings: Settings) -> BenchError:
    return BY_EXIT_CODE.get(exit_code, BenchError)(
        f"the tour stops: step {step.name} ended with exit code {exit_code}, expected {step.exit_code}",
        where=log,
        todo=f"read its last lines above, then `invoke tour --from {step.name}{_engine_text(settings)}` to go on",
    )


def _goes_on(console: Console) -> bool:
    """Wait for the person; return whether to go on."""
    try:
        answer = console.input("\n[dim]Enter goes on, q ends: [/]")
    except EOFError:
        return False
    return not answer.strip().lower().startswith("q")
