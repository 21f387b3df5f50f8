"""Verbs for who is new here: the tour, and completion in the shell."""

from __future__ import annotations

import sys

from bench.errors import UsageError
from bench.task import Context, described, one_of, task
from bench.verbs.shared import helps, place


@task(
    help=helps("engine", "output-dir")
    | {
        "step": "only this step, by name or number; what it needs is taken from your last tour",
        "from": "from this step on, likewise",
        "yes": "do not wait between the steps (as when standard input is no terminal)",
        "list": "only show the steps, and how long each takes",
    }
)
def tour(
    c: Context,
    engine: str | None = None,
    step: str | None = None,
    from_: str | None = None,
    yes: bool = False,
    list: bool = False,
    output_dir: str | None = None,
) -> None:
    """Learn the workbench in ten minutes on the real engine, without a GPU; each step is run and explained."""
    from bench.tour import run, steps

    if step is not None and from_ is not None:
        raise UsageError("--step and --from exclude each other")
    wanted = steps.chosen(step, from_)
    if list:
        run.show_steps()
        return
    settings = run.Settings(
        engine=engine,
        pauses=not yes and sys.stdin.isatty(),
        output_dir=place(output_dir),
    )
    run.take(wanted, settings)


@task(
    help={
        "shell": "bash, zsh or fish",
        "line": "print what may stand at the end of this command line, as the script asks at a TAB",
    }
)
def completion(c: Context, shell: str, line: str | None = None) -> None:
    """Print the completion script for a shell: source <(invoke completion bash)."""
    from bench.completion import candidates, scripts

    one_of(shell, "SHELL", scripts.SHELLS)
    if line is None:
        print(scripts.script(shell), end="")
        return
    import tasks  # invoke has loaded it: this is the namespace that is being completed

    for value, text in candidates.complete(line, described(tasks.ns)).items():
        print(f"{value}\t{text}")
