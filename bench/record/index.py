"""What a folder's records say, in an SQLite file that spares reading each of them again.

The records are the truth: a row holds for a file's modification time and size, and is made anew for another. The file
may be removed at any time, and what cannot be used (broken, of another version, in a folder that cannot be written) is
done without.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

INDEX = ".index.sqlite"
BUSY_SECONDS = 2.0
KEPT_AT_ONCE = 100
"""Answers that are written together: as many at most are asked for again by the next reader if this one is killed."""

TABLE = """create table if not exists files (
    path text not null, question text not null, modified_ns integer not null, size_bytes integer not null,
    answer text, fault text, primary key (path, question)
) without rowid"""


def answers(
    root: Path, name: str, question: str, ask: Callable[[Path], Any]
) -> tuple[list[tuple[Path, Any]], list[tuple[Path, str]]]:
    """Return what ``ask`` says of each file called ``name`` below ``root``, and why others could not be asked.

    ``ask`` reads a file and returns a JSON value, or None for one that does not matter; it is called for files that are
    new or changed. ``question`` names it, and is another for each change of what it answers. Both lists are in the
    order of paths. Links to folders are not followed, and only regular files are asked.
    """
    good: list[tuple[Path, Any]] = []
    faults: list[tuple[Path, str]] = []
    with contextlib.closing(_open(root / INDEX)) as index:
        known = {
            path: (modified, size, answer, fault)
            for path, modified, size, answer, fault in index.execute(
                "select path, modified_ns, size_bytes, answer, fault from files where question = ?", (question,)
            )
        }
        asked: list[tuple[Any, ...]] = []
        for place, status in sorted(_files(root, name)):
            path = root / place
            row = known.pop(place, None)
            if row is None or row[:2] != (status.st_mtime_ns, status.st_size):
                row = (status.st_mtime_ns, status.st_size, *_asked(path, ask))
                asked.append((place, question, *row))
                if len(asked) == KEPT_AT_ONCE:
                    _keep(index, asked)
                    asked.clear()
            if row[3] is not None:
                faults.append((path, row[3]))
            elif (answer := json.loads(str(row[2]))) is not None:
                good.append((path, answer))
        _keep(index, asked, [(place, question) for place in known])
    return good, faults


def _keep(index: sqlite3.Connection, asked: list[tuple[Any, ...]], gone: Sequence[tuple[str, str]] = ()) -> None:
    """Write answers, and remove those of files that are gone."""
    # a folder that cannot be written, or somebody else who writes now: the next reader asks again
    with contextlib.suppress(sqlite3.Error), index:
        index.executemany("insert or replace into files values (?, ?, ?, ?, ?, ?)", asked)
        index.executemany("delete from files where path = ? and question = ?", gone)


def _asked(path: Path, ask: Callable[[Path], Any]) -> tuple[str | None, str | None]:
    try:
        return json.dumps(ask(path)), None
    except BenchError as error:
        return None, error.what


def _files(root: Path, name: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the place below ``root`` and the status of each file of that name that is a file, not a FIFO.

    A folder that has one is not searched further: it is a run's own.
    """
    folders = [""]
    while folders:
        folder = folders.pop()
        try:
            entries = list(os.scandir(root / folder))
        except OSError:
            continue
        with contextlib.suppress(OSError):
            if (
                record := next((entry for entry in entries if entry.name == name and entry.is_file()), None)
            ) is not None:
                yield f"{folder}{name}", record.stat()
                continue
            folders += [f"{folder}{entry.name}/" for entry in entries if entry.is_dir(follow_symlinks=False)]


def _open(path: Path) -> sqlite3.Connection:
    """Return the index, created or replaced if it is unusable; one in memory where the folder cannot hold it."""
    for place in (path, path, None):
        with contextlib.suppress(sqlite3.Error, OSError):
            if place is not None and (place.is_symlink() or (place.exists() and not place.is_file())):
                continue
            index = sqlite3.connect(":memory:" if place is None else place, timeout=BUSY_SECONDS)
            try:
                index.execute(TABLE)
                index.execute("select path, question, modified_ns, size_bytes, answer, fault from files limit 1")
                index.execute("pragma quick_check(1)")
            except sqlite3.OperationalError:  # locked, or read-only: it is left as it is
                index.close()
                raise
            except sqlite3.DatabaseError:
                index.close()
                if place is not None:
                    place.unlink()
                raise
            return index
    raise AssertionError("SQLite always has memory")
