"""An input image on this machine: there, an image, and the one that is meant."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from PIL import Image, UnidentifiedImageError

from bench import paths
from bench.catalog import assets
from bench.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

FIRST_SEEN = ".sha256"
"""Suffix of the file beside an image that keeps the hash of the first fetch, for one whose hash no catalogue has."""


def sha256(path: Path) -> str:
    """Return a file's hash."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def expected_sha256(path: Path) -> str | None:
    """Return the hash that an image of ours has to have: the catalogue's, else that of the first fetch; else None."""
    if path.parent != paths.assets():
        return None
    asset = assets.listed().get(path.name)
    if asset is not None and asset.sha256 is not None:
        return asset.sha256
    first = path.with_name(path.name + FIRST_SEEN)
    return first.read_text(encoding="utf-8").strip() if first.is_file() else None


def check(path: Path) -> str:
    """Return what the image is, in a few words.

    Raises:
        UsageError: it is not there, is no image, or not the one that is meant.
    """
    if not path.is_file():
        known = path.parent == paths.assets() and path.name in assets.listed()
        todo = f"invoke assets --only {path.name}, or bench --image YOUR_FILE" if known else "name another file"
        raise UsageError("the image is not there", where=path, todo=todo)
    try:
        with Image.open(path) as opened:
            size = f"{opened.width}x{opened.height} {opened.format}"
            opened.verify()
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise UsageError(f"not an image: {error}", where=path, todo="fetch it again: invoke assets --again") from error
    expected = expected_sha256(path)
    found = sha256(path)
    if expected is not None and found != expected:
        raise UsageError(
            f"another image than the one that is meant: sha256 {found[:12]}, not {expected[:12]}",
            where=path,
            todo="invoke assets --again, or bench --image to use it on purpose",
        )
    return f"{path.name}: {size}, sha256 {found[:12]}"
