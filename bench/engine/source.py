"""A checkout of SGLang that is run over a configuration's dependencies: which commit, and what is changed in it."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench import process
from bench.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GIT_SECONDS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A checkout's ``python/`` folder, its commit, and a hash of uncommitted changes (None: clean)."""

    python_path: Path
    commit: str
    changes_sha256: str | None
    release: str | None
    """The newest release tag that the commit contains, without its ``v``, or None."""


def _git(folder: Path, *arguments: str) -> str | None:
    ended = process.capture(["git", "-C", str(folder), *arguments], timeout_s=GIT_SECONDS)
    return ended.stdout if ended.exit_code == 0 else None


def _changes(folder: Path) -> str | None:
    """Return the sha256 over the tracked changes and the untracked Python files, None without any."""
    changed = _git(folder, "diff", "HEAD", "--binary", "--", ".") or ""
    untracked = (_git(folder, "ls-files", "--others", "--exclude-standard", "-z", "--", ".") or "").split("\0")
    if not changed and not any(untracked):
        return None
    digest = hashlib.sha256(changed.encode(errors="replace"))
    for name in sorted(filter(None, untracked)):
        path = folder / name
        digest.update(f"\n{name}\n".encode())
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def read(folder: Path) -> Source:
    """Return what ``folder`` is: an SGLang checkout, or its ``python/`` folder.

    Raises:
        UsageError: it lacks an sglang package, or is not a git checkout, so the record could not identify the code.
    """
    for candidate in (folder, folder / "python"):
        if (candidate / "sglang" / "__init__.py").is_file():
            python_path = candidate.resolve()
            break
    else:
        raise UsageError(
            "no sglang package in this folder",
            where=folder,
            todo="give the checkout of SGLang, or its python/ folder: --engine source:PATH",
        )
    commit = _git(python_path, "rev-parse", "HEAD")
    if commit is None:
        raise UsageError(
            "not a git checkout, so a record could not say which code was run",
            where=python_path,
            todo="run from a clone, or `git init` and commit what you have",
        )
    tag = _git(python_path, "describe", "--tags", "--abbrev=0", "--match", "v[0-9]*")
    return Source(
        python_path=python_path,
        commit=commit.strip(),
        changes_sha256=_changes(python_path),
        release=tag.strip().removeprefix("v") if tag else None,
    )


@contextlib.contextmanager
def worktree(checkout: Path, revision: str, place: Path) -> Iterator[Path]:
    """Check a revision out into ``place``, beside the user's own checkout, and take it away at the end.

    Raises:
        UsageError: ``checkout`` is not a git repository, or has no such revision.
    """
    commit = _git(checkout, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    if commit is None:
        raise UsageError(f"no revision {revision!r} here", where=checkout, todo="`git fetch`, or name a commit")
    if _git(checkout, "worktree", "add", "--detach", str(place), commit.strip()) is None:
        raise UsageError("git cannot check the revision out", where=place, todo="free space, or `git worktree prune`")
    try:
        yield place
    finally:
        _git(checkout, "worktree", "remove", "--force", str(place))


def changes(checkout: Path, base: str, head: str) -> list[str]:
    """Return the files that differ between two revisions with their counts, one line each; ``.`` is the checkout."""
    revisions = [base] if head == "." else [base, head]
    return (_git(checkout, "diff", "--stat=100", *revisions) or "").splitlines()
