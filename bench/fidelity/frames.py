"""Output files side by side: images and videos, by their decoded frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bench.fallback import media
from bench.fidelity import similarity

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from bench.fidelity.similarity import Similarity


def read(path: Path) -> NDArray[np.uint8]:
    """Return the pictures in an output file, uint8 [frames, height, width, 3]: decoded, as RGB, all in memory.

    Raises:
        Undecodable: it cannot be read, or holds no pictures.
    """
    return np.stack(list(media.frames(path)))


def compare(subject: Path, reference: Path, names: tuple[str, str] = similarity.SIDES) -> Similarity:
    """Return the similarity of two output files, frame by frame; a file that does not decode is a fault.

    ``names`` are the two sides in their words.
    """
    if media.is_video(subject) != media.is_video(reference):
        return similarity.Similarity(fault=f"one is a video, the other is not: {subject.name}, {reference.name}")
    try:
        return similarity.compare_frames(media.frames(subject), media.frames(reference), names)
    except media.Undecodable as error:
        return similarity.Similarity(fault=str(error))
