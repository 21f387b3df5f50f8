"""What a sample may be: every number that enters the statistics passes here once.

A duration is finite and above zero. A missing one is an error, never a zero: upstream's comparer read a missing total
as -100 %.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from bench.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    FloatArray = npt.NDArray[np.float64]
    Samples = Sequence[float] | FloatArray


def checked(samples: Samples, what: str) -> FloatArray:
    """Return the samples as a new array of shape (n,), n >= 1, in the order in which they were taken.

    ``what`` names them in the message: "baseline", "denoise time".

    Raises:
        UsageError: the list is empty, or a sample is missing, not a number, infinite, zero or negative.
    """
    values = [math.nan if sample is None else sample for sample in samples]
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as failure:
        raise UsageError(f"{what}: the samples are not all numbers ({failure})") from failure
    if array.ndim != 1:
        raise UsageError(f"{what}: a flat list of samples is needed, not one of shape {array.shape}")
    if array.size == 0:
        raise UsageError(f"{what}: no samples", todo="measure it first; what is missing is not zero")
    bad = np.flatnonzero(~(np.isfinite(array) & (array > 0)))
    if bad.size:
        first = int(bad[0])
        value = "missing or not a number" if math.isnan(array[first]) else f"{array[first]:g}"
        raise UsageError(
            f"{what}: sample {first + 1} of {array.size} is {value}; a duration is finite and above zero",
            todo="leave out the run that it came from, or measure it again",
        )
    return array
