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
from bench.record import documents, store

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

MANIFEST, TEXT, SUBJECT = "manifest.json", "pull-request.md", "subject.json"
MOST_BYTES = 1 << 30
"""Of an archive's content when unpacked."""

ARMS = (ab.BASELINE, ab.CANDIDATE)


def refuse_unproven(folder: Path) -> None:
    """Refuse an A/B whose arms are not both native, or whose files disagree.

    Raises:
        FallbackDetected: an arm is not native.
        RecordEdited: record and evidence disagree.
        UsageError: the folder holds no A/B.
    """
    if not (folder / ab.DOCUMENT).is_file():
        raise UsageError("a dossier is made of A/Bs", where=folder, todo="`invoke ab` makes one")
    documents.validate(folder)
    for arm, reviewed in zip(ARMS, records.of_arms(schema.read(folder / ab.DOCUMENT), folder), strict=True):
        if (outcome := reviewed.record["verdict"]["outcome"]) != NATIVE:
            first = next((f["means"] for f in reviewed.record["verdict"]["findings"] if f["severity"] == outcome), "")
            raise FallbackDetected(f"the {arm} is {outcome}: {first}", where=folder / arm)


def kept(folder: Path) -> Iterator[str]:
    """Yield what of an A/B goes into an archive: documents, logs, perf dumps, and the first output of each arm."""
    yield ab.DOCUMENT
    for arm in ARMS:
        record = store.read(folder / arm)
        yield f"{arm}/{store.RECORD}"
        first = {output["file"] for request in record["requests"][:1] for output in request["outputs"]}
        made = {output["file"] for request in record["requests"] for output in request["outputs"]}
        for entry in record["evidence"] or ():
            name = f"{arm}/{entry['file']}"
            if (entry["file"] in first or entry["file"] not in made) and files.below(folder, [name]).is_file():
                yield name


def write(path: Path, folders: Mapping[str, Path], subject: Mapping[str, Any], text: str) -> str:
    """Write an archive of A/Bs by model and return its sha256.

    Raises:
        UsageError: it cannot be written, or is there already.
    """
    contents = {SUBJECT: json.dumps(subject, indent=2).encode(), TEXT: text.encode()}
    for model, folder in folders.items():
        contents |= {f"{model}/{name}": (folder / name).read_bytes() for name in kept(folder)}
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
        raise UsageError(f"not an archive that can be read: {error}", where=path) from error


def judge(folder: Path) -> tuple[list[str], list[BenchError]]:
    """Return what an unpacked archive shows, one line for each judgement, and everything that is wrong with it."""
    faults: list[BenchError] = []
    lines: list[str] = []
    named = _manifest(folder)
    there = {place.relative_to(folder).as_posix() for place in folder.rglob("*") if place.is_file()} - {MANIFEST}
    for name in sorted(named.keys() | there):
        if name not in there:
            faults.append(RecordEdited(f"{name} is gone", where=name))
        elif name not in named:
            faults.append(RecordEdited(f"{name} is not in the manifest", where=name))
        elif paths.sha256(folder / name) != named[name]:
            faults.append(RecordEdited(f"{name} has another hash", where=name))
    for model in models(folder):
        try:
            refuse_unproven(folder / model)
            lines += [f"{model}: {line}" for line in review.folder(folder / model)]
        except BenchError as error:
            faults.append(error)
    return lines, faults


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
    if not (folder / MANIFEST).is_file():
        return {}
    found = schema.read(folder / MANIFEST)
    return {str(name): str(digest) for name, digest in found.items()} if isinstance(found, dict) else {}
