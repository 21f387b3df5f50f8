"""What a reader of the analysis must know before a number is believed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bench.profiling import summary

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bench.profiling.attribution import Attribution

FEW_STEPS = 3
"""With fewer steps, steps 2..n-1 have no median."""

HOST_WAIT_SHARE = 0.05
"""Host wait above this share of a step is worth a word; below it is a handful of bubbles."""

LAUNCHES = ("Launch", "Memset", "Memcpy")
"""Parts of the names of the calls that queue a GPU event each."""


def warnings(attribution: Attribution, gpu: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield one sentence for each thing that limits what the analysis means."""
    trace = attribution.trace
    if trace.damage:
        cut = f"; steps {', '.join(attribution.cut_steps)} are left out" if attribution.cut_steps else ""
        yield f"truncated: {trace.damage}{cut}"
    if trace.unreadable:
        yield f"{trace.unreadable} events are not JSON and are left out"
    if not len(attribution.steps):
        yield "no denoise steps (no ProfilerStep annotation, no denoiser among the modules): all events are one window"
    if gpu is None:
        return
    yield from _of_steps(attribution, gpu)
    yield from _of_capture(attribution, gpu)
    if (backlog := summary.excluded(attribution)["backlog"])["events"]:
        yield (
            f"{backlog['events']:,} GPU events ({backlog['ms']:.1f} ms, +{backlog['percent_of_counted']:.1f} %) "
            "were launched before the window and are left out"
        )


def _of_capture(attribution: Attribution, gpu: Mapping[str, Any]) -> Iterator[str]:
    trace = attribution.trace
    judged = gpu["judged_step"]
    if judged["profiled"] and judged["host_wait_ms"] > HOST_WAIT_SHARE * judged["ms"]:
        yield (
            f"the GPU waits for the host for {judged['host_wait_ms']:.1f} ms a step under the profiler; how much of it "
            "is there without is not known: no action is made of it (invoke profile measures it, or give --step-ms)"
        )
    if trace.head.get("with_stack"):
        yield "Python stacks were recorded: they slow every launch, so that host wait is overstated"
    if not len(trace.modules):
        yield "no module frames (captured without stacks): nothing is attributed to modules"
    if not any(signature.dims for signature in trace.signatures):
        yield "no input shapes (captured without record_shapes): no FLOPs, no bytes, no modulation"
    if missing := _without_event(attribution):
        yield f"{missing:,} launches inside the steps have no GPU event: the profiler lost some"
    devices = np.unique(trace.gpu.device[attribution.counted])
    if len(devices) > 1:
        yield f"{len(devices)} devices in one trace: busy means that at least one of them was"


def _of_steps(attribution: Attribution, gpu: Mapping[str, Any]) -> Iterator[str]:
    steps = gpu["steps"]
    if attribution.steps.found_by == "module forwards":
        yield "no ProfilerStep annotations: a step is one forward of the denoiser (two for a request with CFG)"
    if 0 < len(steps) < FEW_STEPS:
        yield f"{len(steps)} step(s): too few for a median of steps 2..n-1; all are counted"
    if outliers := [step["label"] for step in steps if step["outlier"]]:
        named = (
            f"step {outliers[0]} is an outlier" if len(outliers) == 1 else f"steps {', '.join(outliers)} are outliers"
        )
        yield f"{named}: busy more than 5 % off the median"
    if gpu["median_step"]["synchronisations"]:
        yield (
            f"{gpu['median_step']['synchronisations']:g} device synchronisations in each step drain the queue "
            "(SGLANG_DIFFUSION_SYNC_STAGE_PROFILING?): host wait is overstated"
        )


def _without_event(attribution: Attribution) -> int:
    trace = attribution.trace
    named = [index for index, name in enumerate(trace.names) if any(part in name for part in LAUNCHES)]
    launching = np.isin(trace.calls.name, named) & (attribution.steps.step_at(trace.calls.start_us) >= 0)
    return int((launching & ~np.isin(trace.calls.correlation, trace.gpu.correlation)).sum())
