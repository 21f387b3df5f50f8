"""The values of options: one row an option, and the function that knows what may be given. Read, never checked."""

from __future__ import annotations

import ast
import collections
import os
import tomllib
from typing import TYPE_CHECKING, Any

from bench import paths

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    Values = Callable[[], Mapping[str, str]]

RECORDS_SHOWN = 20
"""The newest; a person who wants an older one has its path."""


def _tables(folder: str) -> dict[str, dict[str, Any]]:
    """Return the tables of a catalog folder as they stand there: checking them against schemas takes too long."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted((paths.CATALOG / folder).glob("*.toml")):
        found |= {key: table for key, table in tomllib.loads(path.read_text("utf-8")).items() if type(table) is dict}
    return found


def presets() -> dict[str, str]:
    """Return every preset of this repository with its description."""
    return {key: str(table.get("description", "")) for key, table in _tables("presets").items()}


def tags() -> dict[str, str]:
    """Return the tags of the presets, with how many have each."""
    counted: collections.Counter[str] = collections.Counter()
    for table in _tables("presets").values():
        counted.update(table.get("tags", ()))
    return {tag: f"{count} presets" for tag, count in sorted(counted.items())}


def built_engines() -> dict[str, str]:
    """Return the configurations that are built here."""
    from bench.engine import find  # noqa: PLC0415 - only for an engine's name

    return dict.fromkeys(find.built(), "built here")


def engines() -> dict[str, str]:
    """Return what `--engine` takes: what is built, and how the others begin."""
    return {**built_engines(), "path": "the sglang on PATH", "source:": "a checkout of SGLang: source:PATH"}


def records(*names: str) -> dict[str, str]:
    """Return the newest run directories that have one of these files, as one would type them here."""
    try:
        folders = sorted((path for path in paths.runs().iterdir() if path.is_dir()), reverse=True)
    except OSError:
        return {}
    found: dict[str, str] = {}
    for folder in folders:
        if len(found) == RECORDS_SHOWN:
            break
        if (name := next((name for name in names if (folder / name).exists()), None)) is not None:
            found[_typed(folder)] = name
    return found


def _typed(folder: Path) -> str:
    relative = os.path.relpath(folder)
    return str(folder) if relative.startswith("..") else relative


def finished() -> dict[str, str]:
    """Return the newest runs that have a record."""
    return records("run.json", "run.partial.json")


def cut_off() -> dict[str, str]:
    """Return the newest runs that can be resumed."""
    return records("run.partial.json")


def categories() -> dict[str, str]:
    """Return the categories of signals."""
    return {path.stem: "signals" for path in sorted((paths.CATALOG / "signals").glob("*.toml"))}


def tour_steps() -> dict[str, str]:
    """Return the steps of the tour."""
    from bench.tour.steps import STEPS  # noqa: PLC0415 - only for a step's name

    return {step.name: step.title for step in STEPS}


def _fixed(**values: str) -> Values:
    return lambda: values


VALUES: Mapping[tuple[str | None, str], Values] = {
    (None, "model"): presets,
    ("checkpoint", "model"): _fixed(flux="tiny and full", **{"flux2-klein": "tiny", "sd3": "tiny", "zimage": "tiny"}),
    (None, "tag"): tags,
    (None, "engine"): engines,
    (None, "baseline"): engines,
    (None, "candidate"): engines,
    (None, "check-engine"): built_engines,
    (None, "resume"): cut_off,
    (None, "record"): finished,
    (None, "files"): finished,
    (None, "category"): categories,
    (None, "check"): _fixed(component="each component", trajectory="latents by step", golden="the stored picture"),
    (None, "dtype"): _fixed(fp32="sharp gates", bf16="smoke gates"),
    (None, "expect"): _fixed(native="the native backend", diffusers="a run that was meant to be diffusers"),
    (None, "quality"): _fixed(
        exact="no approximation", lossless="the default", high="approximate", **{"extra-high": "approximate, 0.5.21+"}
    ),
    (None, "require"): _fixed(lossless="the same pixels", high="upstream's SSIM and PSNR"),
    (None, "matrix"): _fixed(quality="every quality", **{"cuda-graph": "with and without CUDA graphs"}),
    (None, "size"): _fixed(tiny="runs on a CPU", full="the real shapes; tens of GB"),
    (None, "suite"): _fixed(**{"upstream-component": "the engine's own component tests"}),
    (None, "step"): tour_steps,
    (None, "from"): tour_steps,
    (None, "shell"): _fixed(bash="", zsh="", fish=""),
}
"""(verb or None for all, option or positional) -> its values. Add an option's values here; without a row it is a file
or a number, which is left to the shell."""

LISTS = frozenset({"model", "check", "matrix"})
"""Options that take several values with commas."""


def of(verb: str, option: str) -> dict[str, str] | None:
    """Return the values that an option may have with a word about each, None if only the user can know."""
    values = VALUES.get((verb, option)) or VALUES.get((None, option))
    return None if values is None else dict(values())


def sessions() -> dict[str, str]:
    """Return nox's sessions with their one-line texts, read from noxfile.py (importing nox takes too long)."""
    found: dict[str, str] = {}
    for node in ast.parse((paths.ROOT / "noxfile.py").read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef) and any("nox.session" in ast.unparse(it) for it in node.decorator_list):
            found[node.name] = (ast.get_docstring(node) or "").splitlines()[0]
    return found
