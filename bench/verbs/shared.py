"""Options that several verbs have: their help, and what is made of their texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.task import number, one_of

HELP = {
    "engine": "a built configuration, source:CHECKOUT[@CONFIGURATION], or path; default: the sglang on PATH",
    "model-path": "use this checkpoint or hub model in place of the preset's",
    "preset-file": "TOML file with presets of your own",
    "label": "a word that goes into the run directory's name and the record",
    "steps": "denoise steps",
    "seed": "random seed",
    "width": "pixels",
    "height": "pixels",
    "torch-compile": "compile the transformer",
    "attention-backend": "attention backend of the engine, e.g. fa or torch_sdpa",
    "timeout": "seconds after which a launch is stopped (default 3600)",
    "output-dir": "where run directories are made (default runs/)",
}
RUN = tuple(HELP)
"""The options that `run_options` takes."""

ENGINE_HELP = HELP["engine"]


def helps(*names: str) -> dict[str, str]:
    """Return the help of these shared options."""
    return {name: HELP[name] for name in names}


def place(text: str | None) -> Path | None:
    """Return an option's text as a path, None for None."""
    return Path(text) if text else None


def run_options(
    *,
    preset_file: str | None = None,
    steps: str | None = None,
    seed: str | None = None,
    width: str | None = None,
    height: str | None = None,
    timeout: str | None = None,
    output_dir: str | None = None,
    **plain: Any,
) -> dict[str, Any]:
    """Return the fields of `RunOptions` for what was typed; ``plain`` are those that are taken as they are.

    Raises:
        UsageError: a number is none, or too small.
    """
    from bench.run.options import DEFAULT_TIMEOUT_S

    return {
        **plain,
        "preset_file": place(preset_file),
        "steps": number(steps, "--steps"),
        "seed": number(seed, "--seed", least=0),
        "width": number(width, "--width", least=8),
        "height": number(height, "--height", least=8),
        "timeout_s": number(timeout, "--timeout", least=0.1, kind=float) or DEFAULT_TIMEOUT_S,
        "output_dir": place(output_dir),
    }


def threshold(text: str | None) -> str | None:
    """Return the name of a threshold as `--require` takes it, None for None.

    Raises:
        UnknownName: there is none of that name.
    """
    from bench.fidelity import thresholds

    return None if text is None else one_of(text, "--require", tuple(thresholds.THRESHOLDS))
