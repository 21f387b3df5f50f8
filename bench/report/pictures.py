"""Pictures of outputs for a page: small enough to embed, and the map of where two of them differ."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from bench import paths
from bench.report.page import Picture

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

LARGEST_SIDE = 384
DIFFERENCE_TIMES = 32
"""By how much a difference is magnified: one level of 255 is invisible."""


def output(record: Mapping[str, Any], directory: Path) -> NDArray[np.uint8] | None:
    """Return the first picture that a run made; None if it made none, or the file is gone, changed, or a video."""
    import numpy as np  # noqa: PLC0415 - only a page with pictures need pay
    from PIL import Image  # noqa: PLC0415 - see above

    made = [output for request in record["requests"] for output in request["outputs"]][:1]
    if not made or (made[0]["frames"] or 1) > 1:
        return None
    path = directory / made[0]["file"]
    if not path.is_file() or paths.sha256(path) != made[0]["sha256"]:
        return None
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except OSError:
        return None


def side_by_side(named: Mapping[str, NDArray[np.uint8]]) -> tuple[Picture, ...]:
    """Return pictures by name and, of two of one shape, the magnified map of their differences."""
    import numpy as np  # noqa: PLC0415 - see output

    shown = dict(named)
    if len(named) > 1:
        one, other = named.values()
        if one.shape == other.shape:
            error = np.abs(one.astype(np.int16) - other.astype(np.int16))
            title = f"difference, {DIFFERENCE_TIMES} times" if error.any() else "difference: every pixel equal"
            shown[title] = np.clip(error * DIFFERENCE_TIMES, 0, 255).astype(np.uint8)
    return tuple(Picture(title=title, png=_png(picture)) for title, picture in shown.items())


def _png(picture: NDArray[np.uint8]) -> bytes:
    from PIL import Image  # noqa: PLC0415 - see output

    image = Image.fromarray(picture.squeeze())
    image.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=True)
    return file.getvalue()
