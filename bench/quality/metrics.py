"""How far one array is from another, in float64; what cannot be compared is a fault with its reason, never a number.

Formulas, for a subject s and a reference r, all elements flattened:
    relative L2     ||s - r||2 / ||r||2
    cosine          (s . r) / (||s||2 ||r||2)
    largest error   max |s - r|
Images (PSNR in dB, SSIM) are scikit-image's, with the arguments that SGLang's own image tests use (range 255, channels
last). float32 is not enough here: its cosine of two bit-equal arrays of 200,000 values is 0.99999.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SSIM_WINDOW = 7
"""Pixels; scikit-image's own default. A smaller image has no SSIM."""

LEVELS = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Distance:
    """How far a subject is from a reference. With a ``fault`` there are no numbers, and the two do not agree.

    ``worst_at`` is the index of the largest error in the reference's shape; ``equal`` is equality of every bit's value.
    """

    rel_l2: float | None = None
    cosine: float | None = None
    max_abs: float | None = None
    worst_at: tuple[int, ...] | None = None
    equal: bool = False
    fault: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Likeness:
    """How like two pictures are: PSNR in dB (None: they are identical), SSIM, mean and largest error in levels of 255.

    For frames each number is that of the worst frame. With a ``fault`` there are no numbers.
    """

    psnr_db: float | None = None
    ssim: float | None = None
    mean_levels: float | None = None
    max_levels: int | None = None
    identical: bool = False
    fault: str | None = None


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
    """Return what is wrong with two shapes; dimensions of 1 may differ: one side has a batch or frame axis more."""
    wide = [tuple(side for side in array.shape if side != 1) for array in (subject, reference)]
    if wide[0] != wide[1]:
        return f"shapes differ: native {list(subject.shape)}, reference {list(reference.shape)}"
    return None


def distance(subject: NDArray[Any], reference: NDArray[Any]) -> Distance:
    """Return how far ``subject`` is from ``reference``; other shapes, NaN, Inf, no values or only zeros are faults."""
    fault = (
        _same_form(subject, reference)
        or ("there are no values" if reference.size == 0 else None)
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
        return Distance(fault="every value of the reference is zero: nothing can be compared with it")
    scaled = (s.ravel() / norm_s) if norm_s else s.ravel()
    cosine = float(np.clip(scaled @ (r.ravel() / norm_r), -1, 1))
    rel_l2 = _norm(error) / norm_r
    if not math.isfinite(rel_l2):
        return Distance(fault="the values are too far apart for a float64")
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


def likeness(subject: NDArray[np.uint8], reference: NDArray[np.uint8]) -> Likeness:
    """Return how like two stacks of pictures [frames, height, width, channels] of eight bits are."""
    if subject.shape != reference.shape:
        return Likeness(fault=f"sizes differ: native {list(subject.shape)}, reference {list(reference.shape)}")
    if subject.dtype != np.uint8 or reference.dtype != np.uint8 or subject.ndim != 4 or not subject.size:  # noqa: PLR2004
        return Likeness(fault=f"not pictures of eight bits: {subject.dtype} {list(subject.shape)}")
    frames = [_frame(s, r) for s, r in zip(subject, reference, strict=True)]
    ratios = [frame.psnr_db for frame in frames if frame.psnr_db is not None]
    likenesses = [frame.ssim for frame in frames if frame.ssim is not None]
    return Likeness(
        psnr_db=min(ratios, default=None),
        ssim=min(likenesses, default=None),
        mean_levels=max(frame.mean_levels or 0.0 for frame in frames),
        max_levels=max(frame.max_levels or 0 for frame in frames),
        identical=all(frame.identical for frame in frames),
    )


def _frame(subject: NDArray[np.uint8], reference: NDArray[np.uint8]) -> Likeness:
    from skimage import metrics as skimage  # noqa: PLC0415 - half a second

    scores: Any = skimage  # it has no types

    error = np.abs(subject.astype(np.int16) - reference.astype(np.int16))
    identical = not error.any()
    small = min(subject.shape[:2]) < SSIM_WINDOW
    return Likeness(
        psnr_db=None if identical else float(scores.peak_signal_noise_ratio(reference, subject, data_range=LEVELS)),
        ssim=None
        if small
        else float(scores.structural_similarity(reference, subject, channel_axis=2, data_range=LEVELS)),
        mean_levels=float(error.mean()),
        max_levels=int(error.max()),
        identical=identical,
    )
