"""From trace files to the document behind every report (``schemas/profile-report.json``)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.catalog.fast_paths import family_for
from bench.errors import InvalidDocument
from bench.profiling import cpu, fast_paths, roofline, summary, table, timeline
from bench.profiling.attribution import Attribution, attribute
from bench.profiling.bottleneck import actions, verdict, without_profiler
from bench.profiling.categories import titles
from bench.profiling.document import device, listed, row_document, source
from bench.profiling.reader import read
from bench.profiling.steps import class_of
from bench.profiling.warnings import warnings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from bench.catalog.devices import Ceiling
    from bench.profiling.bottleneck import Unprofiled
    from bench.profiling.summary import MedianStep
    from bench.profiling.table import Row
    from bench.profiling.trace import Trace

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a trace does not say about itself; None is unknown.

    ``model`` is a family of ``bench/catalog/fast_paths.toml``, found from the modules when it is None.
    ``measured`` are the ceilings of this card, ``steps`` the denoise steps of the whole request. ``about`` (of the
    capture: the command, the flags, the clocks) and ``warnings`` (what its run says of the machine) are kept verbatim.
    """

    model: str | None = None
    engine_version: str | None = None
    quality: str | None = None
    unprofiled: Unprofiled | None = None
    measured: tuple[Ceiling, ...] = ()
    steps: int | None = None
    about: Mapping[str, Any] | None = None
    warnings: tuple[str, ...] = ()


def analyse(
    paths: Sequence[Path],
    context: Context | None = None,
    *,
    each: Callable[[Attribution, dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Return the analysis of the traces of one run, one for each rank; one is in memory at a time.

    Args:
        paths: the trace files.
        context: what else is known.
        each: called with every trace and its analysis before the next one is read, to export events.

    Raises:
        UsageError: a file is missing or empty.
        InvalidDocument: a file is not a trace, or was truncated before its first complete step.
    """
    context = context or Context()
    found = []
    for path in paths:
        attribution = attribute(read(path))
        document = analyse_trace(attribution, context)
        if each is not None:
            each(attribution, document)
        found.append(document)
    found.sort(key=lambda one: (one["source"]["rank"] is None, one["source"]["rank"] or 0))
    document = {
        "schema_version": SCHEMA_VERSION,
        "context": {
            "model": context.model or next((one["model"] for one in found if one["model"]), None),
            "engine_version": context.engine_version,
            "quality": context.quality,
            "unprofiled_step_ms": context.unprofiled.step_ms if context.unprofiled else None,
            "host_ahead": context.unprofiled.host_ahead if context.unprofiled else None,
            "steps": context.steps,
            "about": dict(context.about) if context.about is not None else None,
            "warnings": context.warnings,
        },
        "traces": found,
        "ranks": _ranks(found),
    }
    whole: dict[str, Any] = listed(document)
    return whole


def _ranks(found: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the ranks side by side; None for one trace. The slowest rank is the one whose steps take longest."""
    if len(found) < 2:  # noqa: PLR2004 - one rank cannot be compared
        return None
    lines = [
        {
            "index": index,
            "rank": one["source"]["rank"],
            "step_ms": one["gpu"]["median_step"]["ms"],
            "busy_ms": one["gpu"]["median_step"]["busy_ms"],
            "exposed_communication_ms": one["gpu"]["median_step"]["exposed_communication_ms"],
        }
        for index, one in enumerate(found)
        if one["gpu"] is not None
    ]
    # ranks wait for each other: the one that waits least in communication is the one the others wait for
    own = [line["busy_ms"] - line["exposed_communication_ms"] for line in lines]
    slowest = lines[own.index(max(own))] if own else None
    imbalance = 100 * (max(own) / (sum(own) / len(own)) - 1) if own and sum(own) else None
    exposed = max((line["exposed_communication_ms"] for line in lines), default=None)
    return {
        "lines": lines,
        "slowest": slowest["index"] if slowest else None,
        "imbalance_percent": imbalance,
        "most_exposed_communication_ms": exposed,
    }


def analyse_trace(attribution: Attribution, context: Context) -> dict[str, Any]:
    """Return the analysis of one trace."""
    trace = attribution.trace
    family = context.model or family_for(
        {class_of(trace.names[name]) for name in np.unique(trace.modules.name).tolist()}
    )
    gpu = cpu_view = None
    if len(trace.gpu):
        if not attribution.counted.any():
            _refuse_nothing_whole(attribution)
        gpu = _gpu(attribution, context, family)
    else:
        if trace.damage and trace.device is not None:
            _refuse_nothing_whole(attribution)
        cpu_view = _cpu(attribution)
    document = {
        "source": source(trace),
        "device": device(trace),
        "model": family,
        "steps_found_by": attribution.steps.found_by,
        "counts": dict(sorted(trace.counts.items(), key=lambda item: -item[1])),
        "coverage": summary.coverage(attribution) if gpu else None,
        "excluded": summary.excluded(attribution) if gpu else None,
        "gpu": gpu,
        "cpu": cpu_view,
    }
    return document | {"warnings": list(warnings(attribution, gpu))}


def _refuse_nothing_whole(attribution: Attribution) -> None:
    trace = attribution.trace
    if trace.damage:
        raise InvalidDocument(
            f"the trace ends before its first step does: {trace.damage}",
            where=trace.path,
            todo="capture it again, and let the engine finish writing the trace",
        )
    raise InvalidDocument(
        f"none of the {len(trace.gpu):,} GPU events was launched inside a step: nothing can be attributed",
        where=trace.path,
        todo="capture CPU activity too (ProfilerActivity.CPU), in the process that launches the kernels",
    )


def _cpu(attribution: Attribution) -> dict[str, Any]:
    trace, steps = attribution.trace, attribution.steps
    return {
        "steps": [
            {"label": label, "ms": float(end - start) / 1e3}
            for label, start, end in zip(steps.labels, steps.start_us, steps.end_us, strict=True)
        ],
        "operators": cpu.operators(trace, steps),
        "modules": cpu.modules(trace, steps),
    }


def _gpu(attribution: Attribution, context: Context, family: str | None) -> dict[str, Any]:
    trace = attribution.trace
    idle = timeline.gaps(attribution)
    steps = timeline.steps(attribution, idle)
    rows = table.rows(attribution)
    outside = table.rows(attribution, inside=False)
    name = trace.device.get("name") if trace.device else None
    limits = roofline.ceilings(rows, name, context.measured)
    named = titles()
    whole = summary.window(attribution, idle)
    median = summary.median_step(steps, whole)
    kinds = summary.categories(rows, named)
    floors = roofline.floors(rows, limits)
    judged = without_profiler(median, context.unprofiled)
    waits = {"host wait": judged.host_wait_ms, "kernel wait": judged.kernel_wait_ms}
    if judged.profiled and steps:
        waits = summary.idle_by_cause(steps, median)
    measures = _metrics(judged, rows, trace)
    seen = fast_paths.Evidence(denoise=rows, decode=outside, calls=trace.names, metrics=measures)
    findings = fast_paths.judge(seen, _situation(trace, context, family), limits)
    return {
        "window": asdict(whole),
        "median_step": asdict(median),
        "judged_step": {
            "profiled": judged.profiled,
            "ms": judged.ms,
            "host_wait_ms": judged.host_wait_ms,
            "kernel_wait_ms": judged.kernel_wait_ms,
        },
        "steps": [asdict(step) for step in steps],
        "verdict": asdict(verdict(judged, {kind["id"]: kind["ms"] for kind in kinds}, floors)),
        "actions": [asdict(action) for action in actions(findings, judged, graphs=measures["graph_launches"] > 0)],
        "categories": kinds,
        "scopes": summary.scopes(attribution),
        "streams": summary.streams(attribution),
        "gaps": summary.gap_histogram(idle),
        "ceilings": asdict(limits),
        "floors": [asdict(floor) for floor in floors],
        "waterfall": [
            asdict(bar)
            for bar in roofline.waterfall(
                rows,
                limits,
                named,
                idle=waits,
                overlap_ms=median.overlap_ms,
                step_ms=judged.ms,
                profiled=judged.profiled,
            )
        ],
        "shapes": roofline.shapes(rows, limits),
        "fast_paths": [asdict(finding) for finding in findings],
        "rows": [row_document(row) for row in rows],
        "outside": [row_document(row) for row in outside],
    }


def _metrics(median: MedianStep, rows: Sequence[Row], trace: Trace) -> dict[str, float]:
    step_ms = median.ms or 1.0
    graphs = [index for index, name in enumerate(trace.names) if "GraphLaunch" in name]
    return {
        "host_wait_percent": 100 * median.host_wait_ms / step_ms,
        "exposed_communication_percent": 100 * median.exposed_communication_ms / step_ms,
        "graph_launches": float(np.isin(trace.calls.name, graphs).sum()),
        "compiled_kernels": sum(row.per_step for row in rows if row.category == "compiled"),
    }


def _situation(trace: Trace, context: Context, family: str | None) -> fast_paths.Situation:
    properties = trace.device or {}
    major, minor = properties.get("computeMajor"), properties.get("computeMinor")
    return fast_paths.Situation(
        family=family,
        engine_version=context.engine_version,
        quality=context.quality,
        compute_capability=major * 10 + minor if isinstance(major, int) and isinstance(minor, int) else None,
        gpus=trace.world_size,
    )
