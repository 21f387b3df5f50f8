"""Input images of the presets: where each comes from (``assets.toml``), and where it lies on this machine."""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench import paths

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """One image: its name here, its address, and its SHA-256 where that is known (else the first fetch sets it)."""

    name: str
    url: str
    sha256: str | None = None
    upstream: str | None = None
    """What upstream's helper calls it: a file name in its assets folder, or an address."""


@functools.cache
def listed() -> Mapping[str, Asset]:
    """Return all images by name."""
    content = tomllib.loads((paths.CATALOG / "assets.toml").read_text(encoding="utf-8"))
    return {name: Asset(**{"name": name, "upstream": values["url"]} | values) for name, values in content.items()}


def path(name: str, preset_file: Path | None = None) -> Path:
    """Return where a preset's image is, or would be: beside the user's own preset file, else in the assets folder."""
    if preset_file is not None:
        beside = preset_file.absolute().parent / name
        if beside.is_file():
            return beside
    return paths.assets() / name
