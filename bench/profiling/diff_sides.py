"""The two sides of a diff, and what is found between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """One operator on one shape in one kind of module, on both sides. Times in milliseconds of a mean step."""

    module: str
    category: str
    operator: str
    shape: str
    state: str
    a_per_step: float
    b_per_step: float
    a_ms: float
    b_ms: float
    delta_ms: float
    work_ms: float
    speed_ms: float
    within_spread: bool
    a_kernels: tuple[str, ...]
    b_kernels: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepChange:
    """One step against the mean step of A, over the rows of equal count: how much slower, and how broadly."""

    side: str
    label: str
    ratio: float
    same_work: bool
    broad_share: float
    slower_clock: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """The GPU analysis of a trace and the places of the steps that are taken."""

    gpu: Mapping[str, Any]
    places: tuple[int, ...]
    labels: tuple[str, ...]

    def mean(self, values: Sequence[float]) -> float:
        """Return the mean of a per-step value over the chosen steps."""
        return sum(values[place] for place in self.places) / len(self.places)

    def spread(self, values: Sequence[float]) -> float:
        """Return the largest less the smallest of a per-step value."""
        chosen = [values[place] for place in self.places]
        return max(chosen) - min(chosen)


def side(trace: Mapping[str, Any], name: str, steps: Sequence[str] | None) -> Side:
    """Return the chosen steps of a trace; the representative ones when ``steps`` is None.

    Raises:
        UsageError: the trace has no GPU events, or no such step.
    """
    gpu = trace["gpu"]
    where = trace["source"]["path"]
    if gpu is None:
        raise UsageError(f"{name} has no GPU events to compare", where=where, todo="capture on a GPU")
    labels = [step["label"] for step in gpu["steps"]]
    if not labels:
        return Side(gpu=gpu, places=(0,), labels=("whole trace",))
    if steps is None:
        places = [index for index, step in enumerate(gpu["steps"]) if step["role"] == "counted"]
    else:
        if unknown := [step for step in steps if step not in labels]:
            raise UsageError(
                f"{name} has no step {', '.join(unknown)}", where=where, todo=f"steps: {', '.join(labels)}"
            )
        places = [labels.index(step) for step in steps]
    if not places:
        raise UsageError(f"no step of {name} is chosen", where=where, todo=f"steps: {', '.join(labels)}")
    return Side(gpu=gpu, places=tuple(places), labels=tuple(labels[place] for place in places))
