"""Verbs about what is run: checkpoints and presets."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path

from bench.errors import UsageError
from bench.task import Context, number, task
from bench.verbs.shared import ENGINE_HELP, place


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
    from bench.engine import find
    from bench.models import checkpoint as checkpoints

    if out is None:
        raise UsageError("--out is missing", todo="name the folder to make, e.g. --out models/FLUX.1-dev-tiny")
    made = checkpoints.make(find.find(engine), model, size, Path(out), number(seed, "--seed", least=0) or 0)
    print(f"checkpoint: {made}")


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
        report.check_upstream(engine, place(source), as_json=json)
        return
    if engine or source:
        raise UsageError("--engine and --source are for --check-upstream")

    known = presets.listed(place(preset_file))
    if json:
        print(
            jsonlib.dumps({key: dict(preset.document) for key, preset in known.items()}, indent=2, ensure_ascii=False)
        )
    else:
        report.show(known)
