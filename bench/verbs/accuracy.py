"""Verbs that check whether it is still right."""

from __future__ import annotations

from pathlib import Path

from bench.task import Context, number, one_of, task
from bench.verbs import ENGINE_HELP


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
