"""Verbs about the machine: what it can run, and what has to be fetched for it."""

from __future__ import annotations

from bench.task import Context, task
from bench.verbs.shared import helps, place, run_options


@task(
    help={
        "only": "only this image, e.g. cat.png",
        "own": "take a file of yours as one of the images: NAME=FILE",
        "mirror": "address of a server that has the images under their names, in place of their own addresses",
        "again": "fetch it even if it is here",
        "list": "only show what is here and which presets need it",
        "json": "the list as JSON on stdout",
    }
)
def assets(
    c: Context,
    only: str | None = None,
    own: str | None = None,
    mirror: str | None = None,
    again: bool = False,
    list: bool = False,
    json: bool = False,
) -> None:
    """Fetch the input images of the presets, checked by hash."""
    from bench.report import assets as report

    if list or json:
        report.show_list(as_json=json)
    else:
        report.fetch_all(only=only, own=own, mirror=mirror, again=again)


@task(
    help=helps("engine", "model-path", "preset-file")
    | {
        "model": "check for this preset; without it, for the machine in general and which presets run here",
        "image": "use this image in place of the preset's",
        "output-dir": "where run directories shall be made (default runs/)",
        "json": "as JSON on stdout",
    }
)
def doctor(
    c: Context,
    model: str | None = None,
    engine: str | None = None,
    model_path: str | None = None,
    preset_file: str | None = None,
    image: str | None = None,
    output_dir: str | None = None,
    json: bool = False,
) -> None:
    """Check what this machine can run and what is in the way; exit code 10 if a check fails."""
    from bench.report import doctor as report
    from bench.run.options import Options

    options = Options(
        **run_options(
            model=model or "", engine=engine, model_path=model_path, preset_file=preset_file, output_dir=output_dir
        ),
        image=place(image),
    )
    report.examine(options, one_model=model is not None, as_json=json)
