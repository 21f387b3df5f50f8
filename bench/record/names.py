"""What a person calls a run: `last`, `last~2`, its label, the six digits at the end of its id, or its place."""

from __future__ import annotations

import difflib
import os
import re
import shlex
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import files, paths, redact, schema
from bench.errors import BenchError, UsageError
from bench.options import LABEL
from bench.record import campaign, store

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

LAST = re.compile(r"last(?:~(?P<before>\d+))?")
ENDING = re.compile(r"[0-9a-f]{6}")
RECORDS = (store.RECORD, store.PARTIAL)
WRITTEN = (".json", ".toml")
"""Of documents; whatever is in such a file is for its reader to judge."""
FIRST_BYTES = 4096
GZIP = b"\x1f\x8b"
UNTIMED = frozenset({"profile", "reach", "accuracy"})
"""Kinds of runs whose times are compared with nothing."""
MATRIX, BATCH = "matrix.json", "summary.json"
FINISHED = (
    *(store.RECORD, store.LOAD_RECORD, store.ARMS, store.SERVERS),
    *(MATRIX, "bisect.json", BATCH),
)
"""What a run, a load test or a campaign leaves at its end."""
UNFINISHED = {
    "ab": "an A/B",
    "load": "a load test",
    "load-ab": "an A/B of two servers",
    "bisect": "a bisection",
    "matrix": "a matrix",
    "batch": "a batch of several presets",
}
"""What is unfinished where the state of such a campaign is left."""
OTHERS = {
    campaign.STATE: ("", ""),  # says itself what it is
    store.ARMS: ("an A/B", "`invoke compare {name}` alone shows its verdict; or name an arm: {runs}"),
    store.SERVERS: ("an A/B of two servers", "`invoke compare {name}` shows its verdict"),
    store.LOAD_RECORD: ("a load test", "`invoke report {name}` writes its page"),
    MATRIX: ("a matrix", "name one of its cells: {runs}"),
    BATCH: ("a batch of several presets", "name one of its runs: {runs}"),
    "bisect.json": ("a bisection", "`invoke validate {name}` checks it"),
    "probe.json": ("a probe of a device", "`invoke validate {name}` checks it"),
    "accuracy.json": ("an accuracy report", "`invoke report {name}` writes its page"),
    "reach.json": ("a trace of the lines that run", "`invoke validate {name}` checks it"),
    store.ANALYSIS: ("the analysis of a trace", "`invoke report {name}` writes its page"),
    **dict.fromkeys(RECORDS, ("a single run", "`invoke report {name}` writes its page")),
}
"""What else a folder may hold: in words, and what to do with it."""
LABELLED = (*RECORDS, store.LOAD_RECORD, store.SERVERS, "accuracy.json")
KNOWN = (
    "a run is called last (the newest that the verb takes), last~1 (the one before), by its label, by the last six"
    " digits of its id, or by its place"
)


def resolve(
    word: Path, holding: Sequence[str] = RECORDS, root: Path | None = None, *, passing: Collection[str] = ()
) -> Path:
    """Return the place that a word names: a file or folder as it is, else the newest run that is called so.

    Only runs that have one of the files of ``holding`` are looked at; ``root`` is where run directories are. ``last``
    passes over runs of the kinds of ``passing``, such as profile: they have to be named.

    Raises:
        UsageError: no run is called so, it is another kind of record, or a file that is not JSON.
    """
    name = str(word)
    if "/" in name or word.suffix[1:].isalpha() or _holds_record(word, holding):
        return _place(word, holding)
    runs = _runs(root or paths.runs(), holding)
    if (last := LAST.fullmatch(name)) is not None:
        counted = [run for run in runs if run.name.split("-")[1] not in passing]
        return _last(counted, int(last["before"] or 0), name, root or paths.runs())
    if (found := next((run for run in runs if _has_id(run, name) or _has_label(run, name)), None)) is not None:
        return found
    if word.exists():
        return _place(word, holding)
    below = [run for run in _below(root or paths.runs()) if _has_id(run, name)]
    if (found := next((run for run in below if _holds(run, holding)), None)) is not None:
        return found
    _refuse_unrecorded(name, root or paths.runs())
    others = (
        run for run in (*_runs(root or paths.runs(), OTHERS), *below) if _has_id(run, name) or _has_label(run, name)
    )
    if (error := next(filter(None, map(other_kind, others)), None)) is not None:
        raise error
    labels = {label for run in _runs(root or paths.runs(), holding) if LABEL.fullmatch(label := _label(run) or "")}
    close = difflib.get_close_matches(name, labels, n=1)
    raise UsageError(
        f"no run is called {name!r}",
        where=root or paths.runs(),
        todo=f"did you mean {close[0]}?" if close else KNOWN,
    )


def other_kind(folder: Path) -> UsageError | None:
    """Return the error for a folder that a verb does not take: what it is and what can be done with it.

    None if nothing was measured there.
    """
    name = shlex.quote(called(folder))
    if (folder / campaign.STATE).is_file():
        state = campaign.read(folder, *campaign.KINDS)
        verb, going_on = campaign.KINDS[state["kind"]][0], campaign.is_going_on(folder)
        return UsageError(
            f"this is {UNFINISHED[state['kind']]} that {'is going on' if going_on else 'was cut off'}",
            where=folder,
            todo="wait for its end" if going_on else f"`invoke {verb} --resume {name}` goes on with it",
        )
    held = next((held for held in OTHERS if (folder / held).is_file()), None)
    if held is None:
        return None
    what, todo = OTHERS[held]
    return UsageError(
        f"this is {what}", where=folder, todo=todo.format(name=name, runs=", ".join(_parts(folder, held)))
    )


def _parts(folder: Path, held: str) -> list[str]:
    """Return the names of the runs that a folder with several consists of, none where its document is broken."""
    with suppress(BenchError, KeyError, TypeError):
        if held == store.ARMS:
            return [paths.typed(folder / arm) for arm in ("baseline", "candidate")]
        if held == MATRIX:
            return [
                paths.typed(folder / cell["name"]) for cell in schema.read(folder / held)["cells"] if cell["record"]
            ]
        if held == BATCH:
            return [called(Path(row["record"])) for row in schema.read(folder / held)["rows"] if row["record"]]
    return []


def _holds(folder: Path, holding: Iterable[str]) -> bool:
    return any((folder / name).exists() for name in holding)


def _has_id(run: Path, name: str) -> bool:
    return run.name == name or (ENDING.fullmatch(name) is not None and run.name.endswith(f"-{name}"))


def _has_label(run: Path, name: str) -> bool:
    label = redact.text(name)  # as the record has it
    return run.name[: -len("000000")].endswith(f"-{store.safe(label)}-") and _label(run) == label


def _holds_record(word: Path, holding: Sequence[str]) -> bool:
    """Tell whether a word is a file or folder of a record here, and not one that only has the name of a label."""
    return _may_be_document(word) if word.is_file() else _holds(word, holding)


def _place(word: Path, holding: Sequence[str]) -> Path:
    """Return a word as the place that it is.

    Raises:
        UsageError: it is a file that is not JSON, or the folder of another kind of record.
    """
    is_other = not _holds(word, holding) if word.is_dir() else word.name in OTHERS.keys() - {*holding, campaign.STATE}
    if word.exists() and is_other and (error := other_kind(word if word.is_dir() else word.parent)) is not None:
        raise error
    if word.is_file() and word.suffix not in WRITTEN and not _may_be_document(word):
        raise UsageError("this file is not JSON, as a record is", where=word, todo=KNOWN)
    return word


def _refuse_unrecorded(name: str, root: Path) -> None:
    """Raise UsageError if a run is called so that was cut off before anything counted: only its log is there."""
    for run in _runs(root, (store.LOG,)):
        if _has_id(run, name) and not _holds(run, (*RECORDS, *FINISHED)):
            raise UsageError(
                "this folder has no record, only the engine's log: the run ended before a request counted",
                where=run,
                todo=f"`invoke attest --log {shlex.quote(paths.typed(run / store.LOG))}` judges the log; measure again",
            )


def cut_off(word: Path, holding: Sequence[str], root: Path | None = None) -> Path:
    """Return the place of what a word names and that can go on: it has one of the files of ``holding``.

    Raises:
        UsageError: nothing is called so, it is complete, or what was cut off there left nothing to go on with.
    """
    place = None
    with suppress(UsageError):
        place = resolve(word, holding, root)
    if place is None or not _holds(place, holding):
        place = resolve(word, (*FINISHED, store.PARTIAL), root)
    finished = next((place / name for name in FINISHED if (place / name).is_file()), None)
    if finished is not None and not _holds(place, holding):
        document = schema.read(finished)
        if not isinstance(document, dict) or document.get("complete", True):
            look = f"`invoke validate {shlex.quote(called(finished))}` checks it"
            raise UsageError(
                "there is nothing to resume: this run is complete",
                where=finished,
                todo=f"leave --resume out to measure again; {look}",
            )
        failure = document.get("failure") or {"what": "it did not end as planned"}
        raise UsageError(
            f"this cannot be resumed: {failure['what']}", where=finished, todo="the same command again measures anew"
        )
    return place


def called(place: Path) -> str:
    """Return the shortest name of a run: its six digits where they are looked up, else its place as typed."""
    folder = (place if place.is_dir() else place.parent).resolve()
    return folder.name[-6:] if folder.parent == paths.runs().resolve() else paths.typed(place)


def placed(word: str) -> str:
    """Return the absolute place of what a word names, which means the same in any working directory.

    Raises:
        UsageError: no run is called so.
    """
    return str(resolve(Path(word).expanduser()).absolute())


def _may_be_document(path: Path) -> bool:
    """Tell whether a file begins as JSON does or is packed, as a trace may be; the rest is for its reader to judge."""
    with files.opened(path) as file:
        begin = file.read(FIRST_BYTES)
    return begin.startswith(GZIP) or b"\0" in begin or begin.lstrip().startswith((b"{", b"["))


def _runs(root: Path, holding: Iterable[str]) -> Iterator[Path]:
    """Yield the run directories that have one of these files, the newest first."""
    folders = sorted(root.iterdir(), key=lambda folder: folder.name, reverse=True) if root.is_dir() else []
    return (folder for folder in folders if store.RUN.match(folder.name) and _holds(folder, holding))


def _below(root: Path) -> Iterator[Path]:
    """Yield the run directories inside other folders: of a sweep's cells, a bisection, a tour."""
    for place, folders, files_there in os.walk(root):
        if not {*RECORDS, store.LOAD_RECORD}.isdisjoint(files_there):
            folders.clear()  # a run's own folder
        yield from (Path(place, name) for name in folders if store.RUN.match(name))


def _last(runs: Sequence[Path], before: int, name: str, root: Path) -> Path:
    if before < len(runs):
        return runs[before]
    if not runs:
        raise UsageError(
            f"{name} names no run: no run of this kind was found",
            where=root,
            todo="name a run by its place, or make one: `invoke bench --model flux-tiny`",
        )
    counted = "there is 1 run" if len(runs) == 1 else f"there are {len(runs)} runs"
    oldest = f"last~{len(runs) - 1}" if len(runs) > 1 else "last"
    raise UsageError(
        f"{name} reaches too far back: {counted} of this kind",
        where=root,
        todo=f"{oldest} is the oldest; a run can also be named by its label, its last six digits or its place",
    )


def _labelled(document: Any) -> Any:
    """Return what has the label: a record itself, and of a campaign that was cut off the options of its runs."""
    if document.get("schema") != "campaign":
        return document
    options = document["asked"].get("options", document["asked"])
    return options.get("run", options)


def _label(run: Path) -> str | None:
    """Return the label of a run, None if it has none or nothing of it can be read."""
    places = (*(run / name for name in LABELLED), *sorted(run.glob(f"*/{store.RECORD}")), run / campaign.STATE)
    for place in places:
        try:
            label = _labelled(schema.read(place)).get("label")
        except (BenchError, AttributeError, KeyError):
            continue
        return None if label is None else str(label)
    return None
