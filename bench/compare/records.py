"""Compare what was measured earlier: run records, or two bare perf dumps of the engine."""

from __future__ import annotations

import shlex
import statistics
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import paths, schema
from bench.compare import calibration
from bench.compare import metric as metrics
from bench.errors import BenchError, InvalidPerfDump, UsageError
from bench.fallback.verdict import INVALID
from bench.fidelity import goldens, pairs, score
from bench.record import baselines, comparable, disturbance, names, store
from bench.run import consistency, evidence
from bench.run import document as recording
from bench.run.metrics import denoise_ms
from bench.stats import comparison, unpaired

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.fidelity.pairs import Between
    from bench.run.evidence import Reviewed
    from bench.run.plan import Plan
    from bench.run.state import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """What is compared: its name, the document, and one value of the metric for each launch."""

    name: str
    document: Mapping[str, Any]
    is_dump: bool
    metric: metrics.Metric
    launches: tuple[float, ...]
    requests: int = 1
    """How many requests each of these is the median of, at least."""
    directory: Path | None = None
    """Where a record's outputs are; None for a bare dump."""
    note: str | None = None
    """What of its evidence is gone."""


WITHIN = timedelta(hours=1)
"""Records of one host that began no further apart were made under one day's conditions."""


def read(path: Path, metric: str = metrics.DEFAULT) -> Side:
    """Return a run record (a file or a run directory) or a bare perf dump as one side of a comparison.

    Raises:
        UsageError: it cannot be read, is not complete, does not count, or does not have the metric.
        InvalidDocument: it is neither.
        RecordEdited: it is a record that its evidence contradicts.
        InvalidPerfDump: it is a broken dump.
    """
    wanted = metrics.named(metric)
    if path.is_dir() or _is_record(path):
        reviewed = evidence.read(path)
        document = reviewed.record
        _refuse_uncounted(document, path)
        groups = calibration.by_launch(document, wanted)
        directory = path if path.is_dir() else path.parent
        return Side(
            name=str(path),
            document=document,
            is_dump=False,
            metric=wanted,
            launches=tuple(statistics.median(group) for group in groups),
            requests=min(map(len, groups)),
            directory=directory,
            note=reviewed.note(),
        )
    dump = schema.read(path, InvalidPerfDump)
    schema.check(dump, "perf-dump", path, InvalidPerfDump)
    if denoise_ms(dump) is None:
        raise UsageError("the dump has no native denoising stage: it is not from a native run", where=path)
    return Side(name=str(path), document=dump, is_dump=True, metric=wanted, launches=(wanted.of_dump(dump),))


def _refuse_uncounted(record: Mapping[str, Any], path: Path) -> None:
    """Raise UsageError for a record without numbers to compare, with its name: what was typed may have been `last`."""
    name, model, outcome = record["id"][-6:], record["preset"]["key"], record["verdict"]["outcome"]
    others = (
        f"name another run: `last` is the newest one whatever its verdict, and `invoke history --model {model}` shows"
        " those that count"
    )
    if not record["complete"] and outcome != INVALID:
        way_on = f"`invoke bench --resume {shlex.quote(names.called(path))}` goes on with it; or {others}"
        raise UsageError(
            f"run {name} is incomplete or still running",
            where=path,
            todo=way_on if record["requests"] and record["kind"] == "bench" else others,
        )
    if record["timings"] is None:
        raise UsageError(f"run {name} has no number to compare: its verdict is {outcome}", where=path, todo=others)


def _is_record(path: Path) -> bool:
    if not path.is_file():
        raise UsageError("no such file or folder", where=path, todo=names.KNOWN)
    document = schema.read(path)
    return isinstance(document, dict) and document.get("schema") == "run-record"


def refuse_unlike(baseline: Side, candidate: Side) -> None:
    """Raise UsageError, naming the fields, unless the two sides are of one workload on one kind of machine.

    One record is not two, nor is a copy of it: against itself nothing can differ.
    """
    if _is_same(baseline, candidate):
        raise UsageError(
            "the same record twice, so nothing can differ", where=baseline.name, todo="name another run for one side"
        )
    if baseline.is_dump != candidate.is_dump:
        raise UsageError(
            "a bare perf dump and a run record cannot be compared: the dump does not say where and how it was made",
            where=f"{baseline.name}, {candidate.name}",
        )
    unlike = (
        _dump_differences(baseline, candidate)
        if baseline.is_dump
        else comparable.differences(baseline.document, candidate.document)
    )
    if unlike:
        raise UsageError(
            f"not comparable: {'; '.join(unlike)}",
            where=f"{baseline.name}, {candidate.name}",
            todo="name two dumps of one workload"
            if baseline.is_dump
            else comparable.way_on(baseline.document, candidate.document),
        )


def _is_same(one: Side, other: Side) -> bool:
    """Tell whether two sides are one dump or record, wherever its copies are; arms of all A/Bs share two ids."""
    if one.is_dump or other.is_dump:
        return one.document == other.document
    return all(one.document[name] == other.document[name] for name in ("id", "started"))


def _dump_differences(baseline: Side, candidate: Side) -> list[str]:
    one, other = baseline.document, candidate.document
    said = {
        "model": (one["meta"]["model"], other["meta"]["model"]),
        "prompt": (one["meta"].get("prompt"), other["meta"].get("prompt")),
        "denoise steps": (len(one["denoise_steps_ms"]), len(other["denoise_steps_ms"])),
        "kind of launch (tag)": (one["tag"], other["tag"]),
    }
    return [f"{name}: {then!r} against {now!r}" for name, (then, now) in said.items() if then != now]


def compare(
    baseline: Side, candidate: Side, margin_percent: float = comparison.DEFAULT_MARGIN_PERCENT
) -> comparison.Comparison:
    """Return the comparison of two sides by their launches' values; ratios below 1 are faster.

    The spread of this cell, if `invoke calibrate` has stored it, decides where the launches alone are too few. Records
    of other hosts or days decide nothing unless the spread between those is stored too.

    Raises:
        UsageError: they are not comparable.
    """
    refuse_unlike(baseline, candidate)
    name = baseline.metric.name
    # what is calibrated is the native engine's noise: it says nothing of diffusers
    is_native = not baseline.is_dump and store.REFERENCE not in (baseline.document["kind"], candidate.document["kind"])
    way = {} if is_native or baseline.is_dump else {"shown_by": "three launches of each side do"}
    if baseline.metric.is_served:
        way = {"shown_by": "`invoke loadtest` of a baseline and a candidate measures pairs"}
    known = unpaired.Circumstances(
        metric=baseline.metric.title,
        noise=calibration.noise(baseline.document, name) if is_native else None,
        apart=None if baseline.is_dump else _apart(baseline.document, candidate.document),
        days=calibration.days(baseline.document, name) if is_native else None,
        requests=(baseline.requests, candidate.requests),
        is_disturbed=not baseline.is_dump and bool(disturbance.between([baseline.document], [candidate.document])),
        **way,
    )
    return unpaired.compare_launches(baseline.launches, candidate.launches, known, margin_percent)


def _apart(baseline: Mapping[str, Any], candidate: Mapping[str, Any]) -> str | None:
    """Return why two records may differ beside the arm, None for one machine within the hour."""
    same = comparable.same_machine(baseline, candidate)
    if not same:
        return "a record does not name its host" if same is None else "other hosts"
    one, other = sorted((baseline, candidate), key=lambda record: datetime.fromisoformat(record["started"]))
    between = datetime.fromisoformat(other["started"]) - datetime.fromisoformat(one["finished"])
    return f"{between.total_seconds() / 3600:.1f} hours" if between > WITHIN else None


def circumstances(baseline: Side, candidate: Side) -> list[str]:
    """Return what else differs between two records and may explain a difference; nothing is known of a perf dump."""
    return [] if baseline.is_dump else comparable.circumstances(baseline.document, candidate.document)


def of_arms(document: Mapping[str, Any], place: Path) -> tuple[Reviewed, Reviewed]:
    """Return the records of a comparison of two arms, held against their evidence, and it against them.

    Each has the launches of the comparison's pairs and no other: one that was cut off may have gone on since.

    Raises:
        RecordEdited: something in the folder ``place`` was edited.
    """
    baseline, candidate = (evidence.read(place / name) for name in ("baseline", "candidate"))
    metric = metrics.named(document["metric"])
    for name, reviewed in (("baseline", baseline), ("candidate", candidate)):
        measured = calibration.by_launch(reviewed.record, metric)
        pairs_of_arm = [pair[name] for pair in document["pairs"]]
        if measured[: len(pairs_of_arm)] != pairs_of_arm:
            evidence.refuse([f"the pairs of the {name} are not its record's requests"], place)
    count = len(document["pairs"])
    first, second = (
        replace(reviewed, record=consistency.of_launches(reviewed.record, count)) for reviewed in (baseline, candidate)
    )
    return first, second


def outputs(baseline: Side, candidate: Side) -> Between:
    """Return the comparison of two sides' outputs; bare perf dumps have none."""
    if baseline.directory is None or candidate.directory is None:
        return pairs.Between(unknown="a bare perf dump has no outputs")
    return between((baseline.document, baseline.directory), (candidate.document, candidate.directory))


def between(baseline: tuple[Mapping[str, Any], Path], candidate: tuple[Mapping[str, Any], Path]) -> Between:
    """Return the comparison of two records' outputs, each with its directory, if their requests are the same."""
    different = comparable.other_requests(baseline[0], candidate[0])
    if different:
        return pairs.Between(unknown=f"the requests differ: {'; '.join(different)}")
    return pairs.compare(
        pairs.Side(name="the baseline", directory=baseline[1], requests=baseline[0]["requests"]),
        pairs.Side(name="the candidate", directory=candidate[1], requests=candidate[0]["requests"]),
    )


def refuse_unscorable(planned: Plan) -> None:
    """Raise UsageError if outputs must be similar to something and nothing is kept that they could be compared with.

    Whether a golden is of this configuration only the launch tells: one of the model is enough here.
    """
    options = planned.options
    if options.require is None or options.update_golden is not None:
        return
    if goldens.are_kept(Path(planned.workload.model_path).name):
        return
    if recording.family(planned) not in baselines.baselines(paths.runs()):
        raise UsageError(
            "--require compares outputs with a golden or the baseline of this workload, and there is neither",
            todo="run once without it, then `invoke baseline.set last`; or keep a golden: --update-golden REASON",
        )


def scored(run: Run, record: Mapping[str, Any]) -> tuple[dict[str, Any], BenchError | None]:
    """Return the fidelity of a valid run's outputs, against the named baseline of its workload too."""
    return score.score(run, record, _named_baseline(record, run.directory))


def _named_baseline(record: Mapping[str, Any], directory: Path) -> score.Baseline:
    root = paths.runs()
    place = baselines.baselines(root).get(comparable.family(record))
    if place is None:
        return score.Baseline(
            unknown="no baseline is named for this workload on these devices (`invoke baseline.set RECORD`)"
        )
    try:
        baseline = evidence.read(root / place).record
    except BenchError as error:
        return score.Baseline(unknown=f"the named baseline cannot be read: {error.what} ({root / place})")
    return score.Baseline(record=baseline["id"], between=between((baseline, root / place), (record, directory)))
