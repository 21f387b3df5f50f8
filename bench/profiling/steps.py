"""Which stretch of CPU time belongs to which denoise step.

The engine's step profiler writes one ``ProfilerStep#k`` annotation for each recorded step; their number is the number
of steps, whatever the file is called (the engine's schedule records one more than was asked for). An all-stages trace
has none: there a step is one forward of the denoiser, up to the next.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bench.profiling.trace import Trace

ANNOTATION = re.compile(r"^ProfilerStep\s*#(\d+)$")
DENOISER = re.compile(r"Transformer|DiT|UNet|Unet|Denois")
NO_DENOISER = re.compile(r"Text|Encoder|Decoder|VAE|Vae|Autoencoder|CLIP|T5|Vision|Block|Upsampl")
INSTANCE = re.compile(r"_(\d+)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """The windows, in time order: ``start_us`` and ``end_us`` of each on the CPU; ``found_by`` says how."""

    found_by: str
    labels: tuple[str, ...]
    start_us: NDArray[np.float64]
    end_us: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int) -> Steps:
        """Return the first ``count`` steps."""
        return Steps(
            found_by=self.found_by,
            labels=self.labels[:count],
            start_us=self.start_us[:count],
            end_us=self.end_us[:count],
        )

    def step_at(self, time_us: NDArray[np.float64]) -> NDArray[np.int32]:
        """Return the step of each time on the CPU; -1 where no step was running, and for NaN."""
        if not len(self):
            return np.full(len(time_us), -1, np.int32)
        index = np.searchsorted(self.start_us, time_us, side="right") - 1
        inside = (index >= 0) & (time_us <= self.end_us[np.clip(index, 0, None)])
        return np.where(inside, index, -1).astype(np.int32)


def class_of(module: str) -> str:
    """Return the class name of a module frame: ``FluxTransformerBlock_17`` -> ``FluxTransformerBlock``."""
    return INSTANCE.sub("", module)


def is_denoiser(module: str) -> bool:
    """Tell whether a class of modules is the transformer that denoises, whose forward is a step's."""
    return DENOISER.search(module) is not None and NO_DENOISER.search(module) is None


def outermost(start_us: NDArray[np.float64], end_us: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which spans lie in no other; the spans are sorted by start, then by end downwards, and nest."""
    covered = np.maximum.accumulate(end_us)
    found: NDArray[np.bool_] = np.ones(len(start_us), np.bool_)
    found[1:] = start_us[1:] >= covered[:-1]
    return found


def find(trace: Trace) -> Steps:
    """Return the denoise steps of a trace; none when nothing in it tells them apart."""
    return _annotated(trace) or _forwards(trace) or _none()


def _none() -> Steps:
    return Steps(found_by="nothing", labels=(), start_us=np.empty(0), end_us=np.empty(0))


def _annotated(trace: Trace) -> Steps | None:
    frames = trace.annotations
    numbers = {
        index: int(match[1]) for index, name in enumerate(trace.names) if (match := ANNOTATION.match(name)) is not None
    }
    rows = np.flatnonzero(np.isin(frames.name, list(numbers)))
    rows = rows[np.argsort(frames.start_us[rows], kind="stable")]
    # one annotation of a step may be there twice when several threads are profiled: the first one stands
    _, first = np.unique(frames.name[rows], return_index=True)
    rows = rows[np.sort(first)]
    if not len(rows):
        return None
    return Steps(
        found_by="ProfilerStep",
        labels=tuple(str(numbers[int(name)]) for name in frames.name[rows]),
        start_us=frames.start_us[rows],
        end_us=frames.end_us[rows],
    )


def _forwards(trace: Trace) -> Steps | None:
    """One step for each forward of the denoiser: the outermost module of a transformer's name with most forwards."""
    frames = trace.modules
    best: NDArray[np.intp] | None = None
    for thread in np.unique(frames.thread):
        rows = np.flatnonzero(frames.thread == thread)
        rows = rows[np.lexsort((-frames.end_us[rows], frames.start_us[rows]))]
        rows = rows[outermost(frames.start_us[rows], frames.end_us[rows])]
        for name in np.unique(frames.name[rows]):
            module = class_of(trace.names[name])
            mine = rows[frames.name[rows] == name]
            if is_denoiser(module) and (best is None or len(mine) > len(best)):
                best = mine
    if best is None:
        return None
    start, end = frames.start_us[best], frames.end_us[best].copy()
    # the scheduler's own work follows the forward, and belongs to its step
    end[:-1] = np.nextafter(start[1:], -np.inf)
    labels = tuple(str(number) for number in range(1, len(best) + 1))
    return Steps(found_by="module forwards", labels=labels, start_us=start, end_us=end)
