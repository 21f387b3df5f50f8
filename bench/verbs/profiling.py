"""Verbs that profile: from a trace to what to do next."""

from __future__ import annotations

from pathlib import Path

from bench.errors import UsageError
from bench.task import Context, extra_arguments, number, task
from bench.verbs.shared import helps, place, run_options

STEPS_PROFILED = 5


@task(
    help=helps("engine", "torch-compile", "label", "preset-file", "timeout", "output-dir")
    | {
        "model": "preset to profile",
        "steps-profiled": f"denoise steps to trace after the schedule's warm-up (default {STEPS_PROFILED})",
        "all-stages": "trace text encoding and decoding too",
        "nsys": "run the engine under Nsight Systems as well",
        "trace": "analyse a trace made elsewhere instead; again for each further rank",
        "engine-version": "version that wrote the traces: a fast path that it lacks is no miss",
        "full": "print every table",
    },
    repeated=["trace"],
)
def profile(
    c: Context,
    trace: list[str],
    model: str = "flux",
    engine: str | None = None,
    steps_profiled: str | None = None,
    all_stages: bool = False,
    torch_compile: bool = False,
    nsys: bool = False,
    engine_version: str | None = None,
    full: bool = False,
    label: str | None = None,
    preset_file: str | None = None,
    timeout: str | None = None,
    output_dir: str | None = None,
) -> None:
    """Trace a guarded run, or read traces made elsewhere, and say where the time goes and what to do."""
    from bench.report import profiling
    from bench.run.options import Options

    if trace:
        profiling.made_elsewhere([Path(name) for name in trace], engine_version, place(output_dir), full=full)
        return
    options = Options(
        **run_options(
            model=model,
            engine=engine,
            preset_file=preset_file,
            label=label,
            torch_compile=torch_compile,
            timeout=timeout,
            output_dir=output_dir,
        ),
        extra=extra_arguments(c),
    )
    steps = number(steps_profiled, "--steps-profiled") or STEPS_PROFILED
    profiling.captured(options, steps=steps, all_stages=all_stages, nsys=nsys, full=full)


@task(
    help={
        "files": "two traces, or report folders that `invoke profile` wrote: baseline, then the other",
        "a-steps": "steps of the first to take, e.g. 1,2,3 (default: its representative ones)",
        "b-steps": "steps of the second, likewise",
        "engine-version": "version that wrote the traces",
        "force": "compare other devices and workloads too, and say so",
        "output-dir": "where the diff is written (default runs/)",
    },
    many="files",
)
def profile_diff(
    c: Context,
    files: list[str],
    a_steps: str | None = None,
    b_steps: str | None = None,
    engine_version: str | None = None,
    force: bool = False,
    output_dir: str | None = None,
) -> None:
    """Compare two traces: what appeared, vanished or got slower; invoke profile-diff A B."""
    from bench.report import profiling

    if len(files) == 1:
        files = files * 2  # one trace with itself: steps against steps
    if len(files) > 2:  # noqa: PLR2004 - A and B
        raise UsageError("a diff is of two traces", todo="invoke profile-diff A B")
    profiling.diff(
        (Path(files[0]), Path(files[1])),
        engine_version,
        place(output_dir),
        steps=(a_steps, b_steps),
        force=force,
    )
