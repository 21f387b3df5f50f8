"""Output files as arrays, and two of them side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bench.quality import metrics

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from bench.quality.metrics import Likeness


def read(path: Path) -> NDArray[np.uint8]:
    """Return the pictures in an output file, uint8 [frames, height, width, 3]: decoded, as RGB.

    Raises:
        OSError: it cannot be read or is no picture.
    """
    from PIL import Image  # noqa: PLC0415 - half of the verbs never open one

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), dtype=np.uint8)[np.newaxis]


def compare(subject: Path, reference: Path) -> Likeness:
    """Return how like two output files are; one that does not decode is a fault of the comparison."""
    try:
        return metrics.likeness(read(subject), read(reference))
    except (OSError, SyntaxError, ValueError) as error:
        return metrics.Likeness(fault=str(error))
