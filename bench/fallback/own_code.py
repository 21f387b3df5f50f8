"""Components that a checkpoint brings its own code for: an engine runs it and still calls the component its own.

Source: vae_loader.py of 0.5.17 and 0.5.23, where `auto_map` in a component's config.json names a Python file beside it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import files, schema
from bench.errors import BenchError
from bench.fallback import finding as f
from bench.fallback import settings
from bench.fallback.facts import CORE_COMPONENT
from bench.fallback.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MODEL = "--model-path"
LARGEST_CONFIG_BYTES = 1 << 22


def findings(argv: Iterable[str]) -> Iterator[Finding]:
    """Yield a finding for each component of the local checkpoints in ``argv`` whose config names code of its own."""
    for flag, value in settings.of_arguments(argv):
        folder = Path(value).expanduser()
        if flag == MODEL and folder.is_dir():
            for config in sorted(folder.glob("*/config.json")):
                yield from of_component(config.parent.name, config)
        elif flag.startswith("--") and flag.endswith("-path") and flag != MODEL and (folder / "config.json").is_file():
            yield from of_component(flag[2:].removesuffix("-path").replace("-", "_"), folder / "config.json")


def read_config(path: Path) -> dict[str, Any]:
    """Return a JSON file of a checkpoint; empty if it is not an object that can be read."""
    try:
        content = schema.parse(files.read_bytes(path, LARGEST_CONFIG_BYTES), path)
    except BenchError:
        return {}  # the engine's own words about it come first
    return content if isinstance(content, dict) else {}


def of_component(name: str, config: Path) -> Iterator[Finding]:
    """Yield a finding if a component's ``config`` names code of the checkpoint's own."""
    mapped = read_config(config).get("auto_map")
    if not mapped:
        return
    yield Finding(
        id="component.own_code",
        category="component",
        severity=f.INVALID if CORE_COMPONENT.search(name) else f.DEGRADED,
        source="argument",
        text=f"{name}/config.json: auto_map = {json.dumps(mapped)}"[:300],
        means="the checkpoint brings its own class for this component: the engine runs it and calls it native",
        todo="remove auto_map from the component's config.json, or use a checkpoint without code of its own",
        component=name,
    )
