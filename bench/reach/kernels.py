"""The kernels of a change's two sides: what a traced request of each ran in its denoise steps.

Names and counts alone: the profile diff weighs times too, and needs a GPU for that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench import files, paths
from bench.errors import BenchError, EngineFailed, RecordEdited
from bench.profiling import proof
from bench.run import benchmark, traced
from bench.run.session import LEFT_OUT, Course

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bench.process import Observer
    from bench.run.plan import Plan


FOLDERS = {"base": "kernels-base", "head": "kernels"}
"""Where the launch of each side is, below the folder of a reach record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What one side ran: each kernel and operator with how often, and the launch as a record holds it."""

    counts: Mapping[str, int]
    launch: dict[str, Any]


def take(planned: Plan, directory: Path, display: Observer | None = None) -> Ran:
    """Start the engine once, trace one request after one that warms up, and return what it ran; neither is timed.

    ``directory``, which is made, keeps the trace.

    Raises:
        BenchError: the launch does not count, or its trace cannot be read.
    """
    directory.mkdir(parents=True)
    profiled, steps = traced.planned(planned, directory, stage_sync=True), benchmark.steps_to_trace(planned)
    running = benchmark.begin(profiled, directory=directory, kind="reach")
    following = iter((None, None, "one request to warm up and one that was traced"))
    course = Course(
        enough=lambda _: next(following),
        is_timing=lambda _: False,
        sampling=lambda number: {} if number == LEFT_OUT else traced.sampling(steps),
    )
    if (error := benchmark.session(running, course, display)) is not None:
        raise error
    counts = proof.read(traced.traces(directory)).kernels
    if not counts:
        raise EngineFailed("the trace shows no denoise step", where=directory / traced.TRACES)
    known = traced.document(directory, directory / "launch-1" / "request-001", steps)
    launch = running.launches[0]
    return Ran(
        counts=counts,
        launch={"command": launch["command"], "verdict": launch["verdict"], "traces": known["traces"]},
    )


def compared(base: Ran, head: Ran) -> dict[str, Any]:
    """Return what appeared, vanished, or ran another number of times, as a document holds it."""
    changes = differing(base.counts, head.counts)
    document = {
        "unknown": None,
        "launches": {"base": base.launch, "head": head.launch},
        "names": len(base.counts.keys() | head.counts.keys()),
        "changes": changes,
    }
    return {**document, "sentence": sentence(document)}


def traces(document: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the traces of each side, as a document names them, below the folder of a reach record; none if unknown."""
    launches = document["launches"] or {}
    return {
        side: [f"{FOLDERS[side]}/{entry['file']}" for entry in launch["traces"]] for side, launch in launches.items()
    }


def refuse_edited(document: Mapping[str, Any], folder: Path) -> None:
    """Raise RecordEdited unless a document follows from the traces in the folder of a reach record, and they from it.

    Raises:
        RecordEdited: a trace is gone or was changed, or the document says something else than the traces, or anything
            about kernels that were not traced.
    """
    if (launches := document["launches"]) is None:
        if document["unknown"] is None or document != unknown(document["unknown"]):
            raise RecordEdited("something is said of kernels that were not traced", where=folder)
        return
    sides = {}
    for side, names in traces(document).items():
        for name, entry in zip(names, launches[side]["traces"], strict=True):
            place = files.below(folder, [name])
            if not place.is_file() or paths.sha256(place) != entry["sha256"]:
                raise RecordEdited(f"{name} is not the trace that was recorded", where=place)
        try:
            counts = proof.read([folder / name for name in names]).kernels
        except BenchError as error:
            raise RecordEdited(f"a trace cannot be read: {error.what}", where=folder / names[0]) from error
        sides[side] = Ran(counts=counts, launch=launches[side])
    if document != compared(**sides):
        raise RecordEdited("the kernels that differ do not follow from the traces", where=folder)


def unknown(why: str) -> dict[str, Any]:
    """Return the document of kernels that could not be traced."""
    document: dict[str, Any] = {"unknown": why, "launches": None, "names": 0, "changes": []}
    return {**document, "sentence": sentence(document)}


def differing(base: Mapping[str, int], head: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return the kernels and operators that one side ran more often, those that it alone ran first."""
    rows = [{"name": name, "base": base.get(name, 0), "head": head.get(name, 0)} for name in base.keys() | head.keys()]
    found = [row for row in rows if row["base"] != row["head"]]
    return sorted(found, key=lambda row: (bool(row["base"] and row["head"]), row["name"]))


def sentence(document: Mapping[str, Any]) -> str:
    """Return in one sentence which kernels differ."""
    if document["unknown"] is not None:
        return f"kernels: unknown, {document['unknown']}"
    names, changes = document["names"], document["changes"]
    what = f"the {names} kernels and operators of the traced denoise steps"
    if not changes:
        return f"kernels: both sides ran {what} equally often"
    appeared = sum(not row["base"] for row in changes)
    vanished = sum(not row["head"] for row in changes)
    counts = (
        (appeared, "appeared"),
        (vanished, "vanished"),
        (len(changes) - appeared - vanished, "ran more or less often"),
    )
    return f"kernels: of {what} {', '.join(f'{count} {said}' for count, said in counts if count)}"
