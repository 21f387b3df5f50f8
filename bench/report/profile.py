"""Write a profile report or diff to a folder: the document, which is the truth, and its Markdown and HTML forms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench import schema
from bench.errors import UsageError
from bench.report import page, profile_diff
from bench.stats.comparison import limits

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bench.report.page import Page


def write(document: Mapping[str, Any], view: Page, directory: Path) -> tuple[Path, ...]:
    """Write ``report.json``, ``report.md`` and ``report.html``; return their paths. The folder must be there.

    Raises:
        InvalidDocument: the document violates ``schemas/profile-report.json``.
        UsageError: a file is there already, or cannot be written.
    """
    schema.write(document, "profile-report", directory / "report.json")
    forms = {"report.md": page.markdown(view), "report.html": page.html(view)}
    return (directory / "report.json", *_write(forms, directory))


def tried(document: Mapping[str, Any]) -> str:
    """Return a sentence on an action that was tried: predicted against achieved, of a step and of a request."""
    predicted, achieved, interval = document["predicted"], document["achieved"], document["interval"]
    reach = "too few pairs for an interval"
    if interval is not None:
        reach = limits(interval["low"]["percent"], interval["high"]["percent"])
    return (
        f"tried {document['arm']}: predicted to save at most {predicted['saving_ms']:.2f} ms a step "
        f"({predicted['percent']:.2f} % of a request), achieved {achieved['saving_ms']:+.2f} ms "
        f"({achieved['percent']:+.2f} %; {reach}) in {document['pairs']} pair(s): {document['verdict']}"
    )


def write_diff(document: Mapping[str, Any], directory: Path) -> tuple[Path, ...]:
    """Write ``diff.json`` and ``diff.md``; return their paths. The folder must be there.

    Raises:
        InvalidDocument: the document violates ``schemas/profile-diff.json``.
        UsageError: a file is there already, or cannot be written.
    """
    schema.write(document, "profile-diff", directory / "diff.json")
    return (directory / "diff.json", *_write({"diff.md": profile_diff.markdown(document)}, directory))


def _write(forms: Mapping[str, str], directory: Path) -> list[Path]:
    written = []
    for name, text in forms.items():
        path = directory / name
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise UsageError(
                f"cannot be written: {error.strerror}", where=path, todo="choose another folder"
            ) from error
        written.append(path)
    return written
