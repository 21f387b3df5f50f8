"""A private model cache for one run, which can be removed with everything that the run downloaded, and nothing else.

A folder is removed only if it holds the marker that was written on creation, inside a root that has one too. The
root's ledger (JSON lines) has an entry before and after each change.
"""

from __future__ import annotations

import json
import secrets
import shutil
import signal
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import files, paths
from bench.errors import UsageError
from bench.models import hub as models
from bench.models import identity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

MARKER = ".sglang-diffusion-workbench-cache"
LEDGER = "ledger.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """One run's cache: its folder, its root, and the word in its marker."""

    folder: Path
    root: Path
    word: str


def prepare(root: Path, name: str, seeds: Sequence[Path] = ()) -> Cache:
    """Create a fresh cache in ``root`` (created if missing) over read-only ``seeds``, and return it.

    Raises:
        UsageError: the root is a foreign or too general folder, or a seed is not a Hugging Face cache.
    """
    root = root.expanduser().resolve()
    if root in {Path("/"), Path.home().resolve(), paths.ROOT.resolve(), Path.cwd().resolve()}:
        raise UsageError(
            "refusing to manage caches in such a general folder",
            where=root,
            todo="name a new folder",
            field="model_cache_root",
        )
    sources = [_hub(seed) for seed in seeds]
    try:
        if not (root / MARKER).is_file():
            if root.exists() and (not root.is_dir() or any(root.iterdir())):
                raise UsageError(
                    "this folder is not empty and was not created by the workbench",
                    where=root,
                    todo="name a new or empty folder",
                    field="model_cache_root",
                )
            root.mkdir(parents=True, exist_ok=True)
            (root / MARKER).write_text("root\n", encoding="utf-8")
        word = secrets.token_hex(8)
        folder = root / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{name}-{word[:6]}"
        folder.mkdir()
        (folder / MARKER).write_text(f"{word}\n", encoding="utf-8")
        made = Cache(folder=folder, root=root, word=word)
        _note(made, "made")
        for source in sources:
            _overlay(source, folder / "huggingface" / "hub")
    except OSError as error:
        raise UsageError(f"cannot create a model cache: {error.strerror}", where=root) from error
    return made


def environment(cache: Cache, users: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that send an engine's downloads into the cache; the user's token keeps working."""
    home = cache.folder / "huggingface"
    variables = {
        "HF_HOME": home,
        "HF_HUB_CACHE": home / "hub",
        "HUGGINGFACE_HUB_CACHE": home / "hub",
        "HF_ASSETS_CACHE": home / "assets",
        "HF_MODULES_CACHE": home / "modules",
        "HF_XET_CACHE": home / "xet",
        "MODELSCOPE_CACHE": cache.folder / "modelscope",
    }
    found = {name: str(path) for name, path in variables.items()}
    token = users.get("HF_TOKEN_PATH") or str(models.home(users) / "token")
    if Path(token).expanduser().is_file():
        found["HF_TOKEN_PATH"] = token  # it lies in the HF_HOME that this replaces
    return found


def remove(cache: Cache) -> None:
    """Remove a cache that `prepare` made, with a line in the ledger before and after.

    Raises:
        UsageError: it is not the folder that was created; nothing is removed.
    """
    marker = cache.folder / MARKER
    own = (
        cache.folder.parent == cache.root
        and not cache.folder.is_symlink()
        and (cache.root / MARKER).is_file()
        and marker.is_file()
        and not marker.is_symlink()
        and marker.read_text(encoding="utf-8").strip() == cache.word
    )
    if not own:
        _note(cache, "refused")
        raise UsageError(
            "not the cache that was created for this run; nothing was removed",
            where=cache.folder,
            todo="inspect it, and remove it by hand",
        )
    with _undisturbed():
        _note(cache, "removing")
        # renamed first, so that an interrupted removal leaves nothing that looks like a usable cache
        doomed = cache.folder.rename(cache.root / f".removing-{cache.folder.name}")
        shutil.rmtree(doomed, ignore_errors=True)
        _note(cache, "partly removed" if doomed.exists() else "removed")


def keep(cache: Cache) -> None:
    """Note in the ledger that a cache is kept."""
    with _undisturbed():
        _note(cache, "kept")


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM back until the block is done, so that the ledger has both its lines."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def stats(folder: Path) -> dict[str, int]:
    """Return the number of files and weight files in a folder, and their bytes; links to seeds do not count."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink() and path.name != MARKER]
    return {
        "files": len(files),
        "weight_files": sum(path.suffix in identity.WEIGHTS for path in files),
        "bytes": sum(path.stat().st_size for path in files),
    }


def _note(cache: Cache, event: str) -> None:
    line: dict[str, Any] = {"at": datetime.now(UTC).isoformat(), "event": event, "cache": cache.folder.name}
    line |= {"exists": cache.folder.exists()} | stats(cache.folder)
    files.append_line(cache.root / LEDGER, json.dumps(line))


def _hub(seed: Path) -> Path:
    """Return the hub folder of a seed: a Hugging Face home, or its hub/ itself."""
    seed = seed.expanduser().resolve()
    hub = seed / "hub" if (seed / "hub").is_dir() else seed
    if not hub.is_dir() or not any(hub.glob("models--*")):
        raise UsageError(
            "not a Hugging Face cache: it contains no models--* folder", where=seed, todo="name an HF_HOME"
        )
    return hub


def _overlay(source: Path, target: Path) -> None:
    """Overlay a read-only cache: files become links; refs, which the hub rewrites, are copied."""
    for model in sorted(source.glob("models--*")):
        for path in sorted(model.rglob("*")):
            inside = path.relative_to(source)
            there = target / inside
            if there.exists() or there.is_symlink():
                continue
            if path.is_dir() and not path.is_symlink():
                there.mkdir(parents=True, exist_ok=True)
                continue
            there.parent.mkdir(parents=True, exist_ok=True)
            if path.is_symlink():  # a snapshot's link to its blob, which is in the overlay too
                there.symlink_to(path.readlink())
            elif path.relative_to(model).parts[0] == "refs":
                shutil.copy2(path, there)
            else:
                there.symlink_to(path)
