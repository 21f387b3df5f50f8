"""Distance between arrays and similarity of pictures, in float64; what cannot be compared gives a reason, not a number.

Formulas, for a subject s and a reference r, all elements flattened:
    relative L2     ||s - r||2 / ||r||2
    cosine          (s . r) / (||s||2 ||r||2)
    largest error   max |s - r|
SSIM is scikit-image's, with the arguments that SGLang's own image tests use (range 255, channels last); PSNR in dB is
10 log10(255^2 / MSE). Over frames, SSIM is averaged and PSNR is taken of the mean squared error; the worst frame is
reported too, because a mean hides a single broken frame.
float32 is not enough here: its cosine of two bit-equal arrays of 200,000 values is 0.99999.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

SSIM_WINDOW = 7
"""Pixels; scikit-image's own default. A smaller image has no SSIM."""

LEVELS = 255
IDENTICAL_DB = float("inf")
SIDES = ("native", "reference")


@dataclass(frozen=True, slots=True, kw_only=True)
class Distance:
    """How far a subject is from a reference. With a ``fault`` every number is None.

    ``worst_at`` is the index of the largest error in the reference's shape; ``equal`` is equality of every bit's value.
    """

    rel_l2: float | None = None
    cosine: float | None = None
    max_abs: float | None = None
    worst_at: tuple[int, ...] | None = None
    equal: bool = False
    fault: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Similarity:
    """The similarity of two stacks of frames (an image is a stack of one): over all frames, and in the worst one.

    PSNR in dB (None: identical) and SSIM (None: smaller than its window); mean and largest error in levels of 255;
    ``worst_frame`` counts from 1. With a ``fault`` every number is None.
    """

    psnr_db: float | None = None
    ssim: float | None = None
    worst_psnr_db: float | None = None
    worst_ssim: float | None = None
    worst_frame: int | None = None
    frames: int | None = None
    mean_levels: float | None = None
    max_levels: int | None = None
    identical: bool = False
    fault: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frame:
    """One frame against another; ``mse`` in squared levels."""

    mse: float
    ssim: float | None
    mean_levels: float
    max_levels: int


def _not_finite(values: NDArray[Any], whose: str) -> str | None:
    if values.dtype.kind != "f":
        return None
    finite = np.isfinite(values)
    if finite.all():
        return None
    nan, infinite = int(np.isnan(values).sum()), int(np.isinf(values).sum())
    first = tuple(int(i) for i in np.argwhere(~finite)[0])
    kinds = " and ".join(f"{count} {name}" for count, name in ((nan, "NaN"), (infinite, "Inf")) if count)
    return f"{kinds} in the {whose} output ({values.size} values), the first at {list(first)}"


def _same_form(subject: NDArray[Any], reference: NDArray[Any]) -> str | None:
    """Return how two shapes differ; dimensions of 1 do not count: one side may have an extra batch or frame axis."""
    wide = [tuple(side for side in array.shape if side != 1) for array in (subject, reference)]
    if wide[0] != wide[1]:
        return f"shapes differ: native {list(subject.shape)}, reference {list(reference.shape)}"
    return None


def distance(subject: NDArray[Any], reference: NDArray[Any]) -> Distance:
    """Return the distance of two arrays; different shapes, NaN, Inf, no values and only zeros are faults."""
    fault = (
        _same_form(subject, reference)
        or ("no values" if reference.size == 0 else None)
        or _not_finite(subject, "native")
        or _not_finite(reference, "reference")
    )
    if fault is not None:
        return Distance(fault=fault)
    s, r = (array.astype(np.float64).reshape(reference.shape) for array in (subject, reference))
    error = np.abs(s - r)
    worst = int(error.argmax())
    max_abs = float(error.ravel()[worst])
    norm_s, norm_r = _norm(s), _norm(r)
    if norm_r == 0:
        return Distance(fault="every value of the reference is zero")
    scaled = (s.ravel() / norm_s) if norm_s else s.ravel()
    cosine = float(np.clip(scaled @ (r.ravel() / norm_r), -1, 1))
    rel_l2 = _norm(error) / norm_r
    if not math.isfinite(rel_l2):
        return Distance(fault="the relative L2 overflows float64")
    return Distance(
        rel_l2=rel_l2,
        cosine=1.0 if max_abs == 0 else cosine,
        max_abs=max_abs,
        worst_at=tuple(int(i) for i in np.unravel_index(worst, reference.shape)),
        equal=max_abs == 0,
    )


def _norm(values: NDArray[np.float64]) -> float:
    """Return the Euclidean norm, scaled first so that large values do not overflow and small ones do not vanish."""
    largest = float(np.abs(values).max())
    return largest * float(np.linalg.norm((values / largest).ravel())) if largest else 0.0


def compare(subject: NDArray[np.uint8], reference: NDArray[np.uint8]) -> Similarity:
    """Return the similarity of two stacks of 8-bit pictures [frames, height, width, channels]."""
    if subject.shape != reference.shape:
        return Similarity(fault=f"sizes differ: native {list(subject.shape)}, reference {list(reference.shape)}")
    if subject.dtype != np.uint8 or reference.dtype != np.uint8 or subject.ndim != 4 or not subject.size:  # noqa: PLR2004
        return Similarity(fault=f"not 8-bit pictures: {subject.dtype} {list(subject.shape)}")
    return compare_frames(subject, reference)


def compare_frames(
    subject: Iterable[NDArray[np.uint8]], reference: Iterable[NDArray[np.uint8]], names: tuple[str, str] = SIDES
) -> Similarity:
    """Return the similarity of two series of frames [height, width, 3]; only two frames are in memory at a time.

    Differing frame counts or sizes, and no frames at all, are faults; ``names`` are the two sides in their words.
    """
    found: list[_Frame] = []
    pairs = itertools.zip_longest(subject, reference)
    for s, r in pairs:
        if s is None or r is None:
            more = len(found) + 1 + sum(1 for _ in pairs)
            counts = (len(found), more) if s is None else (more, len(found))
            return Similarity(fault=f"frames differ: {names[0]} has {counts[0]}, {names[1]} has {counts[1]}")
        if s.shape != r.shape:
            return Similarity(
                fault=f"sizes differ: {names[0]} {s.shape[1]}x{s.shape[0]}, {names[1]} {r.shape[1]}x{r.shape[0]}"
            )
        found.append(_frame(s, r))
    return _gathered(found) if found else Similarity(fault="no frames")


def _gathered(found: list[_Frame]) -> Similarity:
    scores = [frame.ssim for frame in found if frame.ssim is not None]
    worst = max(range(len(found)), key=lambda index: found[index].mse)
    return Similarity(
        psnr_db=_psnr_db(math.fsum(frame.mse for frame in found) / len(found)),
        ssim=math.fsum(scores) / len(scores) if scores else None,
        worst_psnr_db=_psnr_db(found[worst].mse),
        worst_ssim=min(scores, default=None),
        worst_frame=worst + 1,
        frames=len(found),
        mean_levels=math.fsum(frame.mean_levels for frame in found) / len(found),
        max_levels=max(frame.max_levels for frame in found),
        identical=all(frame.max_levels == 0 for frame in found),
    )


def _psnr_db(mse: float) -> float | None:
    return 10 * math.log10(LEVELS**2 / mse) if mse else None


def _frame(subject: NDArray[np.uint8], reference: NDArray[np.uint8]) -> _Frame:
    error = np.abs(subject.astype(np.int32) - reference.astype(np.int32))
    return _Frame(
        mse=float(np.square(error).mean()),
        ssim=_ssim(subject, reference, identical=not error.any()),
        mean_levels=float(error.mean()),
        max_levels=int(error.max()),
    )


def _ssim(subject: NDArray[np.uint8], reference: NDArray[np.uint8], *, identical: bool) -> float | None:
    if min(subject.shape[:2]) < SSIM_WINDOW:
        return None
    if identical:
        return 1.0  # by definition, and it saves a second per frame
    from skimage import metrics as skimage  # noqa: PLC0415 - half a second

    scores: Any = skimage  # it has no types
    return float(scores.structural_similarity(reference, subject, channel_axis=2, data_range=LEVELS))
