"""Fetch an input image: resumed where it was cut, checked by hash, whole or not at all."""

from __future__ import annotations

import shutil
import urllib.error
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING

from filelock import FileLock

from bench import paths
from bench.errors import PreflightFailed, UsageError
from bench.models import images

if TYPE_CHECKING:
    from collections.abc import Callable
    from http.client import HTTPResponse
    from pathlib import Path

    from bench.catalog.assets import Asset

TIMEOUT_S = 30
BLOCK_BYTES = 1 << 16
PARTIAL, WHOLE, RANGE_REFUSED = 206, 200, 416


def fetch(
    asset: Asset, *, mirror: str | None, again: bool, progress: Callable[[int, int | None], None]
) -> tuple[Path, bool]:
    """Return where an image is now, and whether it was fetched just now.

    ``mirror`` is an address that has it under its name, for a site without a way out.

    Raises:
        PreflightFailed: the network or the server does not give it; what has come is kept and resumed the next time.
        UsageError: what came is no image or another one, or it cannot be stored.
    """
    target = paths.assets() / asset.name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f".{asset.name}.lock")):
            if not again and target.is_file():
                images.check(target)
                return target, False
            part = target.with_name(f".{asset.name}.part")
            url = asset.url if mirror is None else f"{mirror.rstrip('/')}/{asset.name}"
            _download(url, part, progress)
            _accept(part, target, asset, again=again)
    except OSError as error:
        raise UsageError(f"cannot be stored: {error.strerror}", where=target, todo="set BENCH_ASSETS") from error
    return target, True


def own(asset: Asset, file: Path) -> Path:
    """Take a user's own file as one of our images and return where it is now.

    Raises:
        UsageError: it is no image, or not the one whose hash the catalogue has.
    """
    images.check(file)
    target = paths.assets() / asset.name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{asset.name}.own")
        shutil.copyfile(file, part)
        _accept(part, target, asset, again=True)
    except OSError as error:
        raise UsageError(f"cannot be stored: {error.strerror}", where=target, todo="set BENCH_ASSETS") from error
    return target


def _download(url: str, part: Path, progress: Callable[[int, int | None], None]) -> None:
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise UsageError("not an address of the web", where=url)
    mark = part.with_name(f"{part.name}.etag")  # a file that changed on the server must not be glued to an old half
    have = part.stat().st_size if part.is_file() and mark.is_file() else 0
    headers = {"User-Agent": "sglang-diffusion-workbench"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": mark.read_text(encoding="utf-8")}
    try:
        request = urllib.request.Request(url, headers=headers)  # noqa: S310 - its scheme was looked at above
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310 - likewise
            _receive(answer, part, mark, have if answer.status == PARTIAL else 0, progress)
    except urllib.error.HTTPError as error:
        if error.code == RANGE_REFUSED and have:
            part.unlink()
            _download(url, part, progress)
            return
        raise PreflightFailed(f"the server refuses: {error.code} {error.reason}", where=url) from error
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        raise PreflightFailed(f"the network does not give it: {reason}", where=url) from error


def _receive(
    answer: HTTPResponse, part: Path, mark: Path, have: int, progress: Callable[[int, int | None], None]
) -> None:
    length = answer.headers.get("Content-Length")
    total = None if length is None else have + int(length)
    tag = answer.headers.get("ETag")
    mark.unlink(missing_ok=True)
    with part.open("ab" if have else "wb") as file:
        if tag is not None:
            mark.write_text(tag, encoding="utf-8")
        while block := answer.read(BLOCK_BYTES):
            file.write(block)
            have += len(block)
            progress(have, total)
    if total is not None and have != total:
        raise PreflightFailed(f"cut short: {have} of {total} bytes", where=answer.url, todo="the next call resumes it")
    mark.unlink(missing_ok=True)


def _accept(part: Path, target: Path, asset: Asset, *, again: bool) -> None:
    """Move a file to its place if it is an image, and the right one as far as that is known."""
    found = images.sha256(part)
    expected = asset.sha256 if again else asset.sha256 or images.expected_sha256(target)
    if expected is not None and found != expected:
        part.unlink()
        raise UsageError(
            f"another image than the one that is meant: sha256 {found[:12]}, not {expected[:12]}",
            where=asset.url,
            todo="if it is right, write its hash into bench/catalog/assets.toml; `bench --image` uses any file",
        )
    try:
        images.check(part)
    except UsageError:
        part.unlink()
        raise
    part.replace(target)
    if asset.sha256 is None:
        target.with_name(target.name + images.FIRST_SEEN).write_text(f"{found}\n", encoding="utf-8")
