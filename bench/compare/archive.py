"""The archive of a pull request's dossier: every file that its numbers rest on, with a hash of each."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from typing import TYPE_CHECKING, Any

from bench import files, paths, schema
from bench.compare import ab, records, review
from bench.errors import BenchError, FallbackDetected, RecordEdited, UsageError
from bench.fallback.expectation import NATIVE
from bench.reach import kernels
from bench.reach import run as reach
from bench.record import documents, store

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

MANIFEST, TEXT, SUBJECT = "manifest.json", "pull-request.md", "subject.json"
PROFILE = "profile-diff.md"
"""What a model's traces come to, in its folder."""
MOST_BYTES = 1 << 30
"""Of an archive's content when unpacked."""

ARMS = (ab.BASELINE, ab.CANDIDATE)

WORDING = 2
"""Raised by every change of the texts that are made of an archive: those of an earlier one are not made again."""


def subject(base: str | None = None, head: str | None = None, changes: Sequence[str] | None = None) -> dict[str, Any]:
    """Return what a dossier is about (``schemas/dossier.json``): two revisions and what differs, where it is known."""
    return {"schema": "dossier", "schema_version": WORDING, "base": base, "head": head, "changes": changes}


def read_subject(folder: Path) -> dict[str, Any]:
    """Return what the dossier of an unpacked archive is about.

    Raises:
        InvalidDocument: it violates its schema.
    """
    known: dict[str, Any] = schema.read(folder / SUBJECT)
    schema.check(known, "dossier", SUBJECT)
    return known


def refuse_unproven(folder: Path) -> None:
    """Refuse an A/B whose arms are not both native, whose change never ran, or whose files disagree.

    Raises:
        FallbackDetected: an arm is not native.
        Inconclusive: no changed line ran in any launch, or the change holds no code.
        RecordEdited: record and evidence disagree.
        UsageError: the folder holds no A/B.
    """
    if not (folder / ab.DOCUMENT).is_file():
        raise UsageError("a dossier is made of A/Bs", where=folder, todo="`invoke ab` makes one")
    documents.validate(folder)
    document = schema.read(folder / ab.DOCUMENT)
    if document["schema_version"] != ab.SCHEMA_VERSION or "quality" not in document:
        raise UsageError(
            "an A/B of an earlier version has no dossier", where=folder, todo="measure again with `invoke ab`"
        )
    if not document["complete"]:
        raise UsageError("this A/B was cut off", where=folder, todo="`invoke ab --resume` goes on with it")
    if (known := document.get("reach")) is not None:
        reach.refuse_what_never_ran(known, folder)
        if known.get("kernels"):
            kernels.refuse_edited(known["kernels"], folder / ab.REACH)
    for arm, reviewed in zip(ARMS, records.of_arms(document, folder), strict=True):
        if (outcome := reviewed.record["verdict"]["outcome"]) != NATIVE:
            first = next((f["means"] for f in reviewed.record["verdict"]["findings"] if f["severity"] == outcome), "")
            raise FallbackDetected(f"the {arm} is {outcome}: {first}", where=folder / arm)


def kept(folder: Path) -> Iterator[str]:
    """Yield what of an A/B goes into an archive: documents, logs, perf dumps, traces, and each arm's first output."""
    yield ab.DOCUMENT
    for names in traces(folder).values():
        yield from names
    for arm in ARMS:
        record = store.read(folder / arm)
        yield f"{arm}/{store.RECORD}"
        first = {output["file"] for request in record["requests"][:1] for output in request["outputs"]}
        made = {output["file"] for request in record["requests"] for output in request["outputs"]}
        for entry in record["evidence"] or ():
            name = f"{arm}/{entry['file']}"
            if (entry["file"] in first or entry["file"] not in made) and files.below(folder, [name]).is_file():
                yield name


def traces(folder: Path) -> dict[str, list[str]]:
    """Return the traces of the base and of the head below an A/B's folder; empty where their kernels are not known."""
    known = (schema.read(folder / ab.DOCUMENT).get("reach") or {}).get("kernels")
    found = {} if known is None else kernels.traces(known)
    return {side: [f"{ab.REACH}/{name}" for name in names] for side, names in found.items()}


def write(
    path: Path, folders: Mapping[str, Path], subject: Mapping[str, Any], text: str, profiles: Mapping[str, str]
) -> str:
    """Write an archive of A/Bs by model, with what their traces come to, and return its sha256.

    Raises:
        UsageError: it cannot be written, or is there already.
    """
    schema.check(subject, "dossier", SUBJECT)
    contents = {SUBJECT: json.dumps(subject, indent=2).encode(), TEXT: text.encode()}
    for model, folder in folders.items():
        contents |= {f"{model}/{name}": (folder / name).read_bytes() for name in kept(folder)}
        if model in profiles:
            contents[f"{model}/{PROFILE}"] = profiles[model].encode()
    hashes = {name: paths.sha256_of(data) for name, data in contents.items()}
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {**contents, MANIFEST: json.dumps(hashes, indent=2).encode()}.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)  # no dates: equal content, equal hash
    try:
        with path.open("xb") as file:
            file.write(packed.getvalue())
    except OSError as error:
        raise UsageError(f"cannot be written: {error.strerror}", where=path) from error
    return paths.sha256_of(packed.getvalue())


def unpack(path: Path, folder: Path) -> None:
    """Unpack an archive into an empty folder.

    Raises:
        UsageError: it is not a zip file, is too large, or has a place outside of the folder.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MOST_BYTES:
                raise UsageError("the archive is too large when unpacked", where=path)
            for entry in archive.infolist():
                if not entry.is_dir():
                    place = files.below(folder, [entry.filename])
                    place.parent.mkdir(parents=True, exist_ok=True)
                    place.write_bytes(archive.read(entry))
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        told = getattr(error, "strerror", None) or error  # without the number of the system's error
        raise UsageError(
            f"not an archive that can be read: {told}", where=path, todo="name the one that `invoke evidence` wrote"
        ) from error


def judge(folder: Path) -> tuple[list[str], list[BenchError]]:
    """Return what an unpacked archive shows, one line for each judgement, and everything that is wrong with it."""
    lines: list[str] = []
    if gone := [name for name in (MANIFEST, SUBJECT, TEXT) if not (folder / name).is_file()]:
        return lines, [RecordEdited(f"{name} is gone", where=name) for name in gone]
    faults: list[BenchError] = list(_edited(folder))
    try:
        read_subject(folder)
    except BenchError as error:
        faults.append(error)
    for model in models(folder):
        try:
            refuse_unproven(folder / model)
            lines += [f"{model}: {line}" for line in review.folder(folder / model)]
        except BenchError as error:
            faults.append(error)
    return lines, faults


def _edited(folder: Path) -> Iterator[RecordEdited]:
    """Yield a fault for each file that is not the one of the manifest."""
    named = _manifest(folder)
    there = {place.relative_to(folder).as_posix() for place in folder.rglob("*") if place.is_file()} - {MANIFEST}
    for name in sorted(named.keys() | there):
        if name not in there:
            yield RecordEdited(f"{name} is gone", where=name)
        elif name not in named:
            yield RecordEdited(f"{name} is not in the manifest", where=name)
        elif paths.sha256(folder / name) != named[name]:
            yield RecordEdited(f"{name} was changed: its hash differs", where=name)


def models(folder: Path) -> Sequence[str]:
    """Return the models of an unpacked archive.

    Raises:
        UsageError: there are none, so it is not an archive of this tool.
    """
    found = sorted(path.parent.name for path in folder.glob(f"*/{ab.DOCUMENT}"))
    if not found:
        raise UsageError("no A/B is in this archive", where=folder)
    return found


def _manifest(folder: Path) -> dict[str, str]:
    found = schema.read(folder / MANIFEST)
    return {str(name): str(digest) for name, digest in found.items()} if isinstance(found, dict) else {}
