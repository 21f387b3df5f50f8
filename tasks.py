"""The verbs: parse, delegate, print. `invoke --list` shows them, `invoke --help VERB` its options.

What a verb does is in `bench/`, which is imported inside the verbs to keep `invoke --list` instant.
"""

from __future__ import annotations

import json as jsonlib
from pathlib import Path

from bench.errors import UsageError
from bench.task import ENGINE_HELP, Collection, Context, extra_arguments, number, one_of, task
from bench.verbs import assets, doctor, models


@task(
    help={
        "model": "preset to run, or several: a,b (`invoke models` lists them)",
        "tag": "run all presets with this tag instead, e.g. tiny or nightly",
        "all": "run all presets instead",
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
        "image": "use this image in place of the preset's",
        "timeout": "seconds after which the launch is stopped (default 3600)",
        "output-dir": "where run directories are made (default runs/)",
        "model-cache-root": "fetch models into a new folder in here, in place of the user's cache",
        "cleanup-model-cache": "remove that new folder after the run, also if it fails; nothing else ever",
        "seed-model-cache-root": "show the models of this cache (an HF_HOME) in the new folder, without changing it",
        "no-precheck": "launch even if the arguments show that the run will fall back",
        "no-preflight": "launch even if a check of the machine failed",
        "dry-run": "print the exact command and environment, run nothing",
        "json": "print the record as JSON on stdout",
    }
)
def bench(
    c: Context,
    model: str = "flux",
    tag: str | None = None,
    all: bool = False,
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
    image: str | None = None,
    timeout: str | None = None,
    output_dir: str | None = None,
    model_cache_root: str | None = None,
    cleanup_model_cache: bool = False,
    seed_model_cache_root: str | None = None,
    no_precheck: bool = False,
    no_preflight: bool = False,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Time one request on the native engine and keep the proof; what follows -- goes to the engine."""
    from bench.measure import batch, plan

    if torch_compile and no_torch_compile:
        raise UsageError("--torch-compile and --no-torch-compile exclude each other")
    if all and tag:
        raise UsageError("--all and --tag exclude each other")
    own_presets = Path(preset_file) if preset_file else None
    keys = batch.chosen(model, tag, everything=all, preset_file=own_presets)
    options = plan.Options(
        model=keys[0],
        engine=engine,
        model_path=model_path,
        preset_file=own_presets,
        label=label,
        steps=number(steps, "--steps"),
        seed=number(seed, "--seed", least=0),
        width=number(width, "--width", least=8),
        height=number(height, "--height", least=8),
        torch_compile=torch_compile,
        warmup=not no_warmup,
        attention_backend=attention_backend,
        image=Path(image) if image else None,
        timeout_s=number(timeout, "--timeout", least=0.1, kind=float) or plan.DEFAULT_TIMEOUT_S,
        output_dir=Path(output_dir) if output_dir else None,
        model_cache_root=Path(model_cache_root) if model_cache_root else None,
        cleanup_model_cache=cleanup_model_cache,
        seed_model_cache_root=Path(seed_model_cache_root) if seed_model_cache_root else None,
        precheck=not no_precheck,
        preflight=not no_preflight,
        extra=extra_arguments(c),
    )
    many = all or tag is not None or len(keys) > 1
    if many and model_path is not None:
        raise UsageError("--model-path is for one preset", todo="run them one by one")
    if dry_run:
        from bench.report import session

        session.show_commands(options, keys)
    elif many:
        from bench.report import batch as report

        report.run_and_show(options, keys, "all" if all else tag or "chosen", as_json=json)
    else:
        from bench.report import session

        session.run_and_show(options, as_json=json)


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


ns = Collection(assets, attest, bench, checkpoint, doctor, models, signals, validate)
