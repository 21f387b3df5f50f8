"""The verbs: parse, delegate, print. `invoke --list` shows them, `invoke --help VERB` its options.

What a verb does is in `bench/`, which is imported inside the verbs to keep `invoke --list` instant.
"""

from __future__ import annotations

import json as jsonlib
from pathlib import Path

from bench.errors import UsageError
from bench.task import Collection, Context, extra_arguments, number, one_of, task

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
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Time one request on the native engine and keep the proof; what follows -- goes to the engine."""
    from bench.measure import plan

    if torch_compile and no_torch_compile:
        raise UsageError("--torch-compile and --no-torch-compile exclude each other")
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
    )
    if dry_run:
        from bench.engine import command

        print(command.shown(plan.dry_run(options)))
        return
    from bench.report import session

    session.run_and_show(options, as_json=json)


@task(
    help={
        "model": "preset to check, or several with commas (default: the tiny one of every family)",
        "check": "what to check, comma-separated: component, trajectory, golden (default all)",
        "dtype": "fp32 (sharp gates, the default) or bf16 (smoke gates: rounding hides small errors)",
        "engine": ENGINE_HELP,
        "model-path": "checkpoint folder that both sides load, in place of the preset's",
        "preset-file": "TOML file with presets of your own",
        "label": "a word that goes into the run directory's name and the report",
        "steps": "denoise steps",
        "seed": "random seed",
        "width": "pixels",
        "height": "pixels",
        "torch-compile": "compile the transformer",
        "attention-backend": "attention backend of the engine, e.g. fa or torch_sdpa",
        "timeout": "seconds after which the engine is stopped (default 3600)",
        "output-dir": "where run directories are made (default runs/)",
        "update-golden": "keep this output as the golden of its configuration; takes the reason, keeps the old one",
        "suite": "run upstream-component, the engine's own component tests, instead (needs a GPU and its models)",
        "json": "print the reports as a JSON list on stdout",
    }
)
def accuracy(
    c: Context,
    model: str | None = None,
    check: str = "component,trajectory,golden",
    dtype: str = "fp32",
    engine: str | None = None,
    model_path: str | None = None,
    preset_file: str | None = None,
    label: str | None = None,
    steps: str | None = None,
    seed: str | None = None,
    width: str | None = None,
    height: str | None = None,
    torch_compile: bool = False,
    attention_backend: str | None = None,
    timeout: str | None = None,
    output_dir: str | None = None,
    update_golden: str | None = None,
    suite: str | None = None,
    json: bool = False,
) -> None:
    """Compare the native engine with diffusers and with its own golden, behind gates that prove themselves."""
    from bench.accuracy import plan
    from bench.report import accuracy as report

    if suite is not None:
        from bench.accuracy import upstream

        upstream.run(one_of(suite, "--suite", upstream.SUITES), engine)
        return
    models = plan.chosen_models(model)
    options = plan.Options(
        model=models[0],
        checks=plan.chosen_checks(check),
        dtype=one_of(dtype, "--dtype", plan.DTYPES),
        engine=engine,
        model_path=model_path,
        preset_file=Path(preset_file) if preset_file else None,
        label=label,
        steps=number(steps, "--steps"),
        seed=number(seed, "--seed", least=0),
        width=number(width, "--width", least=8),
        height=number(height, "--height", least=8),
        torch_compile=torch_compile,
        attention_backend=attention_backend,
        timeout_s=number(timeout, "--timeout", least=0.1, kind=float) or plan.DEFAULT_TIMEOUT_S,
        output_dir=Path(output_dir) if output_dir else None,
        update_golden=update_golden,
    )
    report.run_and_show(options, models, as_json=json)


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


ns = Collection(accuracy, attest, bench, checkpoint, models, signals, validate)
