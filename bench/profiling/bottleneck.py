"""What bounds the step, and what to do next, in milliseconds."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from bench.profiling.fast_paths import ACTIONABLE, LAUNCH_BOUND_PERCENT, Finding, Sighting
from bench.profiling.roofline import MATRIX
from bench.profiling.summary import MedianStep

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.profiling.roofline import Floor

COMMUNICATION_BOUND_PERCENT = 20.0
"""Exposed communication above this share of a step makes it bound by it (the threshold of ``a2a-overlap``)."""

STEPS_THAT_TELL = 4
SHORT_STEP = 0.9
"""A first step shorter than this share of the median one was queued, not waited for; others differ by 2 %."""

CUDA_GRAPH = "cuda-graph"
"""The arm with CUDA graphs (`bench.compare.arms`)."""

WORTH_SHARE = 0.0005
"""An action that would save less than this share of a step is not listed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """``bound_by``: arithmetic, memory, launches or communication; ``sentence`` says it with the figures."""

    bound_by: str
    floor_ratio: float | None
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unprofiled:
    """The same step timed without the profiler and without synchronised stages.

    ``host_ahead``: whether the CPU queued its work faster than the GPU did it, so that the GPU never waited for it;
    None where the requests do not tell.
    """

    step_ms: float
    host_ahead: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedStep(MedianStep):
    """A median step with the profiler's cost removed, unless ``profiled``; ``host_ahead`` as of `Unprofiled`."""

    profiled: bool
    host_ahead: bool | None = None

    @property
    def idle_ms(self) -> float:
        """The time in which the GPU had nothing to do, by cause, that a better step would not have."""
        return self.host_wait_ms + self.kernel_wait_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One thing to do and what it saves in a step at most, by a model; ``evidence`` names kernels.

    ``arm`` is what `invoke ab --candidate` takes to try it; None if it is not a flag.
    """

    title: str
    saving_ms: float
    state: str
    todo: str
    evidence: str
    arm: str | None = None


def host_ahead(steps_ms: Sequence[float]) -> bool | None:
    """Tell from the steps of an unsynchronised request whether the CPU ran ahead of the GPU; None for too few steps.

    The times are the CPU's. If it is ahead, the queue of launches fills from the first step on, which looks short for
    it; later each step takes what the GPU needs. If the GPU waits for the CPU instead, all steps take alike. A later
    step that is short tells nothing: a cache computed less of it.
    """
    if len(steps_ms) < STEPS_THAT_TELL:
        return None
    return steps_ms[0] < SHORT_STEP * statistics.median(steps_ms)


def without_profiler(median: MedianStep, unprofiled: Unprofiled | None) -> JudgedStep:
    """Return the median step to judge by: as timed without the profiler, if that is known.

    The profiler slows every launch, and the GPU waits for it: on an H200 a step of 138.5 ms took 172.9 ms, for 125.7
    of which the GPU was busy. Kernels take no longer, so the rest of the true step bounds its waiting; and a GPU that
    the CPU kept busy without the profiler waited for nothing.
    """
    if unprofiled is None or unprofiled.step_ms <= 0:
        return JudgedStep(**asdict(median), profiled=True)
    idle_ms = max(0.0, unprofiled.step_ms - median.busy_ms)
    host_wait_ms = 0.0 if unprofiled.host_ahead else min(median.host_wait_ms, idle_ms)
    kernel_wait_ms = min(median.kernel_wait_ms, idle_ms - host_wait_ms)
    judged = replace(median, ms=unprofiled.step_ms, host_wait_ms=host_wait_ms, kernel_wait_ms=kernel_wait_ms)
    return JudgedStep(**asdict(judged), profiled=False, host_ahead=unprofiled.host_ahead)


def verdict(median: JudgedStep, category_ms: Mapping[str, float], floors: Sequence[Floor]) -> Verdict:
    """Return what bounds the median step, by its times and those of its categories, milliseconds."""
    step_ms, busy_ms = median.ms, median.busy_ms
    host_wait_ms, exposed_ms = median.host_wait_ms, median.exposed_communication_ms
    host_percent = 100 * host_wait_ms / step_ms if step_ms else 0.0
    exposed_percent = 100 * exposed_ms / step_ms if step_ms else 0.0
    matrix = sum(category_ms.get(name, 0.0) for name in MATRIX if name != "skinny-gemm")
    share = 100 * matrix / busy_ms if busy_ms else 0.0
    if exposed_percent > COMMUNICATION_BOUND_PERCENT:
        bound, why = "communication", f"{exposed_percent:.0f} % of the step waits for communication"
    elif host_percent > LAUNCH_BOUND_PERCENT and not median.profiled:
        bound, why = "launches", f"the GPU waits for the CPU {host_percent:.0f} % of the step"
    elif share >= 50:  # noqa: PLR2004 - the larger part
        bound, why = "arithmetic", f"{share:.0f} % of the busy time is matrix arithmetic"
    else:
        bound, why = "memory", f"{100 - share:.0f} % of the busy time moves data"
    if bound in {"arithmetic", "memory"}:
        why += f", and host wait is {host_percent:.1f} % of the step"
    floor = next((floor for floor in floors if floor.label == "arithmetic at the ceiling"), None)
    ratio = step_ms / floor.ms if floor and floor.ms else None
    tail = f": {ratio:.2f} times the arithmetic floor of {floor.ms:.1f} ms" if ratio and floor else ""
    how = "under" if median.profiled else "without"
    return Verdict(
        bound_by=bound,
        floor_ratio=ratio,
        sentence=f"bound by {bound}: {why}. A step takes {step_ms:.1f} ms {how} the profiler{tail}",
    )


def actions(findings: Sequence[Finding], median: JudgedStep, *, graphs: bool = False) -> tuple[Action, ...]:
    """Return what to do, most saving first. Savings of different actions may overlap; they do not add up.

    ``graphs`` tells whether the step was launched as CUDA graphs.
    """
    exposed_ms = median.exposed_communication_ms
    least_ms = WORTH_SHARE * median.ms
    found = [
        Action(
            title=finding.title,
            saving_ms=finding.saving_ms,
            state=finding.state,
            todo=finding.action,
            evidence="; ".join(map(_sighting, finding.shown_by[:3])),
            arm=finding.arm,
        )
        for finding in findings
        if finding.state in (*ACTIONABLE, "partly-on") and (finding.saving_ms or 0.0) > least_ms
        if finding.saving_ms is not None
    ]
    # what is idle under the profiler says nothing of a step without it
    if not median.profiled and median.idle_ms > least_ms:
        found.append(_idle(median, graphs=graphs))
    if exposed_ms > least_ms:
        found.append(
            Action(
                title="Communication that nothing hides",
                saving_ms=exposed_ms,
                state="exposed",
                todo="overlap it with arithmetic; compare Ulysses, ring and CFG parallelism",
                evidence=f"{exposed_ms:.2f} ms a step of communication kernels with nothing beside them",
            )
        )
    return tuple(sorted(found, key=lambda action: -action.saving_ms))


def _idle(median: JudgedStep, *, graphs: bool) -> Action:
    """Return the action on what the GPU is idle for in a step without the profiler."""
    ahead = " (without the profiler the CPU runs ahead of the GPU)" if median.host_ahead else ""
    return Action(
        title="GPU idle between kernels" if median.host_ahead else "GPU idle: gaps and waits for the host",
        saving_ms=median.idle_ms,
        state="idle",
        todo="fewer and larger kernels" if graphs else "a CUDA graph, or fewer and larger kernels",
        evidence=f"{median.kernel_wait_ms:.2f} ms a step in gaps between queued kernels, {median.host_wait_ms:.2f} ms "
        f"of waits for the host{ahead}; no more than the step without the profiler leaves idle",
        arm=None if graphs else CUDA_GRAPH,
    )


def _sighting(sighting: Sighting) -> str:
    inside = f" in {sighting.module.rpartition(' > ')[2]}" if sighting.module else ""
    return f"{sighting.operator or sighting.kernel[:60]}{inside} x{sighting.per_step:g}, {sighting.ms:.2f} ms"
