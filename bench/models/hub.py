"""The Hugging Face cache on this machine: its folder, its models, the token, and offline mode.

Source: huggingface_hub's documented variables (HF_HOME, HF_HUB_CACHE, HF_TOKEN, HF_TOKEN_PATH, HF_HUB_OFFLINE).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

YES = {"1", "ON", "YES", "TRUE"}


def home(environment: Mapping[str, str]) -> Path:
    """Return the hub's folder on this machine."""
    if environment.get("HF_HOME"):
        return Path(environment["HF_HOME"]).expanduser()
    base = environment.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "huggingface"


def cache_folder(environment: Mapping[str, str]) -> Path:
    """Return the folder that models are downloaded into."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if environment.get(name):
            return Path(environment[name]).expanduser()
    return home(environment) / "hub"


def cached(model: str, environment: Mapping[str, str]) -> Path | None:
    """Return the newest non-empty snapshot of a hub model, None without one."""
    snapshots = cache_folder(environment) / f"models--{model.replace('/', '--')}" / "snapshots"
    found = [folder for folder in snapshots.glob("*") if any(folder.iterdir())]
    return max(found, key=lambda folder: folder.stat().st_mtime, default=None)


def unfinished(model: str, environment: Mapping[str, str]) -> bool:
    """Return whether a download of the model is incomplete."""
    blobs = cache_folder(environment) / f"models--{model.replace('/', '--')}" / "blobs"
    return any(blobs.glob("*.incomplete"))


def fetched_bytes(model: str, environment: Mapping[str, str]) -> int:
    """Return how many bytes of a hub model are here, unfinished files and all."""
    blobs = cache_folder(environment) / f"models--{model.replace('/', '--')}" / "blobs"
    return sum(path.stat().st_size for path in blobs.glob("*") if path.is_file())


def has_token(environment: Mapping[str, str]) -> bool:
    """Return whether a token is set; it is never read."""
    if environment.get("HF_TOKEN") or environment.get("HUGGING_FACE_HUB_TOKEN"):
        return True
    path = environment.get("HF_TOKEN_PATH")
    return (Path(path).expanduser() if path else home(environment) / "token").is_file()


def is_offline(environment: Mapping[str, str]) -> bool:
    """Return whether the hub must not be contacted."""
    return any(environment.get(name, "").upper() in YES for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))


def size_bytes(folder: Path) -> int:
    """Return the bytes of all files in a folder; a link counts as its target."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
