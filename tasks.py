"""The verbs: parse, delegate, print. `invoke --list` shows them, `invoke --help VERB` its options.

What a verb does is in `bench/`, which is imported inside the verbs to keep `invoke --list` instant.
"""

from __future__ import annotations

import json as jsonlib
from pathlib import Path

from bench.errors import UsageError
from bench.task import Collection, Context, extra_arguments, number, one_of, share, task

ENGINE_HELP = "a built configuration, source:CHECKOUT[@CONFIGURATION], or path; default: the sglang on PATH"


@task(
    help={
        "model": "preset to run (`invoke models` lists them)",
        "engine": ENGINE_HELP,
        "model-path": "use this checkpoint or hub model in place of the preset's",
        "preset-file": "TOML file with presets of your own",
        "label": "a word that goes into the run directory's name and the record",
        "steps": "denoise steps",
        "seed": "random seed",
        "width": "pixels",
        "height": "pixels",
        "torch-compile": "compile the transformer",
        "no-torch-compile": "run eagerly (the default)",
        "no-warmup": "time a cold request",
        "attention-backend": "attention backend of the engine, e.g. fa or torch_sdpa",
        "timeout": "seconds after which the launch is stopped (default 3600)",
        "output-dir": "where run directories are made (default runs/)",
        "no-precheck": "launch even if the arguments show that the run will fall back",
        "repeats": "requests to one loaded engine (default 1: a single sglang generate)",
        "launches": "engine starts, each serving --repeats requests (default 1)",
        "precision": "go on until the median denoise time is known this well, e.g. 1%",
        "max-repeats": "requests at most, with --precision (default 100)",
        "resume": "run directory that was cut off: go on with what is missing",
        "dry-run": "print the exact command and environment, run nothing",
        "json": "print the record as JSON on stdout",
    }
)
def bench(
    c: Context,
    model: str = "flux",
    engine: str | None = None,
    model_path: str | None = None,
    preset_file: str | None = None,
    label: str | None = None,
    steps: str | None = None,
    seed: str | None = None,
    width: str | None = None,
    height: str | None = None,
    torch_compile: bool = False,
    no_torch_compile: bool = False,
    no_warmup: bool = False,
    attention_backend: str | None = None,
    timeout: str | None = None,
    output_dir: str | None = None,
    no_precheck: bool = False,
    repeats: str | None = None,
    launches: str | None = None,
    precision: str | None = None,
    max_repeats: str | None = None,
    resume: str | None = None,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Time one request on the native engine and keep the proof; what follows -- goes to the engine."""
    from bench.measure import plan

    if torch_compile and no_torch_compile:
        raise UsageError("--torch-compile and --no-torch-compile exclude each other")
    if precision and (repeats or launches):
        raise UsageError("--precision decides the number of requests itself: leave --repeats and --launches out")
    options = plan.Options(
        model=model,
        engine=engine,
        model_path=model_path,
        preset_file=Path(preset_file) if preset_file else None,
        label=label,
        steps=number(steps, "--steps"),
        seed=number(seed, "--seed", least=0),
        width=number(width, "--width", least=8),
        height=number(height, "--height", least=8),
        torch_compile=torch_compile,
        warmup=not no_warmup,
        attention_backend=attention_backend,
        timeout_s=number(timeout, "--timeout", least=0.1, kind=float) or plan.DEFAULT_TIMEOUT_S,
        output_dir=Path(output_dir) if output_dir else None,
        precheck=not no_precheck,
        extra=extra_arguments(c),
        repeats=number(repeats, "--repeats") or 1,
        launches=number(launches, "--launches") or 1,
        precision=share(precision, "--precision"),
        max_repeats=number(max_repeats, "--max-repeats") or plan.DEFAULT_MAX_REPEATS,
    )
    if dry_run:
        from bench.engine import command

        print(command.shown(plan.dry_run(options)))
        return
    from bench.report import session

    session.run_and_show(options, as_json=json, resume=Path(resume) if resume else None)


ARM_HELP = (
    "words: an engine's name, steps=N, compile, NAME=VALUE (variable), --flag (for the engine); '' changes nothing"
)


@task(
    help={
        "model": "preset to run",
        "baseline": f"first arm; {ARM_HELP}",
        "candidate": "second arm, likewise",
        "blocks": "A-B-B-A blocks at most (default 8); it stops earlier when decided",
        "repeats": "requests of each launch, whose median counts (default 1)",
        "margin": "an effect inside it is called same (default 1.5%)",
        "co-resident": "load both engines once and alternate their requests; needs memory for both",
        "engine": ENGINE_HELP + " (of arms that name none)",
        "preset-file": "TOML file with presets of your own",
        "label": "a word that goes into the run directory's name",
        "timeout": "seconds after which a launch is stopped (default 3600)",
        "output-dir": "where run directories are made (default runs/)",
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
    json: bool = False,
) -> None:
    """Measure two arms in A-B-B-A blocks until faster, slower or same is decided."""
    from bench.measure import plan, sequential
    from bench.report import comparison

    common = plan.Options(
        model=model,
        engine=engine,
        preset_file=Path(preset_file) if preset_file else None,
        label=label,
        repeats=number(repeats, "--repeats") or 1,
        timeout_s=number(timeout, "--timeout", least=0.1, kind=float) or plan.DEFAULT_TIMEOUT_S,
        output_dir=Path(output_dir) if output_dir else None,
    )
    defaults = sequential.Plan()
    percent = share(margin, "--margin")
    planned = sequential.Plan(
        max_blocks=number(blocks, "--blocks") or defaults.max_blocks,
        margin_percent=defaults.margin_percent if percent is None else 100 * percent,
    )
    specs = {"baseline": baseline, "candidate": candidate}
    comparison.measure_ab(common, specs, planned, co_resident=co_resident, as_json=json)


@task(
    help={
        "files": "run records, run directories or perf dumps; the first is the baseline (one alone: the named one)",
        "markdown": "print Markdown as it is, for a pull request",
        "json": "as JSON on stdout",
    },
    many="files",
)
def compare(c: Context, files: list[str], markdown: bool = False, json: bool = False) -> None:
    """Compare records made earlier: invoke compare BASELINE CANDIDATE [CANDIDATE ...]."""
    from bench.report import comparison

    comparison.compare_files([Path(name) for name in files], as_json=json, as_markdown=markdown)


@task(
    help={
        "model": "preset to run",
        "engine": ENGINE_HELP,
        "launches": "engine starts (default 4)",
        "repeats": "requests of each (default 3)",
        "preset-file": "TOML file with presets of your own",
        "output-dir": "where run directories are made (default runs/)",
    }
)
def calibrate(
    c: Context,
    model: str = "flux",
    engine: str | None = None,
    launches: str | None = None,
    repeats: str | None = None,
    preset_file: str | None = None,
    output_dir: str | None = None,
) -> None:
    """Measure this machine's own noise, A against A, and say how many blocks a 1.5 % effect needs here."""
    from bench.measure import plan
    from bench.report import comparison

    options = plan.Options(
        model=model,
        engine=engine,
        preset_file=Path(preset_file) if preset_file else None,
        launches=number(launches, "--launches", least=2) or 4,
        repeats=number(repeats, "--repeats") or 3,
        output_dir=Path(output_dir) if output_dir else None,
    )
    comparison.calibrate(options)


@task(
    help={
        "model": "family to make: flux",
        "size": "tiny (runs on a CPU) or full (the real shapes; tens of GB)",
        "out": "folder to make; keep the family in its name, the engine resolves a model by it",
        "seed": "seed of the random weights",
        "engine": ENGINE_HELP,
    }
)
def checkpoint(
    c: Context,
    model: str = "flux",
    size: str = "tiny",
    out: str | None = None,
    seed: str | None = None,
    engine: str | None = None,
) -> None:
    """Make a random-weight checkpoint in diffusers layout, offline."""
    from bench import checkpoint as checkpoints
    from bench.engine import find

    if out is None:
        raise UsageError("--out is missing", todo="name the folder to make, e.g. --out models/FLUX.1-dev-tiny")
    made = checkpoints.make(find.find(engine), model, size, Path(out), number(seed, "--seed", least=0) or 0)
    print(f"checkpoint: {made}")


@task(help={"files": "perf dumps, run records, presets (TOML), or run directories"}, many="files")
def validate(c: Context, files: list[str]) -> None:
    """Check documents against their schemas: invoke validate FILE [FILE ...]."""
    from bench import documents

    for path in files:
        print(f"{path}: valid {documents.validate(Path(path))}")


@task(help={"json": "as JSON on stdout", "preset-file": "TOML file with presets of your own"})
def models(c: Context, json: bool = False, preset_file: str | None = None) -> None:
    """List the presets that --model takes."""
    from bench.catalog import presets
    from bench.report import models as report

    known = presets.listed(Path(preset_file) if preset_file else None)
    if json:
        print(
            jsonlib.dumps({key: dict(preset.document) for key, preset in known.items()}, indent=2, ensure_ascii=False)
        )
    else:
        report.show(known)


@task(
    help={
        "log": "log of a run, gzip or not; - reads standard input",
        "dump": "perf dump of the same run",
        "expect": "native or diffusers (default native)",
        "engine-version": "version of the engine that wrote the log; without it all versions' signals judge",
        "json": "print the verdict as JSON on stdout",
        "self-test": "run known losses on the real engine instead, and show that each is caught",
        "engine": ENGINE_HELP + " (for --self-test)",
        "output-dir": "where the self-test makes its run directories (default runs/)",
    }
)
def attest(
    c: Context,
    log: str | None = None,
    dump: str | None = None,
    expect: str = "native",
    engine_version: str | None = None,
    json: bool = False,
    self_test: bool = False,
    engine: str | None = None,
    output_dir: str | None = None,
) -> None:
    """Judge a run that was made elsewhere by its log and perf dump, or test the judge itself."""
    from bench.report import attest as report

    if self_test:
        report.self_test(engine, Path(output_dir) if output_dir else None)
        return
    if log is None:
        raise UsageError("--log is missing", todo="name the run's log (- for standard input), or --self-test")
    one_of(expect, "--expect", ("native", "diffusers"))
    report.judge(log, Path(dump) if dump else None, expect, engine_version, as_json=json)


@task(
    help={
        "category": "only this category, e.g. component",
        "check-engine": "look every signal up in this built engine's source instead: signals must not rot",
        "json": "as JSON on stdout",
    }
)
def signals(c: Context, category: str | None = None, check_engine: str | None = None, json: bool = False) -> None:
    """List what the guard listens for, or check it against an engine's source."""
    from dataclasses import asdict

    from bench.catalog import lines
    from bench.report import signals as report

    known = lines.signals()
    if category is not None:
        one_of(category, "--category", sorted({signal.category for signal in known}))
        known = tuple(signal for signal in known if signal.category == category)
    if check_engine is not None:
        report.check_engine(check_engine, known)
    elif json:
        print(jsonlib.dumps([asdict(signal) for signal in known], indent=2, ensure_ascii=False))
    else:
        report.show(known)


@task(
    help={
        "model": "preset whose records are shown",
        "output-dir": "where run directories are (default runs/)",
    }
)
def history(c: Context, model: str = "flux", output_dir: str | None = None) -> None:
    """Show every record of a preset in order of time, with change points and engine versions."""
    from bench.report import history as report

    report.show(model, Path(output_dir) if output_dir else None)


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


ns = Collection(ab, attest, bench, calibrate, checkpoint, compare, history, models, signals, validate)
ns.add_collection(Collection("baseline", set=baseline_set, show=baseline_show))
