"""An action of a profile, tried: what was predicted, and what pairs of engine starts achieved.

The prediction is of a step; a request has many, and other work. So the request's total time is what is compared, in
engines without a profiler and without synchronised stages, and its effect is written as that of a step too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench import schema

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

KIND = "tried-action"
DOCUMENT = "tried.json"
METRIC = "total"


def first_flag(report: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the action of a profile's report that saves most and is a flag; None if none is."""
    actions = [action for trace in report["traces"] if trace["gpu"] for action in trace["gpu"]["actions"]]
    return max(
        (action for action in actions if action["arm"]), key=lambda action: float(action["saving_ms"]), default=None
    )


def document(
    action: Mapping[str, Any], profile: Mapping[str, Any], compared: Mapping[str, Any], baseline: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the prediction beside what was achieved.

    Args:
        action: the action of the report.
        profile: the run record of the profile, whose timed requests are without the profiler.
        compared: the comparison's record.
        baseline: the run record of its baseline.
    """
    steps = len(profile["timings"]["steps_ms"])
    total_ms = profile["timings"]["metrics"]["total_ms"]
    measured_ms = baseline["timings"]["metrics"]["total_ms"]
    found = compared["comparison"]

    def achieved(percent: float) -> dict[str, float]:
        return {"saving_ms": -percent / 100 * measured_ms / steps, "percent": -percent}

    interval = found["interval"]
    return {
        "schema": KIND,
        "schema_version": 1,
        "profile": profile["id"],
        "comparison": compared["id"],
        "title": action["title"],
        "arm": action["arm"],
        "metric": METRIC,
        "steps": steps,
        "predicted": {"saving_ms": action["saving_ms"], "percent": 100 * action["saving_ms"] * steps / total_ms},
        "achieved": achieved(found["effect"]["percent"]),
        "interval": None
        if interval is None
        else {"low": achieved(interval["high_percent"]), "high": achieved(interval["low_percent"])},
        "pairs": len(compared["pairs"]),
        "verdict": found["verdict"],
    }


def write(found: Mapping[str, Any], directory: Path) -> Path:
    """Write what was tried beside the profile's record and return its path.

    Raises:
        UsageError: the file is there already, or cannot be written.
    """
    path = directory / DOCUMENT
    schema.write(found, KIND, path)
    return path
