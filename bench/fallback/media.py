"""Output files as pixels: the one place that decodes images (Pillow) and videos (PyAV, which is FFmpeg's libraries)."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path, PurePath

    import numpy as np
    from numpy.typing import NDArray

IMAGES = frozenset({".png", ".jpg", ".jpeg", ".webp"})
VIDEOS = frozenset({".mp4", ".mov", ".webm", ".gif"})
OTHERS = frozenset({".wav", ".flac", ".glb", ".obj"})
"""Outputs without pixels: they are hashed, and nothing of them is compared."""


LARGEST_PIXELS = 1 << 28
"""Of one frame: 16,384 x 16,384. A file of a few kilobytes can claim any size."""
MOST_PIXELS = 1 << 35
"""Of all frames: 4.6 hours of 512 x 512 at 8 a second, minutes of decoding."""
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP")
VIDEO_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,gif"
"""What a file is decoded as, whatever its name: some formats of either library run programs or open other files."""


class Undecodable(Exception):
    """A file that holds no pixels that can be read, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What is in a file: sizes in pixels, frames (1 for an image), the hash over all RGB pixels in order.

    ``format`` is the image's format or the video's codec; ``one_colour``: no frame has two colours.
    """

    format: str | None
    width: int
    height: int
    frames: int
    pixels_sha256: str
    one_colour: bool


def is_video(path: PurePath) -> bool:
    """Tell by its name whether a file holds frames that move."""
    return path.suffix.lower() in VIDEOS


def has_pixels(path: PurePath) -> bool:
    """Tell by its name whether a file can be decoded here."""
    return path.suffix.lower() in IMAGES | VIDEOS


def look(path: Path) -> Seen:
    """Return what is in an image or a video; every frame of it is decoded.

    Raises:
        Undecodable: it cannot be read, or has no frame.
    """
    return _seen(_decoded(path))


def look_at(data: bytes, *, is_video: bool) -> Seen:
    """Return what is in an image or a video that never was a file.

    Raises:
        Undecodable: as `look`.
    """
    return _seen(_held(data, is_video=is_video))


def pictures(data: bytes, *, is_video: bool) -> NDArray[np.uint8]:
    """Return the frames of an image (one) or a video that never was a file, uint8 [frame, height, width, 3] as RGB.

    Raises:
        Undecodable: as `look`.
    """
    import numpy as np  # noqa: PLC0415 - only a finished run needs them

    return np.stack([frame for _, frame in _held(data, is_video=is_video)])


def _held(data: bytes, *, is_video: bool) -> Iterator[tuple[str | None, NDArray[np.uint8]]]:
    return _video(io.BytesIO(data)) if is_video else _image(io.BytesIO(data))


def _seen(decoded: Iterator[tuple[str | None, NDArray[np.uint8]]]) -> Seen:
    import numpy as np  # noqa: PLC0415 - only a finished run needs them

    digest, frames, size, one_colour, kind = hashlib.sha256(), 0, (0, 0), True, None
    for kind, frame in decoded:  # noqa: B007 - the last one is used below
        digest.update(np.ascontiguousarray(frame).data)
        size = (frame.shape[1], frame.shape[0])
        one_colour = one_colour and all(bool((row == frame[0, 0]).all()) for row in frame)
        frames += 1
    return Seen(
        format=kind, width=size[0], height=size[1], frames=frames, pixels_sha256=digest.hexdigest(),
        one_colour=one_colour,
    )  # fmt: skip


def frames(path: Path) -> Iterator[NDArray[np.uint8]]:
    """Yield the frames of a file one by one, uint8 [height, width, 3] as RGB; an image has one.

    Raises:
        Undecodable: as `look`.
    """
    for _, frame in _decoded(path):
        yield frame


def _decoded(path: Path) -> Iterator[tuple[str | None, NDArray[np.uint8]]]:
    """Yield format and pixels of each frame."""
    if not has_pixels(path):
        raise Undecodable(f"no pixels to compare in a {path.suffix or 'file without suffix'}")
    if not path.is_file():
        raise Undecodable("not a regular file")
    yield from _video(str(path)) if is_video(path) else _image(path)


def _refuse_large(width: int, height: int) -> None:
    if width * height > LARGEST_PIXELS:
        raise Undecodable(f"{width}x{height}: more than {LARGEST_PIXELS >> 20} megapixels")


def _image(path: Path | IO[bytes]) -> Iterator[tuple[str | None, NDArray[np.uint8]]]:
    import numpy as np  # noqa: PLC0415 - only a finished run needs them
    from PIL import Image  # noqa: PLC0415

    try:
        Image.MAX_IMAGE_PIXELS = None  # ours is the limit that counts
        with Image.open(path, formats=IMAGE_FORMATS) as image:
            _refuse_large(*image.size)
            yield image.format, np.asarray(image if image.mode == "RGB" else image.convert("RGB"), dtype=np.uint8)
    except (OSError, SyntaxError, ValueError) as error:
        raise Undecodable(str(error)) from error
    except MemoryError as error:  # a length in a broken file may claim any number of bytes
        raise Undecodable("it takes more memory than there is") from error


def _video(place: str | IO[bytes]) -> Iterator[tuple[str | None, NDArray[np.uint8]]]:
    import av  # noqa: PLC0415 - 50 MB of libraries that only videos need

    pixels = 0
    try:
        with av.open(place, "r", options={"format_whitelist": VIDEO_FORMATS}) as container:
            if not container.streams.video:
                raise Undecodable("it has no video stream")
            stream: Any = container.streams.video[0]
            stream.thread_type = "AUTO"
            _refuse_large(stream.codec_context.width, stream.codec_context.height)
            for frame in container.decode(stream):
                _refuse_large(frame.width, frame.height)
                pixels += frame.width * frame.height
                if pixels > MOST_PIXELS:
                    raise Undecodable(f"more than {MOST_PIXELS >> 30} gigapixels in its frames")
                yield stream.codec_context.name, frame.to_ndarray(format="rgb24")
    except (av.FFmpegError, OSError, ValueError) as error:
        raise Undecodable(str(error)) from error
    except MemoryError as error:
        raise Undecodable("it takes more memory than there is") from error
    if pixels == 0:
        raise Undecodable("it has no frame")
