"""Output files side by side: images and videos, by their decoded frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bench import decode
from bench.quality import metrics

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from bench.quality.metrics import Likeness


def read(path: Path) -> NDArray[np.uint8]:
    """Return the pictures in an output file, uint8 [frames, height, width, 3]: decoded, as RGB, all in memory.

    Raises:
        Undecodable: it cannot be read, or holds no pictures.
    """
    return np.stack(list(decode.frames(path)))


def compare(subject: Path, reference: Path, names: tuple[str, str] = metrics.SIDES) -> Likeness:
    """Return how like two output files are, frame by frame; one that does not decode is a fault of the comparison.

    ``names`` are the two sides in the words of a fault.
    """
    if decode.is_video(subject) != decode.is_video(reference):
        return metrics.Likeness(fault=f"one is a video, the other is not: {subject.name}, {reference.name}")
    try:
        return metrics.likeness_of_frames(decode.frames(subject), decode.frames(reference), names)
    except decode.Undecodable as error:
        return metrics.Likeness(fault=str(error))
