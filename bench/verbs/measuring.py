"""Verbs that measure: one arm, its noise, and what was measured before."""

from __future__ import annotations

from dataclasses import replace

from bench.errors import UsageError
from bench.run.options import Options
from bench.task import Context, extra_arguments, number, one_of, share, task
from bench.verbs.shared import RUN, helps, place, run_options, threshold

MATRIX_REPEATS = 5
MATRIX_LAUNCHES = 2


@task(
    help=helps(*RUN)
    | {
        "model": "preset to run, or several: a,b (`invoke models` lists them)",
        "tag": "run all presets with this tag instead, e.g. tiny or nightly",
        "all": "run all presets instead",
        "no-torch-compile": "run eagerly (the default)",
        "no-warmup": "time a cold request",
        "quality": "the engine's tier of approximations: exact, lossless, extra-high or high",
        "cuda-graph": "run the transformer as CUDA graphs, captured in a warm-up at the start",
        "matrix": "measure every combination of quality,cuda-graph (or one of them), each warmed alike",
        "image": "use this image in place of the preset's",
        "model-cache-root": "fetch models into a new folder in here, in place of the user's cache",
        "cleanup-model-cache": "remove that new folder after the run, also if it fails; nothing else ever",
        "seed-model-cache-root": "show the models of this cache (an HF_HOME) in the new folder, without changing it",
        "no-precheck": "launch even if the arguments show that the run will fall back",
        "no-preflight": "launch even if a check of the machine failed",
        "repeats": "requests to one loaded engine (default 1: a single sglang generate; of a matrix 5)",
        "launches": "engine starts, each serving --repeats requests (default 1; of a matrix 2)",
        "precision": "go on until the median denoise time is known this well, e.g. 1%",
        "max-repeats": "requests at most, with --precision (default 100)",
        "resume": "run directory that was cut off: go on with what is missing",
        "check-accuracy": "score the outputs: pixels, golden, likeness to the baseline's, asked = delivered",
        "require": "lossless or high: exit 7 unless the outputs are that like golden and baseline (checks accuracy)",
        "update-golden": "keep the outputs as the golden of this configuration; takes the reason, keeps the old one",
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
    quality: str | None = None,
    cuda_graph: bool = False,
    matrix: str | None = None,
    image: str | None = None,
    timeout: str | None = None,
    output_dir: str | None = None,
    model_cache_root: str | None = None,
    cleanup_model_cache: bool = False,
    seed_model_cache_root: str | None = None,
    no_precheck: bool = False,
    no_preflight: bool = False,
    repeats: str | None = None,
    launches: str | None = None,
    precision: str | None = None,
    max_repeats: str | None = None,
    resume: str | None = None,
    check_accuracy: bool = False,
    require: str | None = None,
    update_golden: str | None = None,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Time one request on the native engine and keep the proof; what follows -- goes to the engine."""
    from bench.catalog import presets
    from bench.engine.spelling import QUALITY_SINCE
    from bench.run.options import DEFAULT_MAX_REPEATS, Options

    if torch_compile and no_torch_compile:
        raise UsageError("--torch-compile and --no-torch-compile exclude each other")
    if precision and (repeats or launches):
        raise UsageError("--precision decides the number of requests itself: leave --repeats and --launches out")
    if all and tag:
        raise UsageError("--all and --tag exclude each other")
    fixed = (MATRIX_REPEATS, MATRIX_LAUNCHES) if matrix else (1, 1)
    keys = presets.chosen(model, tag, everything=all, preset_file=place(preset_file))
    options = Options(
        **run_options(
            model=keys[0],
            engine=engine,
            model_path=model_path,
            preset_file=preset_file,
            label=label,
            steps=steps,
            seed=seed,
            width=width,
            height=height,
            torch_compile=torch_compile,
            attention_backend=attention_backend,
            timeout=timeout,
            output_dir=output_dir,
        ),
        warmup=not no_warmup,
        quality=None if quality is None else one_of(quality, "--quality", list(QUALITY_SINCE)),
        cuda_graph=cuda_graph,
        image=place(image),
        model_cache_root=place(model_cache_root),
        cleanup_model_cache=cleanup_model_cache,
        seed_model_cache_root=place(seed_model_cache_root),
        precheck=not no_precheck,
        preflight=not no_preflight,
        extra=extra_arguments(c),
        repeats=number(repeats, "--repeats") or fixed[0],
        launches=number(launches, "--launches") or fixed[1],
        precision=share(precision, "--precision"),
        max_repeats=number(max_repeats, "--max-repeats") or DEFAULT_MAX_REPEATS,
        check_accuracy=check_accuracy,
        require=threshold(require),
        update_golden=update_golden,
    )
    many = all or tag is not None or len(keys) > 1
    if matrix is not None:
        _matrix(options, matrix, keys, dry_run=dry_run, as_json=json, excluded=bool(many or resume or precision))
        return
    if many and (model_path is not None or resume is not None):
        raise UsageError("--model-path and --resume are for one preset", todo="run them one by one")
    if dry_run:
        from bench.report import commands

        commands.show({key: replace(options, model=key) for key in keys})
    elif many:
        from bench.report import batch as report

        report.run_and_show(options, keys, "all" if all else tag or "chosen", as_json=json)
    else:
        from bench.report import session

        session.run_and_show(options, as_json=json, resume=place(resume))


def _matrix(options: Options, text: str, keys: list[str], *, dry_run: bool, as_json: bool, excluded: bool) -> None:
    """Run or show a matrix of one preset."""
    from bench.sweep import matrix

    along = matrix.axes(text)
    if options.scored:
        raise UsageError(
            "a matrix holds its cells' outputs against each other itself",
            todo="leave --check-accuracy, --require and --update-golden out",
        )
    if excluded:
        raise UsageError("--matrix is for one preset and a fixed number of requests", todo=f"--model {keys[0]} alone")
    if ("quality" in along and options.quality) or ("cuda-graph" in along and options.cuda_graph):
        raise UsageError("an axis of the matrix cannot be fixed as well", todo="leave --quality and --cuda-graph out")
    if dry_run:
        from bench.report import commands

        commands.show({cell.name: cell.options for cell in matrix.cells(options, along)})
    else:
        from bench.report import matrix as report

        report.run_and_show(options, along, as_json=as_json)


@task(
    help=helps("engine", "preset-file", "output-dir")
    | {
        "model": "preset to run",
        "launches": "engine starts (default 4)",
        "repeats": "requests of each (default 3)",
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
    from bench.report import comparison

    options = Options(
        **run_options(model=model, engine=engine, preset_file=preset_file, output_dir=output_dir),
        launches=number(launches, "--launches", least=2) or 4,
        repeats=number(repeats, "--repeats") or 3,
    )
    comparison.calibrate(options)


@task(
    help={
        "model": "preset whose records are shown",
        "output-dir": "where run directories are (default runs/)",
    }
)
def history(c: Context, model: str = "flux", output_dir: str | None = None) -> None:
    """Show every record of a preset in order of time, with change points and engine versions."""
    from bench.report import history as report

    report.show(model, place(output_dir))
