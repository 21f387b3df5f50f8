"""What bounds the step, and what to do next, in milliseconds."""

from __future__ import annotations

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

HOST_WAIT_PERCENT = LAUNCH_BOUND_PERCENT / 2
"""Host wait above this share of a step is worth an action; below it is a handful of bubbles."""

WORTH_SHARE = 0.0005
"""An action that would save less than this share of a step is not listed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """``bound_by``: arithmetic, memory, launches or communication; ``sentence`` says it with the figures."""

    bound_by: str
    floor_ratio: float | None
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedStep(MedianStep):
    """A median step with the profiler's cost removed, unless ``profiled``."""

    profiled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One thing to do and what it saves in a step at most, by a model; ``evidence`` names kernels."""

    title: str
    saving_ms: float
    state: str
    todo: str
    evidence: str


def without_profiler(median: MedianStep, unprofiled_step_ms: float | None) -> JudgedStep:
    """Return the median step to judge by: as timed without the profiler, if that is known.

    The profiler slows every launch, and the GPU waits for it: on an H200 a step of 138.5 ms took 172.9 ms, for 125.7
    of which the GPU was busy. Kernels take no longer, so the rest of the true step bounds its waiting.
    """
    if unprofiled_step_ms is None or unprofiled_step_ms <= 0:
        return JudgedStep(**asdict(median), profiled=True)
    idle_ms = max(0.0, unprofiled_step_ms - median.busy_ms)
    host_wait_ms = min(median.host_wait_ms, idle_ms)
    return JudgedStep(**asdict(replace(median, ms=unprofiled_step_ms, host_wait_ms=host_wait_ms)), profiled=False)


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
    elif host_percent > LAUNCH_BOUND_PERCENT:
        bound, why = "launches", f"the GPU waits for the CPU {host_percent:.0f} % of the step"
    elif share >= 50:  # noqa: PLR2004 - the larger part
        bound, why = (
            "arithmetic",
            f"{share:.0f} % of the busy time is matrix arithmetic; host wait is {host_percent:.1f} %",
        )
    else:
        bound, why = "memory", f"{100 - share:.0f} % of the busy time moves data; host wait is {host_percent:.1f} %"
    floor = next((floor for floor in floors if floor.label == "arithmetic at the ceiling"), None)
    ratio = step_ms / floor.ms if floor and floor.ms else None
    tail = f"; {ratio:.2f} x the arithmetic floor of {floor.ms:.1f} ms" if ratio and floor else ""
    how = "" if median.profiled else " without the profiler"
    return Verdict(
        bound_by=bound,
        floor_ratio=ratio,
        sentence=f"bound by {bound}: {why}; {step_ms:.1f} ms a step{how}{tail}",
    )


def actions(findings: Sequence[Finding], median: JudgedStep) -> tuple[Action, ...]:
    """Return what to do, most saving first. Savings of different actions may overlap; they do not add up."""
    step_ms, host_wait_ms, exposed_ms = median.ms, median.host_wait_ms, median.exposed_communication_ms
    least_ms = WORTH_SHARE * step_ms
    found = [
        Action(
            title=finding.title,
            saving_ms=finding.saving_ms,
            state=finding.state,
            todo=finding.action,
            evidence="; ".join(map(_sighting, finding.shown_by[:3])),
        )
        for finding in findings
        if finding.state in (*ACTIONABLE, "partly-on") and (finding.saving_ms or 0.0) > least_ms
        if finding.saving_ms is not None
    ]
    if 100 * host_wait_ms > HOST_WAIT_PERCENT * step_ms:
        todo = "CUDA graph, or fewer and larger launches"
        if median.synchronisations:
            again = "capture again without SGLANG_DIFFUSION_SYNC_STAGE_PROFILING, which drains the queue at each step"
            todo = f"{again}; then: {todo}"
        found.append(
            Action(
                title="GPU waits for the host",
                saving_ms=host_wait_ms,
                state="idle",
                todo=todo,
                evidence=f"{host_wait_ms:.2f} ms a step in gaps whose launch returned after the GPU had run dry"
                + ("" if median.profiled else "; no more than the step without the profiler leaves idle"),
            )
        )
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


def _sighting(sighting: Sighting) -> str:
    inside = f" in {sighting.module.rpartition(' > ')[2]}" if sighting.module else ""
    return f"{sighting.operator or sighting.kernel[:60]}{inside} x{sighting.per_step:g}, {sighting.ms:.2f} ms"
