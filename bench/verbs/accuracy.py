"""Verbs that check whether it is still right."""

from __future__ import annotations

from bench.task import Context, one_of, task
from bench.verbs.shared import RUN, helps, run_options


@task(
    help=helps(*RUN)
    | {
        "model": "preset to check, or several with commas (default: the tiny one of every family)",
        "check": "what to check, comma-separated: component, trajectory, golden (default all)",
        "dtype": "fp32 (sharp gates, the default) or bf16 (smoke gates: rounding hides small errors)",
        "model-path": "checkpoint folder that both sides load, in place of the preset's",
        "label": "a word that goes into the run directory's name and the report",
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
    from bench.accuracy.options import DTYPES, Options
    from bench.report import accuracy as report

    if suite is not None:
        from bench.upstream import suite as upstream

        upstream.run(one_of(suite, "--suite", upstream.SUITES), engine)
        return
    models = plan.chosen_models(model)
    options = Options(
        **run_options(
            model=models[0],
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
        checks=plan.chosen_checks(check),
        dtype=one_of(dtype, "--dtype", DTYPES),
        update_golden=update_golden,
    )
    report.run_and_show(options, models, as_json=json)
