"""The outputs as a witness: they exist, decode, have the size that was asked for, and show something."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from bench import paths
from bench.fallback import finding as f
from bench.fallback import media
from bench.fallback.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from bench.fallback.expectation import Expectation

MACRO_BLOCK_PIXELS = 16
"""The engine's encoder rounds the sides of a video up to a multiple of it (entrypoints/utils.py of 0.5.23)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One file that the run made; sizes in pixels and bytes. ``pixels_sha256`` is over decoded RGB, None if unread.

    ``frames`` is 1 for an image. ``sha256`` and ``size_bytes`` are None for a file that cannot be read or has vanished.
    """

    file: str
    sha256: str | None
    size_bytes: int | None
    format: str | None
    width: int | None
    height: int | None
    frames: int | None
    pixels_sha256: str | None
    one_colour: bool | None
    fault: str | None


def read(folder: Path) -> list[Output]:
    """Return the outputs in ``folder``, by name; images and videos are decoded, other formats hashed only."""
    suffixes = media.IMAGES | media.VIDEOS | media.OTHERS
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in suffixes and path.is_file())
    return [_read(path, str(path.relative_to(folder.parent))) for path in found]


def _read(path: Path, name: str) -> Output:
    seen: dict[str, Any] = {field.name: None for field in fields(media.Seen)}
    fault = digest = size_bytes = None
    if media.has_pixels(path):
        try:
            seen = asdict(media.look(path))
        except media.Undecodable as error:
            fault = str(error)
    try:
        digest, size_bytes = paths.sha256(path), path.stat().st_size
    except OSError as error:
        fault = f"it cannot be read: {error.strerror}"
    return Output(file=name, sha256=digest, size_bytes=size_bytes, fault=fault, **seen)


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


def check(outputs: Sequence[Output], expectation: Expectation) -> Iterator[Finding]:
    """Yield what the outputs say against the run."""
    if not outputs:
        yield _finding(
            "none",
            "no output file",
            "no output was produced, so there is nothing to time",
            "read the log's last lines; some versions exit 0 when saving fails",
            f.ENGINE_FAILED,
        )
    for output in outputs:
        if output.fault is not None:
            yield _finding(
                "broken",
                f"{output.file}: {output.fault}",
                "the output does not decode",
                "check the free disk space and the log's last lines",
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
        if output.width is not None and None not in wanted and not _is_size(output, wanted):
            yield _finding(
                "size",
                f"{output.file}: {output.width}x{output.height}, asked for {wanted[0]}x{wanted[1]}",
                "a different size was generated, so a different amount of work was timed",
                "ask for a size that the model supports",
                f.FALLBACK,
            )
        if None not in (output.frames, expectation.frames) and output.frames != expectation.frames:
            yield Finding(
                id="output.frames",
                category="shape",
                severity=f.DEGRADED,
                source="output",
                text=f"{output.file}: {output.frames} frames, asked for {expectation.frames}",
                means="the file does not hold the requested number of frames",
                todo="look for frame interpolation, or ask for a number of frames that the model makes",
            )


def _is_size(output: Output, wanted: tuple[int | None, int | None]) -> bool:
    """Tell whether an output has the size that was asked for; a video's sides may be rounded up."""
    delivered = (output.width, output.height)
    if delivered == wanted or not media.is_video(PurePath(output.file)):
        return delivered == wanted
    return delivered == tuple(side and -(-side // MACRO_BLOCK_PIXELS) * MACRO_BLOCK_PIXELS for side in wanted)
