"""The commits between two revisions of a checkout: which descend from which, what they changed, which cannot run."""

from __future__ import annotations

import ast
import shutil
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.engine import source
from bench.errors import PreflightFailed, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

MOST_COMMITS = 2000
ABSENT = "0" * 40
PACKAGE = "/sglang/"
ROOM_FACTOR = 2
"""A worktree's compiled files take as much again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """A commit of the range: its hash, its subject, and the commits of the range that it descends from directly.

    ``before`` is its real first parent, which may be a commit that the range leaves out.
    """

    sha: str
    subject: str
    parents: tuple[str, ...]
    before: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """The commits that bad has and good has not, parents first; good and bad are full hashes."""

    checkout: Path
    good: str
    bad: str
    commits: tuple[Commit, ...]
    dirty: bool
    """Whether the checkout has changes that are not committed: they are left alone and not measured."""

    def ancestry(self) -> dict[str, frozenset[str]]:
        """Return for each commit of the range those that it holds: itself and its ancestors in the range."""
        held: dict[str, frozenset[str]] = {}
        for commit in self.commits:
            above = [held[parent] for parent in commit.parents if parent in held]
            held[commit.sha] = frozenset({commit.sha}).union(*above)
        return held


def read(checkout: Path, good: str, bad: str, *, first_parent: bool, paths: Sequence[str]) -> Range:
    """Return the range between two revisions; with ``paths`` only commits that touch one of them are in it.

    Raises:
        UsageError: not a repository, an unknown revision, good is not an ancestor of bad, or nothing lies between.
    """
    folder = source.top(checkout)
    first, last = source.commit_of(folder, good), source.commit_of(folder, bad)
    if first == last:
        raise UsageError(f"{good} and {bad} are the same commit", where=folder)
    if not _is_ancestor(folder, first, last):
        swapped = _is_ancestor(folder, last, first)
        raise UsageError(
            f"good ({good}) is not an ancestor of bad ({bad})",
            where=folder,
            todo=f"the endpoints are the wrong way round: --good {bad} --bad {good}"
            if swapped
            else f"choose a good commit that bad descends from, e.g. {source.merge_base(folder, first, last)[:12]}",
        )
    walk = ["--first-parent"] if first_parent else []
    told = _git(folder, "log", "--topo-order", "--reverse", "--parents", *walk, "--format=%x00%H%x01%P%x01%s",
                f"{first}..{last}", "--", *paths)  # fmt: skip
    entries = [entry.strip("\n").split("\1", 2) for entry in told.split("\0")[1:]]
    before = _first_parents(folder, [sha for sha, _, _ in entries])
    if roots := [sha for sha, _, _ in entries if sha not in before]:
        raise UsageError(
            f"{roots[0][:12]} begins a history of its own, so nothing can be measured before it",
            where=folder,
            todo="--first-parent takes the merge that brought it as one commit",
        )
    commits = []
    for sha, parents, subject in entries:
        kept = parents.split()[:1] if first_parent else parents.split()
        commits.append(Commit(sha=sha, subject=subject, parents=tuple(kept), before=before[sha]))
    if not commits:
        raise UsageError(f"no commit between {good} and {bad} touches {', '.join(paths)}", where=folder)
    if len(commits) > MOST_COMMITS:
        raise UsageError(f"{len(commits)} commits lie between: more than {MOST_COMMITS}", todo="narrow the range")
    dirty = bool(_git(folder, "status", "--porcelain", "--untracked-files=no").strip())
    return Range(checkout=folder, good=first, bad=last, commits=tuple(commits), dirty=dirty)


def broken(known: Range) -> dict[str, str]:
    """Return the commits of the range that hold Python that cannot be parsed, with the file: they cannot be imported.

    Only files of the package that the range changed are looked at, and those that good has broken itself are left
    out: it runs without them. On branches a commit has the files of its own ancestors.
    """
    files: dict[str, dict[str, str]] = {known.good: {}}
    parsed: dict[str, bool] = {}
    found = {}
    for commit in known.commits:
        parent = next((name for name in commit.parents if name in files), known.good)
        bad = dict(files[parent])
        for name, blob in _changed_blobs(known.checkout, parent, commit.sha):
            if blob not in parsed:
                parsed[blob] = blob == ABSENT or _parses(_git(known.checkout, "cat-file", "blob", blob))
            bad.pop(name, None)
            if not parsed[blob] and _parses(source.text_at(known.checkout, known.good, name)):
                bad[name] = blob
        files[commit.sha] = bad
        if bad:
            found[commit.sha] = f"{min(bad)} is not Python that can be parsed"
    return found


def changed_files(checkout: Path, commit: str) -> list[str]:
    """Return the files that a commit changed against its first parent, with their counts, one line each."""
    return _git(checkout, "show", "--first-parent", "--format=", "--stat=100", commit).strip("\n").splitlines()


def changed_lines(checkout: Path, commit: str, name: str) -> list[str]:
    """Return the lines that a commit took from or added to the files that match a name, each with its sign."""
    told = _git(checkout, "show", "--first-parent", "--format=", "--unified=0", commit, "--", name)
    return [line for line in told.splitlines() if line[:1] in "+-" and not line.startswith(("+++", "---"))]


def refuse_full_disk(checkout: Path, commit: str, place: Path, worktrees: int) -> None:
    """Raise PreflightFailed unless ``place`` has room for that many worktrees of a commit."""
    told = _git(checkout, "ls-tree", "-r", "-l", commit)
    sizes = [word for line in told.splitlines() if (word := line.split("\t")[0].split()[-1]).isdigit()]
    needed = ROOM_FACTOR * worktrees * sum(map(int, sizes))
    free = shutil.disk_usage(place).free
    if free < needed:
        raise PreflightFailed(
            f"{worktrees} worktrees take {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free",
            where=place,
            todo="free space, or choose another folder",
            field="output_dir",
        )


def make_worktree(checkout: Path, commit: str, place: Path) -> None:
    """Check a commit out into ``place``; what a killed process left there is taken if it is whole, else made anew.

    Raises:
        UsageError: git cannot do it.
    """
    if place.is_dir():
        with suppress(UsageError):
            whole = source.top(place) == place.resolve() and source.commit_of(place, "HEAD") == commit
            if whole and not _git(place, "status", "--porcelain", "--untracked-files=no").strip():
                return
        remove_worktrees(checkout, [place])
    ended = source.git(checkout, "worktree", "add", "--force", "--detach", str(place), commit)
    if ended.exit_code != 0:
        last = ended.last_line("git said nothing")
        raise UsageError(f"git cannot check out {commit[:12]}: {last}", where=place, todo="`git worktree prune`")


def remove_worktrees(checkout: Path, places: Iterable[Path]) -> None:
    """Take worktrees away, and what git remembers of them."""
    for place in places:
        source.git(checkout, "worktree", "remove", "--force", "--force", str(place))
        shutil.rmtree(place, ignore_errors=True)
    source.git(checkout, "worktree", "prune")


def _first_parents(folder: Path, commits: Sequence[str]) -> dict[str, str]:
    """Return each commit's first parent, of which `git log` with paths shows another."""
    if not commits:
        return {}
    told = _git(folder, "log", "--no-walk=unsorted", "--format=%H %P", *commits).split("\n")
    return {words[0]: words[1] for line in told if len(words := line.split()) > 1}


def _is_ancestor(folder: Path, one: str, other: str) -> bool:
    return source.git(folder, "merge-base", "--is-ancestor", one, other).exit_code == 0


def _changed_blobs(folder: Path, before: str, after: str) -> list[tuple[str, str]]:
    """Return the package's Python files that differ between two commits, each with its hash in the second."""
    told = _git(folder, "diff-tree", "-r", "--no-renames", "--raw", "--no-abbrev", "-z", before, after).split("\0")
    pairs = zip(told[::2], told[1::2], strict=False)
    return [(name, meta.split()[3]) for meta, name in pairs if name.endswith(".py") and PACKAGE in f"/{name}"]


def _parses(told: str) -> bool:
    try:
        ast.parse(told)
    except (SyntaxError, ValueError):
        return False
    except (MemoryError, RecursionError):  # nested too deep for this Python, which need not be the engine's
        return True
    return True


def _git(folder: Path, *arguments: str) -> str:
    """Return what git prints.

    Raises:
        UsageError: it fails.
    """
    ended = source.git(folder, *arguments)
    if ended.exit_code != 0:
        raise UsageError(f"git: {ended.last_line('it said nothing')}", where=folder)
    return ended.stdout
