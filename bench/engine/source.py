"""A checkout of SGLang that is run over a configuration's dependencies: which commit, and what is changed in it."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench import process
from bench.errors import PreflightFailed, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

GIT_SECONDS = 300
NO = (1, 127, 128)
"""The exit codes of a git that says no (no repository, no such revision), or that is not installed."""
DIFF = ("diff", "--no-ext-diff", "--no-textconv")
"""A diff as git itself makes it: a user's own program may print nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A checkout's ``python/`` folder, its commit, and a hash of uncommitted changes (None: clean)."""

    python_path: Path
    commit: str
    changes_sha256: str | None
    release: str | None
    """The newest release tag that the commit contains, without its ``v``, or None."""


def git(folder: Path, *arguments: str) -> process.Captured:
    """Run git in a folder and return how it ended."""
    return process.capture(["git", "-C", str(folder), *arguments], timeout_s=GIT_SECONDS)


def _git(folder: Path, *arguments: str, no: tuple[int, ...] = NO) -> str | None:
    """Return what git prints, None where it says no.

    Raises:
        PreflightFailed: it failed otherwise, or gave no answer in time: nothing is known then.
    """
    ended = git(folder, *arguments)
    if ended.exit_code != 0 and ended.exit_code not in no:
        last = ended.last_line(f"exit code {ended.exit_code}")
        raise PreflightFailed(f"`git {arguments[0]}` failed: {last}", where=folder, todo="run it there: it has to work")
    return ended.stdout if ended.exit_code == 0 else None


def _told(folder: Path, *arguments: str) -> str:
    """Return what git prints where no is not an answer.

    Raises:
        PreflightFailed: it failed.
    """
    return _git(folder, *arguments, no=()) or ""


def _changes(folder: Path) -> str | None:
    """Return the sha256 over the tracked changes and the untracked Python files, None without any."""
    changed = _told(folder, *DIFF, "HEAD", "--binary", "--", ".")
    untracked = _told(folder, "ls-files", "--others", "--exclude-standard", "-z", "--", ".").split("\0")
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
        PreflightFailed: git cannot tell what is changed in it.
    """
    for candidate in (folder, folder / "python"):
        if (candidate / "sglang" / "__init__.py").is_file():
            python_path = candidate.resolve()
            break
    else:
        raise UsageError(
            "no sglang package in this folder" if folder.is_dir() else "no such folder",
            where=folder,
            todo="name the checkout of SGLang, or its python/ folder",
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


def commit_of(checkout: Path, revision: str) -> str:
    """Return the hash of the commit that a revision names.

    Raises:
        UsageError: ``checkout`` is not a git repository, or has no such revision.
    """
    known = _git(checkout, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    if known is None:
        raise UsageError(f"no revision {revision!r} here", where=checkout, todo="`git fetch`, or name a commit")
    return known.strip()


@contextlib.contextmanager
def worktree(checkout: Path, revision: str, place: Path) -> Iterator[Path]:
    """Check a revision out into ``place``, beside the user's own checkout, and take it away at the end.

    Raises:
        UsageError: ``checkout`` is not a git repository, or has no such revision.
    """
    if _git(checkout, "worktree", "add", "--detach", str(place), commit_of(checkout, revision)) is None:
        raise UsageError("git cannot check the revision out", where=place, todo="free space, or `git worktree prune`")
    try:
        yield place
    finally:
        git(checkout, "worktree", "remove", "--force", str(place))


def changes(checkout: Path, base: str, head: str) -> list[str]:
    """Return the files that differ between two revisions, one line each with its counts, then the sum.

    ``.`` as ``head`` is the checkout as it is; files in it that git does not know yet come last.

    Raises:
        UsageError: ``checkout`` is not a git repository, lacks a revision, or git cannot compare them.
    """
    commits = [commit_of(checkout, revision) for revision in (base, head) if revision != "."]
    listed = _git(checkout, *DIFF, "--stat=100", *commits, "--")
    unknown = _git(checkout, "ls-files", "--others", "--exclude-standard", "--full-name", ":/") if head == "." else ""
    if listed is None or unknown is None:
        raise UsageError(f"git cannot compare {base} with {head}", where=checkout, todo="see what `git diff` says")
    return [*listed.splitlines(), *(f" {name} (not yet added)" for name in unknown.splitlines())]


def top(folder: Path) -> Path:
    """Return the folder of the checkout that a folder is in.

    Raises:
        UsageError: it is not in one.
    """
    found = _git(folder, "rev-parse", "--show-toplevel")
    if found is None:
        what = "not a git checkout" if folder.is_dir() else "no such folder"
        raise UsageError(what, where=folder, todo="name a clone of SGLang")
    return Path(found.strip())


def merge_base(folder: Path, one: str, other: str) -> str:
    """Return the commit from which two revisions went apart.

    Raises:
        UsageError: they have no history in common.
    """
    found = _git(folder, "merge-base", one, other)
    if found is None:
        raise UsageError(f"{one} and {other} have no history in common", where=folder)
    return found.strip()


def differing(folder: Path, commit: str) -> list[tuple[str | None, str | None]]:
    """Return the files of the checkout that are not what they are in a commit: (name then, name now), None for neither.

    The names begin at the checkout's top. Renamed files are paired; new files count whether added to git or not.

    Raises:
        PreflightFailed: git cannot tell.
    """
    told = _told(folder, *DIFF, "--name-status", "--find-renames", "-z", commit, "--").split("\0")
    pairs: list[tuple[str | None, str | None]] = []
    words = iter(filter(None, told))
    for status in words:
        name = next(words)
        if status.startswith(("R", "C")):
            pairs.append((name, next(words)))
        else:
            pairs.append((None if status == "A" else name, None if status == "D" else name))
    untracked = _told(folder, "ls-files", "--others", "--exclude-standard", "-z", "--full-name")
    return pairs + [(None, name) for name in filter(None, untracked.split("\0"))]


def text_at(folder: Path, commit: str, name: str) -> str:
    """Return what a file holds in a commit; its name begins at the checkout's top. Empty where the commit lacks it.

    Raises:
        PreflightFailed: git cannot tell.
    """
    is_there = _told(folder, "ls-tree", "--full-tree", "-z", "--", commit, name)
    return _told(folder, "show", f"{commit}:{name}") if is_there else ""
