"""The sides of a diff: a report, a report's folder, or a trace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench import schema
from bench.errors import UsageError
from bench.profiling.analysis import analyse

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bench.profiling.analysis import Context

REPORT = "report.json"


def load(path: Path, context: Context | None = None) -> dict[str, Any]:
    """Return the profile report that a path means: read from a report or its folder, made from a trace.

    Raises:
        UsageError: the path does not exist, or the folder has no report.
        InvalidDocument: the file is neither a report nor a trace.
    """
    if path.is_dir():
        if not (path / REPORT).is_file():
            raise UsageError(f"the folder has no {REPORT}", where=path, todo="name a trace, or what `profile` wrote")
        path /= REPORT
    if path.suffix == ".json" and _is_report(path):
        document: dict[str, Any] = schema.read(path)
        schema.check(document, "profile-report", path)
        return document
    return analyse([path], context)


def _is_report(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return b'"schema_version"' in file.read(200)
    except OSError:
        return False  # the trace reader reports what is wrong


def is_same(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Tell whether two traces of reports are one, wherever its copies are."""
    return {**a, "source": {**a["source"], "path": ""}} == {**b, "source": {**b["source"], "path": ""}}


def pair(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the traces of two reports that belong together: of the lowest rank that both have.

    Raises:
        UsageError: they have no rank in common.
    """
    ranks = [{trace["source"]["rank"]: trace for trace in reversed(report["traces"])} for report in (a, b)]
    if len(a["traces"]) == len(b["traces"]) == 1:
        return a["traces"][0], b["traces"][0]
    common = sorted((rank for rank in ranks[0].keys() & ranks[1].keys() if rank is not None), key=int)
    if not common:
        raise UsageError("the reports have no rank in common", todo="compare traces of the same ranks")
    return ranks[0][common[0]], ranks[1][common[0]]
