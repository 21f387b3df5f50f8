"""A record held against its own evidence: are its files those that it names, and do they give its verdict and figures?

The guard that watched the launch judges the log again, and the figures are computed again from the perf dumps. What no
file holds rests on the record alone: the client's clock (`wall_s`, `load_s`, `first_answer_s`), the device during the
launch, and intervals, which a comparison computes anew from the requests.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from bench import files, paths
from bench.engine import command as commands
from bench.errors import BY_EXIT_CODE, RecordEdited, UsageError
from bench.fallback import attest, receipts
from bench.fallback import dump as dumps
from bench.fallback import outputs as made
from bench.fallback.expectation import SERVER, Expectation
from bench.fallback.guard import Guard
from bench.fallback.outputs import Output
from bench.fallback.verdict import OUTCOMES, Verdict, conclude
from bench.record import store
from bench.run import request as requests
from bench.run.consistency import contradictions
from bench.run.timings import stage_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bench.record.types import File

    Document = Mapping[str, Any]

SHOWN = 3
ALONE = "numbers taken from the record alone"
MODEL = "--model-path="


@dataclass(frozen=True, slots=True, kw_only=True)
class Reviewed:
    """A record that its evidence does not contradict, and the files of it that are gone."""

    record: Mapping[str, Any]
    gone: tuple[str, ...] = ()
    rests_on_itself: bool = False
    """Whether a log or perf dump is gone, or none was ever named."""

    def note(self, *, of_page: bool = False) -> str | None:
        """Return what a reader has to know, None if all evidence is there; a page never has the outputs."""
        if of_page and self.gone and not self.rests_on_itself:
            return "outputs are not in the page and were not checked"
        if not self.gone:
            return f"{ALONE}: a record of version 1 does not list its evidence" if self.rests_on_itself else None
        more = f" and {len(self.gone) - SHOWN} more" if len(self.gone) > SHOWN else ""
        lost = f"{', '.join(self.gone[:SHOWN])}{more} {'is' if len(self.gone) == 1 else 'are'} gone"
        return f"{ALONE}: {lost}" if self.rests_on_itself else lost


def read(path: Path) -> Reviewed:
    """Return the record in a file or run directory, held against its evidence.

    Raises:
        RecordEdited: record and evidence disagree; or the error of the verdict that the evidence gives.
        InvalidDocument: it is not a record.
    """
    record = store.read(path)
    return review(record, path if path.is_dir() else path.parent)


def review(record: Document, directory: Path) -> Reviewed:
    """Return a record, held against the files in its run directory.

    Raises:
        what `read` raises.
    """
    refuse(contradictions(record), directory)
    if record["evidence"] is None:
        return Reviewed(record=record, rests_on_itself=True)
    gone = hold_files(record, directory)
    _judge_again(record, directory, gone)
    outputs = {output["file"] for request in record["requests"] for output in request["outputs"]}
    return Reviewed(record=record, gone=gone, rests_on_itself=not outputs.issuperset(gone))


def hold_files(record: Document, directory: Path) -> tuple[str, ...]:
    """Return which of the files that a record names are gone.

    Raises:
        RecordEdited: one has another content.
    """
    growing = _growing(record)
    places = {entry["file"]: _place(directory, entry["file"]) for entry in record["evidence"]}
    gone = tuple(name for name, path in places.items() if not path.is_file())
    refuse(
        [
            f"{entry['file']} was changed: its hash differs"
            for entry in record["evidence"]
            if entry["file"] not in (*gone, *growing) and not _is_same(places[entry["file"]], entry)
        ],
        directory,
    )
    return gone


def refuse(differences: Sequence[str], where: Path) -> None:
    """Raise RecordEdited, naming what differs, if anything does."""
    if differences:
        more = f"; and {len(differences) - SHOWN} more" if len(differences) > SHOWN else ""
        raise RecordEdited(
            f"record and evidence disagree: {'; '.join(differences[:SHOWN])}{more}",
            where=where,
            todo="one of them was edited after the run: measure again",
        )


def refuse_changed(path: Path) -> None:
    """Raise RecordEdited for a file that the record of its run names with another content."""
    path = path.absolute()
    for folder in (path.parent, *path.parents[1:3]):
        for name in (store.RECORD, store.PARTIAL):
            if (folder / name).is_file():
                record = store.read(folder)
                named = {entry["file"]: entry for entry in record["evidence"] or ()}
                entry = named.get(path.relative_to(folder).as_posix())
                if entry is not None and entry["file"] not in _growing(record) and not _is_same(path, entry):
                    refuse([f"{entry['file']} was changed: its hash differs"], folder)
                return


def is_going_on(record: Document, launch: Document) -> bool:
    """Tell whether a launch had not ended when its record was written, so that its log went on."""
    return not record["complete"] and launch["exit_code"] is None and launch["stopped"] is None


def _growing(record: Document) -> set[str]:
    """Return the files that were still written to when the record was: of a load test all, their readers hold them."""
    going_on = [launch for launch in record["launches"] if is_going_on(record, launch)]
    if record["kind"] == "load":
        cut_off = not record["complete"]
        return {entry["file"] for entry in record["evidence"] if cut_off and (going_on or entry == record["rows"])}
    return {launch["log"]["file"] for launch in going_on if launch["log"] is not None}


def _place(directory: Path, name: str) -> Path:
    try:
        return files.below(directory, [name])
    except UsageError as error:
        raise RecordEdited(f"{name} is named as evidence but lies outside the run's folder", where=directory) from error


def _is_same(path: Path, entry: File) -> bool:
    return path.stat().st_size == entry["size_bytes"] and paths.sha256(path) == entry["sha256"]


def _judge_again(record: Document, directory: Path, gone: Sequence[str]) -> None:
    """Hold a record against its evidence; a launch without its log, or a request without its dump, is left out.

    Raises:
        what `read` raises.
    """
    served: dict[int, list[Document]] = {}
    outputs: dict[int, list[Sequence[Document]]] = {}
    differences = []
    for request in record["requests"]:
        if request["perf_dump"]["file"] in gone:
            continue
        dump = dumps.load(directory / request["perf_dump"]["file"])
        served.setdefault(request["launch"], []).append(dump)
        outputs.setdefault(request["launch"], []).append(request["outputs"])
        for name, value in requests.figures(dump).items():
            if value != request[name]:
                differences.append(f"{name} of request {request['index']}: the perf dump has different numbers")
    table = record["stages"]
    if table is not None and (of_stages := _staged(record, directory, gone)):
        served[table["launch"]] = of_stages
        numbers = [{"launch": table["launch"], **requests.figures(dump)} for dump in of_stages]
        if stage_table(numbers, table["instrument"]) != table:
            differences.append("the perf dumps of its launch give a different stage table")
    refuse(differences, directory)
    for launch in record["launches"]:
        index = launch["index"]
        if index in served and launch["log"] is not None and launch["log"]["file"] not in gone:
            judge_launch(record, launch, directory, served[index], outputs.get(index, []))


def _staged(record: Document, directory: Path, gone: Sequence[str]) -> list[Document]:
    """Return the perf dumps of the launch that the stage table comes from; none if one is gone."""
    folder = f"launch-{record['stages']['launch']}/"
    named = [
        entry["file"]
        for entry in record["evidence"]
        if entry["file"].startswith(folder) and entry["file"].endswith(f"/{commands.PERF_DUMP}")
    ]
    return [] if set(named) & set(gone) else [dumps.load(directory / name) for name in named]


def judge_launch(
    record: Document,
    launch: Document,
    directory: Path,
    served: Sequence[Document],
    outputs: Sequence[Sequence[Document]],
) -> dict[str, Any]:
    """Hold what a record says of a launch against its log, perf dumps and outputs; return what the log says it ran.

    Raises:
        BenchError: they make it invalid, with the exit code that the run would have had.
        RecordEdited: they make it degraded, or the log tells of another workload.
    """
    guard = Guard(_expectation(record, launch), stop=False)
    guard.note(launch["command"]["argv"], launch["command"]["environment"])
    log = directory / launch["log"]["file"]
    attest.listen(guard, log)
    started, finished = (datetime.fromisoformat(launch[name]) for name in ("started", "finished"))
    told_by_log = guard.facts.requests
    against = [
        *(found for dump in served for found in dumps.check(dump, guard.expectation, started, finished, told_by_log)),
        *(found for each in outputs for found in made.check([Output(**output) for output in each], guard.expectation)),
    ]
    judged = conclude(guard, None, against).standing()
    recorded = Verdict.from_document(launch["verdict"]).standing()
    if OUTCOMES.index(judged.outcome) > OUTCOMES.index(recorded.outcome):
        decisive = judged.reasons()[0]
        kind = RecordEdited if judged.counts else BY_EXIT_CODE[judged.exit_code]
        raise kind(
            f"judged again by this workbench: launch {launch['index']} is {judged.outcome}"
            f" ({decisive.id}: {decisive.text}), and its record says {recorded.outcome}",
            where=log,
            todo="measure again: this workbench may know signals that the one that measured did not",
        )
    said = dict(guard.facts.sampling) | {"attention": dict(guard.facts.attention)}
    delivered = {name: said.get(name) for name in launch["delivered"]}
    if delivered != launch["delivered"] and not is_going_on(record, launch):
        refuse([f"the log of launch {launch['index']} says that something else was delivered"], directory)
    return delivered


def _expectation(record: Document, launch: Document) -> Expectation:
    """Return what a launch of a record had to show: `bench.run.plan.expect` from what the record holds."""
    workload, preset = record["workload"], record["preset"]["document"]
    serves = launch["mode"] == SERVER
    model = [word.removeprefix(MODEL) for word in launch["command"]["argv"] if word.startswith(MODEL)]
    return Expectation(
        backend=launch["verdict"]["expected"],
        launch=launch["mode"],
        version=record["engine"]["version"],
        device=record["devices"]["kind"],
        model=model[0] if model else None,
        prompt=workload["prompt"],
        modality=preset.get("modality"),
        seed=None if serves else workload["seed"],  # a server's requests have seeds of their own
        steps=workload["steps"],
        width=workload["width"],
        height=workload["height"],
        frames=workload["frames"],
        guidance=preset.get("guidance"),
        cache=receipts.asks_for_cache(tuple(preset.get("arguments", ())), preset.get("environment", {})),
        gpus=workload["gpus"],
        warmup=serves or workload["warmup"] != "off",
        compile=workload["torch_compile"],
        cuda_graph=workload["cuda_graph"],
        attention_backend=workload["attention_backend"],
        profile=launch["instrument"]["profiler"],
    )
