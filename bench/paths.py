"""Where things are, and the hash of a file."""

from __future__ import annotations

import hashlib
import os
import tomllib
from pathlib import Path

import platformdirs

APPLICATION = "sglang-diffusion-workbench"

PACKAGE = Path(__file__).resolve().parent
ROOT = PACKAGE.parent
SCHEMAS = ROOT / "schemas"
CATALOG = PACKAGE / "catalog"
INSIDE = PACKAGE / "inside"
"""Programs that an engine's interpreter runs. They import torch and nothing of this package."""


def version() -> str:
    """Return the version of the workbench, which runs from its checkout and is not installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["version"])


def cache() -> Path:
    """Return the user's cache folder for synthetic checkpoints and what was learned of engines (not created here)."""
    return platformdirs.user_cache_path(APPLICATION)


def configuration() -> Path:
    """Return the folder of the user's own settings (not created here)."""
    return platformdirs.user_config_path(APPLICATION)


def runs() -> Path:
    """Return the folder that new run directories are made in: ``BENCH_RUNS``, else ``runs/`` in this checkout."""
    return Path(os.environ.get("BENCH_RUNS") or ROOT / "runs")


def typed(place: Path) -> str:
    """Return a place as one would type it: from the working directory where it lies below that."""
    relative = os.path.relpath(place)
    return str(place) if relative.startswith("..") else relative


def assets() -> Path:
    """Return the folder of the presets' input images: ``BENCH_ASSETS``, else one in the user's cache."""
    return Path(os.environ.get("BENCH_ASSETS") or cache() / "assets")


def goldens() -> Path:
    """Return the folder of stored goldens: ``BENCH_GOLDENS``, else ``goldens/`` in this checkout."""
    return Path(os.environ.get("BENCH_GOLDENS") or ROOT / "goldens")


def environments() -> Path:
    """Return the folder with nox's environments: ``BENCH_ENVIRONMENTS``, else ``.nox/`` in this checkout."""
    return Path(os.environ.get("BENCH_ENVIRONMENTS") or ROOT / ".nox")


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of(data: bytes) -> str:
    """Return the sha256 of bytes, as hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()
