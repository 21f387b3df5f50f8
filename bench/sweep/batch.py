"""Several presets one after the other: one failure never stops the rest, and one document says how each ended."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from bench import schema
from bench.compare.records import scored
from bench.errors import BenchError, FallbackDetected, worst
from bench.fallback.verdict import DEGRADED, NATIVE_VERDICT
from bench.record import campaign, store
from bench.run import benchmark, plan
from bench.run.options import Options, restored

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.process import Observer
    from bench.record.campaign import Campaign
    from bench.sweep.display import Display

KIND = "batch"
SUMMARY = "summary.json"
COUNTS = (NATIVE_VERDICT, DEGRADED)
REFUSED = "refused"
NOT_RUN = "not run"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """How one preset ended: the verdict's outcome, ``refused`` (nothing was launched) or ``not run`` (interrupted)."""

    preset: str
    outcome: str
    exit_code: int | None
    reason: str | None = None
    """Why it is not native; None where it is."""
    todo: str | None = None
    record: str | None = None
    denoise_ms: float | None = None
    total_ms: float | None = None


def run(
    options: Options,
    keys: Sequence[str],
    name: str,
    display: Display,
) -> tuple[dict[str, Any], Path]:
    """Run each preset and return the summary and where it was written; Ctrl-C writes it too and re-raises.

    Raises:
        UsageError: the summary's folder cannot be made.
    """
    folder = store.new_run("batch", name, options.output_dir)
    asked = {"options": options.document(), "presets": list(keys), "started": store.now().isoformat()}
    with campaign.begin(KIND, folder, asked) as state:
        return _measured(state, options, display)


def resume(folder: Path, now: Options, display: Display) -> tuple[dict[str, Any], Path]:
    """Run the presets that a batch lacks which was cut off; return as `run` does.

    Raises:
        UsageError: it has ended or is going on elsewhere, or a secret of it is not given ``now``.
    """
    with campaign.resume(folder, KIND) as state:
        return _measured(state, restored(Options.from_document(state.asked["options"]), now), display)


def _measured(state: Campaign, options: Options, display: Display) -> tuple[dict[str, Any], Path]:
    keys = state.asked["presets"]
    try:
        for key in keys:
            if key not in state.finished:
                place = f"preset {keys.index(key) + 1}/{len(keys)}"
                with display(key, place, len(keys) - len(state.finished)) as observer:
                    state.finish(key, asdict(_row(replace(options, model=key), observer)))
    finally:
        not_run = (asdict(Row(preset=key, outcome=NOT_RUN, exit_code=None)) for key in keys)
        summary = {
            "schema": "batch-summary",
            "schema_version": 1,
            "started": state.asked["started"],
            "finished": store.now().isoformat(),
            "rows": [state.finished.get(row["preset"], row) for row in not_run],
        }
        schema.write(summary, "batch-summary", state.folder / SUMMARY, replace=state.resumed)
    state.end()
    return summary, state.folder / SUMMARY


def _row(options: Options, observer: Observer) -> Row:
    try:
        with plan.private_model_cache(plan.plan(options)) as planned:
            result = benchmark.run(planned, observer, score=scored if planned.options.scored else None)
    except BenchError as error:
        reason = error.what if error.where is None else f"{error.what} ({error.where})"
        return Row(preset=options.model, outcome=REFUSED, exit_code=error.exit_code, reason=reason, todo=error.todo)
    except OSError as error:
        return Row(preset=options.model, outcome=REFUSED, exit_code=1, reason=f"the system refused: {error}")
    verdict, timings = result.record["verdict"], result.record["timings"]
    decisive = next((finding for finding in verdict["findings"] if finding["severity"] != "info"), None)
    missed = None if result.error is None else result.error.what
    metrics = {} if timings is None else timings["metrics"]
    return Row(
        preset=options.model,
        outcome=verdict["outcome"],
        exit_code=0 if result.error is None else result.error.exit_code,
        reason=missed if decisive is None else f"{decisive['id']}: {decisive['means']}",
        todo=None if decisive is None else decisive["todo"],
        record=str(result.path),
        denoise_ms=metrics["denoise_ms"] if metrics else None,
        total_ms=metrics["total_ms"] if metrics else None,
    )


def error_of(summary: dict[str, Any], where: Path) -> BenchError | None:
    """Return the error that a batch ends with: None if all were native and met what was required of them.

    Else it has the code of the gravest row: a fallback (4) is graver than any other end; among the others the first
    row decides. A degraded run counts: it is not a failure, here as elsewhere.
    """
    bad = [row for row in summary["rows"] if row["outcome"] not in COUNTS]
    missed = [row for row in summary["rows"] if row["outcome"] in COUNTS and row["exit_code"]]
    if not bad and not missed:
        return None
    if not bad:
        kind = worst(row["exit_code"] for row in missed)
        return kind(f"{len(missed)} of {len(summary['rows'])} presets miss what was required", where=where)
    kind = worst(row["exit_code"] or FallbackDetected.exit_code for row in bad if row["outcome"] != NOT_RUN)
    return kind(f"{len(bad)} of {len(summary['rows'])} presets do not count", where=where)
