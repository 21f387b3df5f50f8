"""What the outputs of a run's timed requests are worth: `invoke bench --check-accuracy`, and the gate on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import paths
from bench.compare import arms, history
from bench.engine import command as commands
from bench.errors import BenchError, ThresholdMissed
from bench.fallback import media
from bench.fidelity import frames, goldens, pairs, thresholds
from bench.fidelity import key as identity
from bench.models import checkpoint
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
"""Arguments that the key of a golden names by themselves; the first two are places on this machine."""

NO_GOLDEN = "none for this configuration"


def score(run: Run, known: Document) -> tuple[dict[str, Any], BenchError | None]:
    """Return the quality of a run that counts, and the error that its gate ends it with (None: met, or none asked).

    ``known`` is the run's record as far as it is. An error is returned, not raised: the record has to be written first.
    """
    options = run.planned.options
    threshold = thresholds.THRESHOLDS[options.require or thresholds.DEFAULT.name]
    requests = known["requests"]
    outputs = [output for request in requests for output in request["outputs"]]
    named, unknown, against = _against_baseline(run.directory, known)
    golden, golden_unknown, error = _golden(run, known, outputs)
    missed = None
    if options.require is not None:
        why_not = f"golden: {golden_unknown or NO_GOLDEN}; baseline: {unknown}"
        missed = _missed(threshold, golden, against, outputs, why_not)
    quality = {
        "pixels_sha256": outputs[0]["pixels_sha256"] if outputs else None,
        "requests": len(requests),
        "identical": known["timings"]["outputs_identical"],
        "delivered": _delivered(known["workload"], requests),
        "golden": None if golden is None else goldens.document(golden),
        "golden_unknown": golden_unknown,
        "baseline": {
            "record": named,
            "unknown": unknown,
            "between": None if against is None else against.document(threshold),
        },
        "required": options.require,
        "met": None if options.require is None else missed is None,
        "missed": missed,
    }
    if error is not None or missed is None:
        return quality, error
    return quality, ThresholdMissed(f"not {threshold.name}: {missed}", where=run.directory / store.RECORD)


def _delivered(workload: Document, requests: Sequence[Document]) -> list[dict[str, Any]]:
    """Return what was asked against what every request delivered; they were all asked the same."""
    rows = []
    for name in ("width", "height", "frames", "steps"):
        if name == "steps":
            seen = {len(request["steps_ms"]) or None for request in requests}
        else:
            # a run that is taken up may have requests of before frames were counted
            seen = {output.get(name) for request in requests for output in request["outputs"]}
        asked, delivered = workload[name], next(iter(seen)) if len(seen) == 1 else None
        agrees = None if None in (asked, delivered) else asked == delivered
        rows.append({"name": name, "asked": asked, "delivered": delivered, "agrees": agrees})
    return rows


def _against_baseline(directory: Path, known: Document) -> tuple[str | None, str | None, Between | None]:
    """Return the id of the baseline of this workload, why it cannot be compared, and how the outputs are to its."""
    root = paths.runs()
    place = history.baselines(root).get(history.family(known))
    if place is None:
        return None, "no baseline is named for this workload on these devices (`invoke baseline.set RECORD`)", None
    try:
        baseline = store.read(root / place)
    except BenchError as error:
        return None, f"the named baseline cannot be read: {error.what} ({root / place})", None
    return baseline["id"], None, between((baseline, root / place), (known, directory))


def between(baseline: tuple[Document, Path], candidate: tuple[Document, Path]) -> Between:
    """Return how the outputs of two records are to each other, if they are of one request; each with its directory."""
    unlike = arms.other_requests(baseline[0], candidate[0])
    if unlike:
        return pairs.not_compared(f"the requests are not the same: {'; '.join(unlike)}")
    return pairs.compare(
        pairs.Side(name="the baseline", directory=baseline[1], requests=baseline[0]["requests"]),
        pairs.Side(name="the candidate", directory=candidate[1], requests=candidate[0]["requests"]),
    )


def compared(found: Between, verdict: str, require: str | None) -> dict[str, Any]:
    """Return two arms' outputs as a comparison holds them beside its verdict; a threshold is looked at in any case."""
    judged = found.document(thresholds.THRESHOLDS[require or thresholds.DEFAULT.name])
    return {
        "between": judged,
        "required": require is not None,
        "different": verdict == FASTER and judged["alike"] is False,
    }


def gate(quality: Document, where: str | Path) -> BenchError | None:
    """Return the error of a comparison whose required threshold is not met, None if it is or none was required."""
    missed = quality["between"]["missed"]
    if not quality["required"] or missed is None:
        return None
    return ThresholdMissed(f"not {quality['between']['threshold']}: {missed}", where=where)


def _golden(
    run: Run, known: Document, outputs: Sequence[Document]
) -> tuple[Golden | None, str | None, BenchError | None]:
    """Return how the outputs are to their golden, why that is not known, and why one was not made or not read."""
    wanted = run.planned.options.update_golden
    key = _key(run.planned, known)
    if key is None or not outputs or any(output["pixels_sha256"] is None for output in outputs):
        unknown = "an output has no pixels" if key is not None else "the model is a name on the hub, not a folder"
        return None, unknown, None if wanted is None else ThresholdMissed(f"no golden can be made: {unknown}")
    machine, name = identity.machine_id(run.planned.machine), Path(run.planned.workload.model_path).name
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
        refused = ThresholdMissed("no golden is made of outputs that the requests of one run do not agree on")
    return goldens.with_store(worst, repeatable=len(distinct) == 1, stored=stored), None, refused


def _key(planned: Plan, known: Document) -> dict[str, Any] | None:
    """Return the configuration that the outputs belong to, None if the checkpoint's content is not known."""
    workload = planned.workload
    folder = Path(workload.model_path)
    if not folder.is_dir():
        return None  # a name on the hub: what it stands for may be another tomorrow
    made = checkpoint.manifest(folder)
    given = commands.arguments(planned.engine, workload)
    spelled = given[: len(given) - len(workload.extra)]
    variables = {**workload.preset.environment, **workload.environment}
    request = workload.preset.config
    return {
        **identity.code(planned.engine),
        "device": identity.device(planned.machine),
        "dtype": None,
        "attention_backend": identity.kernels(known["launches"][-1]["delivered"]["attention"]),
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
            "image": known["workload"]["image"] and known["workload"]["image"]["sha256"],
        },
        "family_arguments": {} if request is None else dict(request),
        "launch": sorted(
            [
                *(word for word in spelled if not word.startswith(NAMED)),
                *workload.extra,
                *commands.shown_variables(variables),
            ]
        ),
        "checkpoint_sha256": made["sha256"] if made is not None else checkpoint.sha256(folder),
    }


def _missed(
    threshold: Threshold,
    golden: Golden | None,
    against: Between | None,
    outputs: Iterable[Document],
    unknown: str,
) -> str | None:
    """Return what the outputs miss of a required threshold against golden and baseline, None if they meet it.

    What is there has to be met; where there is neither, nothing was compared, and that is no pass.
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
        return f"nothing can be compared: {unknown}"
    return "; ".join(faults) or None
