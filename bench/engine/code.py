"""The code that an engine runs, by the hash of every file that it may load.

A version, a commit or a clean `git status` do not tell: a file may be edited between two launches, ignored by git or
marked unchanged, and an installed engine may be a checkout. Listing what the engine has imported would take code of
ours inside each of its processes; its folders, read before and after each launch, hold all of that, and change nothing.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.engine import registry
from bench.fallback import finding as f
from bench.fallback.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from bench.fallback.finding import Component

SUFFIXES = (
    ".py", ".pyx", ".so", ".cu", ".cuh", ".hip", ".c", ".cc", ".cpp", ".h", ".hpp", ".s", ".json", ".yaml", ".toml",
    ".jinja", ".jinja2",
)  # fmt: skip
"""What Python loads, what is compiled at run time, and the tables that kernels are chosen by."""

SHOWN = 3

Stamp = tuple[int, int, int]
"""Size, modification time in ns and inode. Not the time of the last change: a new link to a file sets that too."""

_hashes: dict[str, tuple[Stamp, str]] = {}
"""By path: a file whose stamp has not changed is not read again by this process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """Files of an engine at one moment: by name, the hash and the stamp of each."""

    roots: tuple[Path, ...]
    hashes: Mapping[str, str]
    stamps: Mapping[str, Stamp]

    def document(self) -> dict[str, Any] | None:
        """Return the code as a record holds it, None if no file was found."""
        if not self.hashes:
            return None
        lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(self.hashes.items()))
        return {"sha256": hashlib.sha256(lines.encode()).hexdigest(), "files": len(self.hashes)}

    def differing(self, now: Code) -> list[str]:
        """Return the files that hold something else now, are new or are gone."""
        return _unlike(self.hashes, now.hashes)

    def written(self) -> list[str]:
        """Return the files that were written since, even with what they held before."""
        now = {name: stamp for name, _, stamp in _files(self.roots)}
        return _unlike(self.stamps, now)


def read(roots: Sequence[Path]) -> Code:
    """Return what the files below these folders hold now."""
    hashes, stamps = {}, {}
    for name, path, stamp in _files(roots):
        known = _hashes.get(path)
        if known is None or known[0] != stamp:
            try:
                with open(path, "rb") as file:  # noqa: PTH123 - thousands of files, each in microseconds
                    known = (stamp, hashlib.file_digest(file, "sha256").hexdigest())
            except OSError:
                continue  # it was removed just now
            _hashes[path] = known
        hashes[name], stamps[name] = known[1], stamp
    return Code(roots=tuple(roots), hashes=hashes, stamps=stamps)


def against(known: Code, components: Iterable[Component]) -> list[Finding]:
    """Return what speaks against the code of a launch: files written since they were read, classes of somebody else."""
    names = known.written()
    foreign = registry.foreign(components, known.roots[0]) if known.roots else ()
    return [*([changed(names)] if names else []), *foreign]


def changed(names: Sequence[str]) -> Finding:
    """Return the finding about code that changed while it was measured."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    told = f"{', '.join(names[:SHOWN])}{more}"
    return Finding(
        id="engine.code",
        category="process",
        severity=f.INVALID,
        source="process",
        text=told,
        means=f"the engine's code changed since the run began ({told}): it is not known what ran",
        todo="measure a checkout that nobody edits meanwhile, such as a `git worktree` of its own",
    )


def _unlike(before: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def _files(roots: Sequence[Path]) -> Iterator[tuple[str, str, Stamp]]:
    """Yield each file as its name below its root's parent, its path, and its stamp."""
    for root in roots:
        start = len(str(root.parent)) + 1
        waiting = [str(root)]
        while waiting:
            try:
                entries = list(os.scandir(waiting.pop()))
            except OSError:
                continue
            for entry in entries:
                if entry.name.startswith(".") or entry.name == "__pycache__":
                    continue
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif entry.name.endswith(SUFFIXES) and entry.is_file():
                    status = entry.stat()
                    yield entry.path[start:], entry.path, (status.st_size, status.st_mtime_ns, status.st_ino)
