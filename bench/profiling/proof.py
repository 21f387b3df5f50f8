"""What a traced request ran in its denoise steps, for the receipts: kernels, operators, transformer blocks."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from bench.fallback.facts import Traced
from bench.profiling import attribution, reader
from bench.profiling.steps import class_of, is_denoiser, outermost
from bench.profiling.trace import KERNEL

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from bench.profiling.attribution import Attribution

BLOCK = re.compile(r"Block$")
"""How every family's transformer calls its layers; a cache's own wrapper around them ends with a number."""


def read(traces: Sequence[Path]) -> Traced:
    """Return what the traces of one request show; of several ranks the first one's.

    Raises:
        UsageError: a file is not there.
        InvalidDocument: it is not a trace.
    """
    return ran(attribution.attribute(reader.read(traces[0])))


def ran(found: Attribution) -> Traced:
    """Return what ran in a trace's denoise steps.

    The profiler's last step may hold what followed the loop, such as decoding: one without the transformer is left out.
    """
    trace = found.trace
    blocks, forwards = _calls(found, _is_block), _calls(found, is_denoiser, outer=True)
    denoising = np.flatnonzero(forwards)
    kernels: Counter[str] = Counter()
    for name in trace.gpu.name[np.isin(found.step, denoising) & (trace.gpu.kind == KERNEL)].tolist():
        kernels[trace.names[name]] += 1
    inside = np.isin(found.steps.step_at(trace.operators.start_us), denoising)
    for signature in trace.operators.signature[inside].tolist():
        kernels[trace.signatures[signature].operator] += 1
    of_steps, passes = (tuple(counts[denoising].tolist()) for counts in (blocks, forwards))
    return Traced(kernels=dict(kernels), blocks=of_steps, forwards=passes)


def _is_block(module: str) -> bool:
    return BLOCK.search(module) is not None


def _calls(found: Attribution, is_meant: Callable[[str], bool], *, outer: bool = False) -> NDArray[np.int64]:
    """Return how often modules of the classes that are meant were called in each step; ``outer``: in no other such."""
    modules, windows = found.trace.modules, found.steps
    meant = np.array([is_meant(class_of(name)) for name in found.trace.names], np.bool_)
    rows = np.flatnonzero(meant[modules.name])
    if outer:
        rows = rows[np.lexsort((-modules.end_us[rows], modules.start_us[rows]))]
        rows = rows[outermost(modules.start_us[rows], modules.end_us[rows])]
    at = windows.step_at(modules.start_us[rows])
    return np.bincount(at[at >= 0], minlength=len(windows))
