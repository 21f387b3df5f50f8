"""The fidelity of a run's outputs against its golden and its baseline, and the gate on it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.engine import command as commands
from bench.errors import BenchError, ThresholdMissed
from bench.fallback import media
from bench.fidelity import frames, goldens, thresholds
from bench.fidelity.key import golden_key, machine_id
from bench.record import store
from bench.stats.comparison import FASTER

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bench.fidelity.goldens import Golden
    from bench.fidelity.pairs import Between
    from bench.fidelity.thresholds import Threshold
    from bench.run.plan import Plan
    from bench.run.state import Run

    Document = Mapping[str, Any]

NAMED = (
    "--model-path=", "--image-path=", "--prompt=", "--negative-prompt=", "--seed=", "--width=", "--height=",
    "--num-frames=", "--num-inference-steps=", "--guidance-scale=", "--enable-torch-compile=", "--quality=",
)  # fmt: skip
"""Arguments that the key of a golden holds separately, or leaves out because they are paths on this machine."""

NO_GOLDEN = "none for this configuration"


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """The baseline of a workload: its record's id, and the comparison with it or why it is missing."""

    record: str | None = None
    between: Between | None = None
    unknown: str | None = None


def score(run: Run, record: Document, baseline: Baseline) -> tuple[dict[str, Any], BenchError | None]:
    """Return the fidelity of a valid run's outputs, and the error of its gate (None: met, or not required).

    ``record`` is the run's record so far. The error is returned rather than raised: the record must be written first.
    """
    options = run.planned.options
    threshold = thresholds.THRESHOLDS[options.require or thresholds.DEFAULT.name]
    requests = record["requests"]
    outputs = [output for request in requests for output in request["outputs"]]
    golden, golden_unknown, error = _golden(run, record, outputs)
    missed = None
    if options.require is not None:
        why_not = f"golden: {golden_unknown or NO_GOLDEN}; baseline: {baseline.unknown}"
        missed = _missed(threshold, golden, baseline.between, outputs, why_not)
    between = baseline.between
    document = {
        "pixels_sha256": outputs[0]["pixels_sha256"] if outputs else None,
        "requests": len(requests),
        "identical": record["timings"]["outputs_identical"],
        "delivered": _delivered(record["workload"], requests),
        "golden": None if golden is None else goldens.as_document(golden),
        "golden_unknown": golden_unknown,
        "baseline": {
            "record": baseline.record,
            "unknown": baseline.unknown,
            "between": None if between is None else between.as_document(threshold),
        },
        "required": options.require,
        "met": None if options.require is None else missed is None,
        "missed": missed,
    }
    if error is not None or missed is None:
        return document, error
    return document, ThresholdMissed(f"not {threshold.name}: {missed}", where=run.directory / store.RECORD)


def _delivered(workload: Document, requests: Sequence[Document]) -> list[dict[str, Any]]:
    """Return the requested and delivered sizes and steps; all requests of a run ask for the same."""
    rows = []
    for name in ("width", "height", "frames", "steps"):
        if name == "steps":
            seen = {len(request["steps_ms"]) or None for request in requests}
        else:
            seen = {output[name] for request in requests for output in request["outputs"]}
        asked, delivered = workload[name], next(iter(seen)) if len(seen) == 1 else None
        agrees = None if None in (asked, delivered) else asked == delivered
        rows.append({"name": name, "asked": asked, "delivered": delivered, "agrees": agrees})
    return rows


def compared(between: Between, verdict: str, require: str | None) -> dict[str, Any]:
    """Return the similarity of two arms' outputs as a comparison's document holds it, judged by a threshold."""
    judged = between.as_document(thresholds.THRESHOLDS[require or thresholds.DEFAULT.name])
    return {
        "between": judged,
        "required": require is not None,
        "different": verdict == FASTER and judged["alike"] is False,
    }


def gate(quality: Document, where: str | Path) -> BenchError | None:
    """Return the error of a comparison that misses its required threshold, None otherwise."""
    missed = quality["between"]["missed"]
    if not quality["required"] or missed is None:
        return None
    return ThresholdMissed(f"not {quality['between']['threshold']}: {missed}", where=where)


def _golden(
    run: Run, record: Document, outputs: Sequence[Document]
) -> tuple[Golden | None, str | None, BenchError | None]:
    """Return the comparison with the golden, why it is missing, and why a golden was not stored or not read."""
    wanted = run.planned.options.update_golden
    key = _golden_key(run.planned, record)
    if key is None or not outputs or any(output["pixels_sha256"] is None for output in outputs):
        unknown = "an output has no pixels" if key is not None else "the model is a hub name, not a folder"
        return None, unknown, None if wanted is None else ThresholdMissed(f"cannot store a golden: {unknown}")
    machine, name = machine_id(run.planned.machine), Path(run.planned.workload.model_path).name
    distinct = {output["pixels_sha256"]: run.directory / output["file"] for output in outputs}
    try:
        found = [goldens.compare(name, key, machine, frames.read(path)) for path in distinct.values()]
        worst = max(found, key=lambda golden: goldens.STATUSES.index(golden.status))
        stored = None
        if wanted is not None and len(distinct) == 1:
            stored = goldens.keep(name, key, machine, frames.read(*distinct.values()), wanted, run.directory.name)
    except BenchError as error:
        return None, error.what, error
    refused = None
    if wanted is not None and stored is None:
        refused = ThresholdMissed("a golden requires identical outputs from all requests of a run")
    return replace(worst, repeatable=len(distinct) == 1, stored=stored), None, refused


def _golden_key(planned: Plan, record: Document) -> dict[str, Any] | None:
    """Return the key of the outputs' golden, None if the checkpoint's content is unknown."""
    workload = planned.workload
    folder = Path(workload.model_path)
    if not folder.is_dir():
        return None  # a name on the hub may mean another checkpoint tomorrow
    words = planned.resolved.arguments
    spelled = words[: len(words) - len(workload.extra)]
    variables = commands.shown_variables({**workload.preset.environment, **workload.environment})
    image = record["workload"]["image"]
    request = {
        "dtype": None,
        "torch_compile": workload.torch_compile,
        "quality": workload.quality,
        "sampling": {
            "prompt": workload.prompt,
            "negative_prompt": workload.preset.negative_prompt,
            "seed": workload.seed,
            "width": workload.width,
            "height": workload.height,
            "steps": workload.steps,
            "guidance": workload.preset.guidance,
            "frames": workload.frames,
            "image": image and image["sha256"],
        },
        "family_arguments": dict(workload.preset.config or {}),
        "launch": sorted([*(word for word in spelled if not word.startswith(NAMED)), *workload.extra, *variables]),
    }
    attention = record["launches"][-1]["delivered"]["attention"]
    return golden_key(planned.engine, planned.machine, folder, attention, request)


def _missed(
    threshold: Threshold,
    golden: Golden | None,
    against: Between | None,
    outputs: Iterable[Document],
    unknown: str,
) -> str | None:
    """Return how the outputs miss a required threshold against golden and baseline, None if they meet it.

    Whatever exists must be met; with neither, nothing was compared, which does not pass.
    """
    video = any(media.is_video(Path(output["file"])) for output in outputs)
    faults, compared = [], False
    if golden is not None and golden.picture is not None:
        compared = True
        missed = threshold.missed(golden.picture, video=video)
        if missed is not None:
            faults.append(f"against golden {golden.number}: {missed}")
    if against is not None:
        compared = True
        missed = against.missed(threshold)
        if missed is not None:
            faults.append(f"against the baseline: {missed}")
    if not compared:
        return f"nothing to compare with: {unknown}"
    return "; ".join(faults) or None
