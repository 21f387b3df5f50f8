"""The page of whatever a folder holds: a run, an A/B, a load test, a profile, an accuracy report."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson

from bench import files, schema
from bench.errors import InvalidDocument, UsageError
from bench.record import documents, names, store
from bench.report import accuracy_page, comparison_page, load_comparison_page, load_page, profile_view, run_page
from bench.run import consistency

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bench.report.page import Page

ARMS, SERVERS, LOAD, ACCURACY = store.ARMS, store.SERVERS, store.LOAD_RECORD, "accuracy.json"
PROFILE = store.ANALYSIS
PAGE = "report.html"
HOLDING = (*names.RECORDS, ARMS, SERVERS, LOAD, ACCURACY, PROFILE)
"""What a folder that has a page may hold."""


EVIDENCE = (".log", ".json", ".jsonl")
"""What of a run's evidence a page embeds: its outputs stay where they are, and are named as gone."""

MOST_BYTES = 16 << 20
"""Of evidence before it is packed; a page of more embeds none and says so by not offering to be judged."""


def _evidence(records: Mapping[str, Mapping[str, Any]], folder: Path) -> dict[str, bytes]:
    """Return logs and perf dumps of records, by the place of each record's folder."""
    found = {}
    for place, record in records.items():
        for entry in record["evidence"] or ():
            name = f"{place}{entry['file']}"
            if name.endswith(EVIDENCE) and (path := files.below(folder, [name])).is_file():
                found[name] = path.read_bytes()
    return found if sum(map(len, found.values())) <= MOST_BYTES else {}


def of(place: Path) -> Page:
    """Return the page of the document in a folder, or in the folder of a file.

    Raises:
        UsageError: no run there has a page.
        InvalidDocument: the document does not conform to its schema.
    """
    folder = place.parent if place.is_file() else place
    if (folder / ARMS).is_file():
        return _arms(folder)
    if (folder / SERVERS).is_file():
        return _servers(folder)
    if (folder / LOAD).is_file() and not (folder / PROFILE).is_file():
        return _load(folder)
    if (folder / ACCURACY).is_file():
        documents.validate(folder / ACCURACY)
        arrays = (folder / "native" / "native.npz", folder / "reference" / "reference.npz")
        return accuracy_page.page(schema.read(folder / ACCURACY), arrays)
    if (folder / PROFILE).is_file():
        documents.validate(folder / PROFILE)
        document = schema.read(folder / PROFILE)
        if any(trace["gpu"] and "judged_step" not in trace["gpu"] for trace in document["traces"]):
            raise UsageError(
                "this profile was analysed by an earlier workbench and lacks what a page shows today",
                where=folder / PROFILE,
                todo="`invoke profile --trace FILE` analyses its trace again",
            )
        return profile_view.view(document)
    if any((folder / name).is_file() for name in names.RECORDS):
        record = store.read(folder)
        return replace(run_page.page(record, folder), evidence=_evidence({"": record}, folder))
    raise UsageError(
        "nothing here has a page" if place.exists() else "no such file or folder",
        where=place,
        todo=f"name a benchmark, an A/B, a load test, a profile or an accuracy report: {names.KNOWN}",
    )


def _arms(folder: Path) -> Page:
    document = documents.arms(folder)
    count = len(document["pairs"])
    records = tuple(consistency.of_launches(store.read(folder / name), count) for name in ("baseline", "candidate"))
    evidence = _evidence({"baseline/": records[0], "candidate/": records[1]}, folder)
    return replace(comparison_page.of_arms(document, (records[0], records[1]), folder), evidence=evidence)


def _load(folder: Path) -> Page:
    documents.validate(folder / LOAD)
    record = schema.read(folder / LOAD)
    try:
        lines = (folder / record["rows"]["file"]).read_bytes().splitlines()
        requests = [orjson.loads(line) for line in lines]
    except (OSError, orjson.JSONDecodeError) as error:
        raise InvalidDocument(f"its rows cannot be read: {error}", where=folder / record["rows"]["file"]) from error
    return replace(load_page.page(record, requests), evidence=_evidence({"": record}, folder))


def _servers(folder: Path) -> Page:
    documents.validate(folder / SERVERS)
    document = schema.read(folder / SERVERS)
    records = {}
    for number in range(1, len(document["pairs"]) + 1):
        for arm in ("baseline", "candidate"):
            place = f"pair-{number}/{arm}/"
            documents.validate(folder / place / LOAD)
            records[place] = schema.read(folder / place / LOAD)
    page = load_comparison_page.page(document, {f"{place}{LOAD}": record for place, record in records.items()})
    return replace(page, evidence=_evidence(records, folder))
