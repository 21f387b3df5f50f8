"""Verbs about what can be run here: presets, their images, and the machine. Thin, as those in ``tasks.py``."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path

from bench.errors import UsageError
from bench.task import ENGINE_HELP, Context, task


@task(
    help={
        "json": "as JSON on stdout",
        "preset-file": "TOML file with presets of your own",
        "check-upstream": "compare our presets with those of an engine's own helper script; exit code 7 if any differs",
        "engine": ENGINE_HELP + " (for --check-upstream)",
        "source": "a checkout of SGLang, in place of an engine: its nightly comparison is compared too",
    }
)
def models(
    c: Context,
    json: bool = False,
    preset_file: str | None = None,
    check_upstream: bool = False,
    engine: str | None = None,
    source: str | None = None,
) -> None:
    """List the presets that --model takes, or find where upstream's have moved on."""
    from bench.catalog import presets
    from bench.report import models as report

    if check_upstream:
        report.check_upstream(engine, Path(source) if source else None, as_json=json)
        return
    if engine or source:
        raise UsageError("--engine and --source are for --check-upstream")

    known = presets.listed(Path(preset_file) if preset_file else None)
    if json:
        print(
            jsonlib.dumps({key: dict(preset.document) for key, preset in known.items()}, indent=2, ensure_ascii=False)
        )
    else:
        report.show(known)


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
    help={
        "model": "check for this preset; without it, for the machine in general and which presets run here",
        "engine": ENGINE_HELP,
        "model-path": "use this checkpoint or hub model in place of the preset's",
        "preset-file": "TOML file with presets of your own",
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
    from bench.measure import plan
    from bench.report import doctor as report

    options = plan.Options(
        model=model or "",
        engine=engine,
        model_path=model_path,
        preset_file=Path(preset_file) if preset_file else None,
        image=Path(image) if image else None,
        output_dir=Path(output_dir) if output_dir else None,
    )
    report.examine(options, one_model=model is not None, as_json=json)
