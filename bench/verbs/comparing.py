"""Verbs that compare: two arms now, or records made earlier."""

from __future__ import annotations

from pathlib import Path

from bench.task import Context, number, share, task
from bench.verbs.shared import ENGINE_HELP, helps, run_options, threshold

ARM_HELP = (
    "words: an engine's name, steps=N, compile, NAME=VALUE (variable), --flag (for the engine); '' changes nothing"
)


@task(
    help=helps("preset-file", "label", "timeout", "output-dir")
    | {
        "model": "preset to run",
        "baseline": f"first arm; {ARM_HELP}",
        "candidate": "second arm, likewise",
        "blocks": "A-B-B-A blocks at most (default 8); it stops earlier when decided",
        "repeats": "requests of each launch, whose median counts (default 1)",
        "margin": "an effect inside it is called same (default 1.5%)",
        "co-resident": "load both engines once and alternate their requests; needs memory for both",
        "engine": ENGINE_HELP + " (of arms that name none)",
        "require": "lossless or high: exit 7 unless the outputs are that like the baseline's",
        "json": "print the comparison as JSON on stdout",
    }
)
def ab(
    c: Context,
    baseline: str = "",
    candidate: str = "",
    model: str = "flux",
    blocks: str | None = None,
    repeats: str | None = None,
    margin: str | None = None,
    co_resident: bool = False,
    engine: str | None = None,
    preset_file: str | None = None,
    label: str | None = None,
    timeout: str | None = None,
    output_dir: str | None = None,
    require: str | None = None,
    json: bool = False,
) -> None:
    """Measure two arms in A-B-B-A blocks until faster, slower or same is decided."""
    from bench.report import comparison
    from bench.run.options import Options
    from bench.stats import sequential

    common = Options(
        **run_options(
            model=model, engine=engine, preset_file=preset_file, label=label, timeout=timeout, output_dir=output_dir
        ),
        repeats=number(repeats, "--repeats") or 1,
    )
    defaults = sequential.Plan()
    percent = share(margin, "--margin")
    planned = sequential.Plan(
        max_blocks=number(blocks, "--blocks") or defaults.max_blocks,
        margin_percent=defaults.margin_percent if percent is None else 100 * percent,
    )
    specs = {"baseline": baseline, "candidate": candidate}
    comparison.measure_ab(common, specs, planned, co_resident=co_resident, as_json=json, require=threshold(require))


@task(
    help={
        "files": "run records, run directories or perf dumps; the first is the baseline (one alone: the named one)",
        "markdown": "print Markdown as it is, for a pull request",
        "require": "lossless or high: exit 7 unless the outputs are that like the baseline's",
        "json": "as JSON on stdout",
    },
    many="files",
)
def compare(
    c: Context, files: list[str], markdown: bool = False, require: str | None = None, json: bool = False
) -> None:
    """Compare records made earlier: invoke compare BASELINE CANDIDATE [CANDIDATE ...]."""
    from bench.report import comparison

    paths = [Path(name) for name in files]
    comparison.compare_files(paths, as_json=json, as_markdown=markdown, require=threshold(require))


@task(help={"record": "run record or run directory"})
def baseline_set(c: Context, record: str) -> None:
    """Make a record the baseline of its workload on its devices."""
    from bench.report import history as report

    report.set_baseline(Path(record))


@task(help={})
def baseline_show(c: Context) -> None:
    """Show the records that are baselines."""
    from bench.report import history as report

    report.show_baselines()
