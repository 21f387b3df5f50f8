"""What a person calls a run: `last`, `last~2`, its label, the six digits at the end of its id, or its place."""

from __future__ import annotations

import difflib
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
    from collections.abc import Collection, Iterator, Sequence

LAST = re.compile(r"last(?:~(?P<before>\d+))?")
ENDING = re.compile(r"[0-9a-f]{6}")
RECORDS = (store.RECORD, store.PARTIAL)
WRITTEN = (".json", ".toml")
"""Of documents; whatever is in such a file is for its reader to judge."""
FIRST_BYTES = 4096
GZIP = b"\x1f\x8b"
UNTIMED = frozenset({"profile", "reach", "accuracy"})
"""Kinds of runs whose times are compared with nothing."""
FINISHED = (
    *(store.RECORD, store.LOAD_RECORD, store.ARMS, store.SERVERS),
    *("matrix.json", "bisect.json", "summary.json"),
)
"""What a run, a load test or a campaign leaves at its end."""
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
        UsageError: no run is called so, or it is a file that is not JSON.
    """
    name = str(word)
    if "/" in name or word.suffix[1:].isalpha() or _holds_record(word, holding):
        return _place(word)
    runs = _runs(root or paths.runs(), holding)
    if (last := LAST.fullmatch(name)) is not None:
        counted = [run for run in runs if run.name.split("-")[1] not in passing]
        return _last(counted, int(last["before"] or 0), name, root or paths.runs())
    label = redact.text(name)  # as the record has it
    ending = f"-{store.safe(label)}-"
    for run in runs:
        if run.name == name or (ENDING.fullmatch(name) and run.name.endswith(f"-{name}")):
            return run
        if run.name[: -len("000000")].endswith(ending) and _label(run) == label:
            return run
    if word.exists():
        return _place(word)
    _refuse_unrecorded(name, root or paths.runs())
    labels = {label for run in _runs(root or paths.runs(), holding) if LABEL.fullmatch(label := _label(run) or "")}
    close = difflib.get_close_matches(name, labels, n=1)
    raise UsageError(
        f"no run is called {name!r}",
        where=root or paths.runs(),
        todo=f"did you mean {close[0]}?" if close else KNOWN,
    )


def _holds_record(word: Path, holding: Sequence[str]) -> bool:
    """Tell whether a word is a file or folder of a record here, and not one that only has the name of a label."""
    return _may_be_document(word) if word.is_file() else any((word / name).exists() for name in holding)


def _place(word: Path) -> Path:
    """Return a word as the place that it is.

    Raises:
        UsageError: it is a file that is not JSON.
    """
    if word.is_file() and word.suffix not in WRITTEN and not _may_be_document(word):
        raise UsageError("this file is not JSON, as a record is", where=word, todo=KNOWN)
    return word


def _refuse_unrecorded(name: str, root: Path) -> None:
    """Raise UsageError if a run is called so that was cut off before anything counted: only its log is there."""
    for run in _runs(root, (store.LOG,)):
        is_meant = run.name == name or (ENDING.fullmatch(name) and run.name.endswith(f"-{name}"))
        if is_meant and not any((run / held).exists() for held in (*RECORDS, *FINISHED)):
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
    if place is None or not any((place / name).exists() for name in holding):
        place = resolve(word, FINISHED, root)
    finished = next((place / name for name in FINISHED if (place / name).is_file()), None)
    if finished is not None and not any((place / name).exists() for name in holding):
        document = schema.read(finished)
        if not isinstance(document, dict) or document.get("complete", True):
            look = f"`invoke validate {shlex.quote(called(finished))}` checks it"
            raise UsageError(
                "there is nothing to resume: this is complete",
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


def _runs(root: Path, holding: Sequence[str]) -> Iterator[Path]:
    """Yield the run directories that have one of these files, the newest first."""
    folders = sorted(root.iterdir(), key=lambda folder: folder.name, reverse=True) if root.is_dir() else []
    return (
        folder
        for folder in folders
        if store.RUN.match(folder.name) and any((folder / name).exists() for name in holding)
    )


def _last(runs: Sequence[Path], before: int, name: str, root: Path) -> Path:
    if before < len(runs):
        return runs[before]
    if not runs:
        raise UsageError(
            f"{name} names no run: there is none of this kind",
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
