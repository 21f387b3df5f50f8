"""A finished accuracy run as the document that ``schemas/accuracy-report.json`` describes, and its outcome."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from bench.accuracy.gates import GOLDEN
from bench.engine import variables
from bench.fidelity import goldens
from bench.machine import gpus, host
from bench.models import checkpoint

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from bench.accuracy.judge import Findings
    from bench.accuracy.plan import Plan
    from bench.engine.command import Command
    from bench.fallback.verdict import Verdict

SCHEMA_VERSION = 1

PASSED, FAILED, VOID, NOT_NATIVE, INVALID = "passed", "failed", "void", "not native", "invalid"
NO_GOLDEN = "no golden for this configuration, and no other check"
"""Why a run is void that checked only its golden."""


def outcome(planned: Plan, found: Findings, verdict: Verdict) -> tuple[str, list[str]]:
    """Return the outcome and its reasons, the decisive one first.

    A failure counts even if a negative control passed a gate, because a blind gate does not invent failures. A pass
    does not count then: the run is void.
    """
    missed = [
        *(f"{part.name} is not native: {part.reason}" for part in found.components if part.native is False),
    ]
    failed = [*_failed_components(found), *_failed_trajectory(found), *_failed_golden(found.golden)]
    void = [
        f"the negative control {control.name!r} on {control.on} ({control.done}) was not rejected: the gate is blind"
        for control in found.controls
        if not control.rejected
    ]
    only_golden = planned.options.checks == (GOLDEN,) and planned.options.update_golden is None
    if only_golden and found.golden is not None and found.golden.status == goldens.NONE:
        void.append(NO_GOLDEN)
    if not verdict.counts:
        return INVALID, [finding.means for finding in verdict.reasons()] + missed
    for name, because in ((NOT_NATIVE, missed), (FAILED, failed), (VOID, void)):
        if because:
            return name, [*because, *(reason for reason in [*failed, *void] if reason not in because)]
    return PASSED, []


def _failed_components(found: Findings) -> list[str]:
    reasons = []
    for part in found.components:
        for output in part.outputs:
            if not output.passed:
                far = output.distance.fault or (
                    f"relative L2 {output.distance.rel_l2:.3g}, the gate is {output.gate.rel_l2:g}"
                    if output.gate.cosine is None
                    else f"relative L2 {output.distance.rel_l2:.3g}, cosine {output.distance.cosine:.6f}, the gate is "
                    f"{output.gate.rel_l2:g} and {output.gate.cosine:g}"
                )
                reasons.append(f"{part.name} {output.name}: {far}")
        if part.native and not part.outputs:
            reasons.append(f"{part.name}: not compared; its family's file lists no output")
    return reasons


def _failed_trajectory(found: Findings) -> list[str]:
    result = found.trajectory
    if result is None or result.passed:
        return []
    if result.schedule is not None:
        return [result.schedule]
    last = result.steps[-1].distance
    far = last.fault or f"relative L2 {last.rel_l2:.3g}, the gate is {result.gate.rel_l2:g}"
    return [f"latents after the last step: {far}"]


def _failed_golden(found: goldens.Golden | None) -> list[str]:
    if found is None or found.passed:
        return []
    if not found.repeatable:
        return ["two identical requests in one launch gave different pictures"]
    picture = found.picture
    assert picture is not None
    where = "on the machine that made it" if found.same_machine else "beyond the tolerance between machines"
    far = picture.fault or f"{picture.psnr_db:.1f} dB, {picture.max_levels} levels"
    return [f"differs from golden {found.number} {where}: {far}"]


def document(
    planned: Plan,
    command: Command,
    found: Findings,
    verdict: Verdict,
    times: tuple[datetime, datetime],
    directory: Path,
    concluded: tuple[str, list[str]],
) -> dict[str, Any]:
    """Return the report as ``schemas/accuracy-report.json`` describes it."""
    options = planned.options
    made = checkpoint.manifest(planned.model)
    reference = found.reference
    return {
        "schema": "accuracy-report",
        "schema_version": SCHEMA_VERSION,
        "id": directory.name,
        "label": options.label,
        "started": times[0].isoformat(),
        "finished": times[1].isoformat(),
        "outcome": concluded[0],
        "reasons": concluded[1],
        "preset": {"key": planned.preset.key, "sha256": planned.preset.sha256},
        "model": {
            "name": planned.model.name,
            "family": planned.family.key,
            "sha256": None if made is None else made["sha256"],
        },
        "checks": list(options.checks),
        "dtype": options.dtype,
        "torch_compile": options.torch_compile,
        "sampling": dict(planned.sampling),
        "command": {"argv": list(command.argv), "environment": variables.recorded(command.environment, command.added)},
        "engine": planned.engine.for_record(),
        "devices": gpus.as_document(planned.machine),
        "host": host.as_document(),
        "reference": None
        if reference is None
        else {name: reference[name] for name in ("pipeline", "classes", "device")},
        "verdict": verdict.document(),
        "components": [asdict(part) | {"passed": part.passed} for part in found.components],
        "trajectory": None if found.trajectory is None else asdict(found.trajectory),
        "controls": [asdict(control) for control in found.controls],
        "not_applicable": dict(planned.controls.not_applicable),
        "golden": None if found.golden is None else goldens.as_document(found.golden),
    }
