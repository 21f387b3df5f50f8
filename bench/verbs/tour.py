"""The verbs for newcomers: the tour, and completion in the shell."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from bench.errors import UsageError
from bench.options import nested, option
from bench.run.options import Options
from bench.task import VERBS, Context, task

START = (
    ("what can this machine run?", "doctor"),
    ("how long does a model take?", "bench --model flux-tiny --repeats 10"),
    ("is my change faster?", "ab --model flux-tiny --candidate steps=8"),
    ("where does the time go?", "profile --model flux-tiny"),
    ("is the output still right?", "accuracy --model flux-tiny"),
    ("was that run native?", "attest --log engine.log"),
)
"""What people do, and what they type for it behind `invoke`."""

SHELLS = {"bash": "", "fish": "", "zsh": ""}


@task(example="start")
def start(c: Context) -> None:
    """Show where to begin: what people do here, one command each."""
    width = max(len(question) for question, _ in START)
    print("\n".join(f"{question:<{width}}  invoke {command}" for question, command in START))
    print("\n`invoke --list` shows all tasks, `invoke TASK --help` the options of one,")
    print("`invoke tour` runs and explains them.")


@dataclass(frozen=True, slots=True, kw_only=True)
class TourOptions:
    """What `invoke tour` takes."""

    step: str | None = option(
        None,
        completes="tour_steps",
        help="only this step, by name or number; what it needs is taken from your last tour",
    )
    from_step: str | None = option(None, name="from", completes="tour_steps", help="from this step on, likewise")
    yes: bool = option(False, help="do not wait between the steps (as when standard input is not a terminal)")
    list: bool = option(False, help="only show the steps, and how long each takes")
    run: Options = nested(Options, "engine", "output_dir")


@task(TourOptions, example="tour --step bench")
def tour(c: Context, options: TourOptions) -> None:
    """Learn the workbench in ten minutes on the real engine, without a GPU; each step is run and explained."""
    from bench.tour import run, steps

    if options.step is not None and options.from_step is not None:
        raise UsageError("--step and --from exclude each other")
    wanted = steps.chosen(options.step, options.from_step)
    if options.list:
        run.show_steps(wanted)
        return
    settings = run.Settings(
        engine=options.run.engine,
        pauses=not options.yes and sys.stdin.isatty(),
        output_dir=options.run.output_dir,
    )
    run.take(wanted, settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionOptions:
    """What `invoke completion` takes."""

    shell: str = option(choices=SHELLS, help="bash, zsh or fish")
    line: str | None = option(None, help="print the completions of this command line; the shell's script asks for them")


@task(CompletionOptions, example="completion bash")
def completion(c: Context, options: CompletionOptions) -> None:
    """Print the completion script for a shell: source <(invoke completion bash)."""
    from bench.completion import candidates, scripts
    from bench.report import text

    if options.line is None:
        print(scripts.script(options.shell), end="")
        return
    for value, meaning in candidates.complete(options.line, VERBS).items():
        text.write(f"{value}\t{meaning}")
