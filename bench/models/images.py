"""The presets' input images on this machine: checked against a known hash, downloaded, or supplied by the user."""

from __future__ import annotations

import shutil
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, UnidentifiedImageError

from bench import files, paths
from bench.catalog import assets
from bench.errors import PreflightFailed, UsageError
from bench.fallback import media

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.catalog.assets import Asset

TIMEOUT_S = 30
LARGEST_BYTES = 64 << 20
FIRST_SEEN = ".sha256"
"""Suffix of the file beside an image with the hash of its first download, for images without one in the catalogue."""


def expected_sha256(path: Path) -> str | None:
    """Return the hash that an image of the catalogue must have, None if it is unknown or not such an image."""
    if path.parent != paths.assets():
        return None
    asset = assets.listed().get(path.name)
    if asset is not None and asset.sha256 is not None:
        return asset.sha256
    first = path.with_name(path.name + FIRST_SEEN)
    return files.read_bytes(first, files.SETTINGS_BYTES).decode(errors="replace").strip() if first.is_file() else None


def check(path: Path) -> str:
    """Return name, size, format and hash of an image in one line.

    Raises:
        UsageError: the file is missing, not an image, or has an unexpected hash.
    """
    known = path.parent == paths.assets() and path.name in assets.listed()
    if not path.is_file():
        todo = "`invoke assets` fetches it; or name a file of your own" if known else "name another file"
        raise UsageError("the input image is missing", where=path, todo=todo, field="image")
    try:
        Image.MAX_IMAGE_PIXELS = media.LARGEST_PIXELS // 2  # Pillow refuses twice as many
        with Image.open(path, formats=media.IMAGE_FORMATS) as opened:
            size = f"{opened.width}x{opened.height} {opened.format}"
            opened.verify()
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        todo, field = ("fetch it again", "again") if known else ("name another file", "image")
        raise UsageError(f"not an image: {error}", where=path, todo=todo, field=field) from error
    digest, expected = paths.sha256(path), expected_sha256(path)
    if expected not in (None, digest):
        raise UsageError(
            f"image hash mismatch: sha256 {digest[:12]}, expected {str(expected)[:12]}",
            where=path,
            todo="fetch it again with `invoke assets`, or name this file yourself to use it on purpose",
            field="image",
        )
    return f"{path.name}: {size}, sha256 {digest[:12]}"


def fetch(asset: Asset, *, mirror: str | None, again: bool) -> tuple[Path, bool]:
    """Return the path of an image, and whether it was downloaded just now.

    ``mirror`` is an address that serves the image under its name, for a site without internet access.

    Raises:
        PreflightFailed: the download failed.
        UsageError: what arrived is not the image, or cannot be stored.
    """
    target = paths.assets() / asset.name
    if not again and target.is_file():
        check(target)
        return target, False
    url = asset.url if mirror is None else f"{mirror.rstrip('/')}/{asset.name}"
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise UsageError("not an http(s) URL", where=url)
    request = urllib.request.Request(url, headers={"User-Agent": "sglang-diffusion-workbench"})  # noqa: S310 - as above
    with _accepted(asset, again=again) as part:
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310 - as above
                content = response.read(LARGEST_BYTES + 1)
                if len(content) > LARGEST_BYTES:
                    raise PreflightFailed(f"the server sends more than {LARGEST_BYTES >> 20} MiB", where=url)
                if response.length:  # what is missing: a read with a limit does not raise IncompleteRead
                    raise PreflightFailed(f"download failed: it broke off {response.length:,} bytes early", where=url)
                part.write_bytes(content)
        except urllib.error.HTTPError as error:
            raise PreflightFailed(f"the server refuses: {error.code} {error.reason}", where=url) from error
        except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
            raise PreflightFailed(f"download failed: {getattr(error, 'reason', error)}", where=url) from error
    return target, True


def own(asset: Asset, file: Path) -> Path:
    """Store a user's own file as an image of the catalogue and return its path.

    Raises:
        UsageError: it is not an image, or not the one whose hash the catalogue has.
    """
    check(file)
    with _accepted(asset, again=True) as part:
        shutil.copyfile(file, part)
    return paths.assets() / asset.name


@contextmanager
def _accepted(asset: Asset, *, again: bool) -> Iterator[Path]:
    """Yield a temporary file; move it to the image's place if the block made it the expected image."""
    target = paths.assets() / asset.name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{asset.name}.", dir=target.parent) as folder:
            part = Path(folder) / asset.name
            yield part
            check(part)
            digest = paths.sha256(part)
            expected = asset.sha256 if again else asset.sha256 or expected_sha256(target)
            if expected not in (None, digest):
                raise UsageError(
                    f"image hash mismatch: sha256 {digest[:12]}, expected {str(expected)[:12]}",
                    where=asset.url,
                    todo="if it is right, update bench/catalog/assets.toml; a run accepts any image file",
                )
            part.replace(target)
            if asset.sha256 is None:
                files.write_text(target.with_name(target.name + FIRST_SEEN), f"{digest}\n", replace=True)
    except OSError as error:
        raise UsageError(f"cannot be stored: {error.strerror}", where=target, todo="set BENCH_ASSETS") from error
