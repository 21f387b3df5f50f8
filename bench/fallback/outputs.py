"""The outputs as a witness: they exist, decode, have the size that was asked for, and show something."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.fallback import finding as f
from bench.fallback.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from bench.fallback.expectation import Expectation

IMAGES = frozenset({".png", ".jpg", ".jpeg", ".webp"})
OTHERS = frozenset({".mp4", ".mov", ".webm", ".gif", ".wav", ".flac", ".glb", ".obj"})
HASH_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One file that the run made; sizes in pixels and bytes. ``pixels_sha256`` is over decoded RGB, None if unread."""

    file: str
    sha256: str
    size_bytes: int
    format: str | None
    width: int | None
    height: int | None
    pixels_sha256: str | None
    one_colour: bool | None
    fault: str | None


def read(folder: Path) -> list[Output]:
    """Return the outputs in ``folder``, by name; images are decoded, other formats hashed only."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGES | OTHERS and path.is_file())
    return [_read(path, str(path.relative_to(folder.parent))) for path in found]


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _read(path: Path, name: str) -> Output:
    image_format = width = height = pixels = one_colour = fault = None
    if path.suffix.lower() in IMAGES:
        from PIL import Image  # noqa: PLC0415 - only a finished run needs it

        try:
            with Image.open(path) as image:
                image_format, (width, height) = image.format, image.size
                colours = image.convert("RGB")
            pixels = hashlib.sha256(colours.tobytes()).hexdigest()
            one_colour = len(colours.getcolors(maxcolors=1) or ()) == 1
        except (OSError, SyntaxError, ValueError) as error:
            fault = str(error)
    return Output(
        file=name,
        sha256=_sha256(path),
        size_bytes=path.stat().st_size,
        format=image_format,
        width=width,
        height=height,
        pixels_sha256=pixels,
        one_colour=one_colour,
        fault=fault,
    )


def check(outputs: Sequence[Output], expectation: Expectation) -> list[Finding]:
    """Return what the outputs say against the run."""
    return list(_check(outputs, expectation))


def _finding(identity: str, text: str, means: str, todo: str, exit_code: int) -> Finding:
    return Finding(
        id=f"output.{identity}",
        category="shape",
        severity=f.INVALID,
        source="output",
        text=text,
        means=means,
        todo=todo,
        exit_code=exit_code,
    )


def _check(outputs: Sequence[Output], expectation: Expectation) -> Iterator[Finding]:
    if not outputs:
        yield _finding(
            "none",
            "no output file",
            "the run made nothing, so its time is of nothing",
            "read the log's last lines; some versions exit 0 when saving fails",
            f.ENGINE_FAILED,
        )
    for output in outputs:
        if output.fault is not None:
            yield _finding(
                "broken",
                f"{output.file}: {output.fault}",
                "the output does not decode",
                "look at the disk's free space and at the log's last lines",
                f.ENGINE_FAILED,
            )
        if output.one_colour:
            yield _finding(
                "one_colour",
                output.file,
                "every pixel has the same colour: the model computed NaN, or nothing",
                "check the weights and the precision",
                f.FALLBACK,
            )
        wanted = (expectation.width, expectation.height)
        if output.width is not None and None not in wanted and (output.width, output.height) != wanted:
            yield _finding(
                "size",
                f"{output.file}: {output.width}x{output.height}, asked for {wanted[0]}x{wanted[1]}",
                "another size was generated, so another amount of work was timed",
                "ask for a size that the model supports",
                f.FALLBACK,
            )
