"""Compare what was measured earlier: run records, or two bare perf dumps of the engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench import paths, schema
from bench.compare import calibration
from bench.errors import BenchError, InvalidPerfDump, UsageError
from bench.fidelity import pairs, score
from bench.record import baselines, comparable, store
from bench.run import metrics, timings
from bench.stats import unpaired

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bench.fidelity.pairs import Between
    from bench.run.state import Run
    from bench.stats.comparison import Comparison


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """What is compared: its name, the document, and one denoise time in ms for each launch."""

    name: str
    document: Mapping[str, Any]
    is_dump: bool
    launches_ms: tuple[float, ...]
    requests: int = 1
    """How many requests each of these is the median of, at least."""
    directory: Path | None = None
    """Where a record's outputs are; None for a bare dump."""


def read(path: Path) -> Side:
    """Return a run record (a file or a run directory) or a bare perf dump as one side of a comparison.

    Raises:
        UsageError: it cannot be read, is not complete, does not count, or has no denoise time.
        InvalidDocument: it is neither.
        InvalidPerfDump: it is a broken dump.
    """
    if path.is_dir() or _is_record(path):
        document = store.read(path)
        if document["timings"] is None:
            raise UsageError(
                "this run does not count: its verdict is invalid, so it has no number to compare", where=path
            )
        if not document["complete"]:
            raise UsageError(
                "this run was cut off, or is going on", where=path, todo=f"`invoke bench --resume {path}`, then compare"
            )
        by_launch: dict[int, list[Mapping[str, Any]]] = {}
        for request in document["requests"]:
            by_launch.setdefault(request["launch"], []).append(request)
        values = tuple(timings.median_of(group, timings.PRIMARY) for group in by_launch.values())
        directory = path if path.is_dir() else path.parent
        return Side(
            name=str(path),
            document=document,
            is_dump=False,
            launches_ms=values,
            requests=min(map(len, by_launch.values())),
            directory=directory,
        )
    dump = schema.read(path, InvalidPerfDump)
    schema.check(dump, "perf-dump", path, InvalidPerfDump)
    denoise = metrics.denoise_ms(dump)
    if denoise is None:
        raise UsageError("the dump has no native denoising stage: there is no denoise time to compare", where=path)
    return Side(name=str(path), document=dump, is_dump=True, launches_ms=(denoise,))


def _is_record(path: Path) -> bool:
    if not path.is_file():
        raise UsageError("no such file", where=path)
    document = schema.read(path)
    return isinstance(document, dict) and document.get("schema") == "run-record"


def refuse_unlike(baseline: Side, candidate: Side) -> None:
    """Raise UsageError, naming the fields, unless the two sides are of one workload on one kind of machine."""
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
            todo="measure both on one workload and machine: `invoke ab`",
        )


def _dump_differences(baseline: Side, candidate: Side) -> list[str]:
    one, other = baseline.document, candidate.document
    said = {
        "model": (one["meta"]["model"], other["meta"]["model"]),
        "prompt": (one["meta"].get("prompt"), other["meta"].get("prompt")),
        "denoise steps": (len(one["denoise_steps_ms"]), len(other["denoise_steps_ms"])),
        "kind of launch (tag)": (one["tag"], other["tag"]),
    }
    return [f"{name}: {then!r} against {now!r}" for name, (then, now) in said.items() if then != now]


def compare(baseline: Side, candidate: Side) -> Comparison:
    """Return the comparison of two sides by their launches' denoise times; ratios below 1 are faster.

    The noise of this cell, if `invoke calibrate` has stored it, decides where the launches alone are too few.

    Raises:
        UsageError: they are not comparable.
    """
    refuse_unlike(baseline, candidate)
    history = None if baseline.is_dump else calibration.noise(baseline.document)
    return unpaired.compare_launches(
        baseline.launches_ms,
        candidate.launches_ms,
        history=history,
        requests=(baseline.requests, candidate.requests),
    )


def outputs(baseline: Side, candidate: Side) -> Between:
    """Return the comparison of two sides' outputs; bare perf dumps have none."""
    if baseline.directory is None or candidate.directory is None:
        return pairs.not_compared("a bare perf dump has no outputs")
    return between((baseline.document, baseline.directory), (candidate.document, candidate.directory))


def between(baseline: tuple[Mapping[str, Any], Path], candidate: tuple[Mapping[str, Any], Path]) -> Between:
    """Return the comparison of two records' outputs, each with its directory, if their requests are the same."""
    different = comparable.other_requests(baseline[0], candidate[0])
    if different:
        return pairs.not_compared(f"the requests differ: {'; '.join(different)}")
    return pairs.compare(
        pairs.Side(name="the baseline", directory=baseline[1], requests=baseline[0]["requests"]),
        pairs.Side(name="the candidate", directory=candidate[1], requests=candidate[0]["requests"]),
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
        baseline = store.read(root / place)
    except BenchError as error:
        return score.Baseline(unknown=f"the named baseline cannot be read: {error.what} ({root / place})")
    return score.Baseline(record=baseline["id"], between=between((baseline, root / place), (record, directory)))
