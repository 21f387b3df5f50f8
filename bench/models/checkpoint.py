"""Random-weight checkpoints in diffusers layout: `tiny` runs on a CPU, `full` has the real shapes.

A program in ``bench/inside/`` makes them offline, in an engine's interpreter.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import files, paths, schema
from bench.engine import interpreter
from bench.errors import BenchError, InvalidDocument, PreflightFailed, UnknownName, UsageError
from bench.models import identity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.catalog.presets import Checkpoint
    from bench.engine.find import Engine

MANIFEST = "checkpoint.json"
HASH_BLOCK_BYTES = 1 << 22
LARGEST_HASHED_BYTES = 1 << 30
"""A larger checkpoint is known by names, sizes, texts and headers: reading 34 GB before each run takes minutes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The program that makes a family's checkpoint, the parts it imports, and the bytes of each size on disk."""

    program: str
    bytes_by_size: dict[str, int]
    parts: tuple[str, ...] = ()


RECIPES = {
    "flux": Recipe(
        program="checkpoint_flux.py",
        bytes_by_size={"tiny": 20_000_000, "full": 36_000_000_000},
        parts=("checkpoint_tokenizers.py",),
    ),
    "flux2-klein": Recipe(
        program="checkpoint_flux2_klein.py", bytes_by_size={"tiny": 20_000_000}, parts=("checkpoint_parts.py",)
    ),
    "sd3": Recipe(
        program="checkpoint_sd3.py",
        bytes_by_size={"tiny": 10_000_000},
        parts=("checkpoint_parts.py", "checkpoint_tokenizers.py"),
    ),
    "zimage": Recipe(
        program="checkpoint_zimage.py", bytes_by_size={"tiny": 15_000_000}, parts=("checkpoint_parts.py",)
    ),
}


def make(engine: Engine, recipe: str, size: str, out: Path, seed: int = 0) -> Path:
    """Make a checkpoint in ``out``, which must not exist, and return it; whole or not at all.

    Raises:
        UnknownName: no such recipe or size.
        UsageError: ``out`` exists, or cannot be written.
        PreflightFailed: too little free disk.
        EngineFailed: the engine's libraries could not make it.
    """
    if recipe not in RECIPES:
        raise UnknownName("checkpoint recipe", recipe, RECIPES)
    sizes = RECIPES[recipe].bytes_by_size
    if size not in sizes:
        raise UnknownName("checkpoint size", size, sizes)
    out = out.absolute()
    if out.exists():
        raise UsageError(
            "this folder already exists; nothing was overwritten", where=out, todo="choose another folder", field="out"
        )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(out.parent).free
        if free < sizes[size]:
            raise PreflightFailed(
                f"{free / 1e9:.1f} GB free, the checkpoint takes {sizes[size] / 1e9:.1f} GB", where=out.parent
            )
        work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise UsageError(
            f"cannot be written: {error.strerror}", where=out, todo="choose another folder", field="out"
        ) from error
    try:
        arguments = ["--out", str(work / out.name), "--size", size, "--seed", str(seed)]
        interpreter.run_program(engine, RECIPES[recipe].program, arguments, work=work)
        manifest = {
            "recipe": recipe,
            "size": size,
            "seed": seed,
            "made_with": dict(engine.packages),
            "sha256": sha256(work / out.name),
            "outline_sha256": identity.of_folder(work / out.name, without=MANIFEST),
        }
        (work / out.name / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        (work / out.name).rename(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return out


def recipe_sha256(recipe: str) -> str:
    """Return the hash of the program that makes a family, and of its parts, which determines the checkpoint."""
    wanted = RECIPES[recipe]
    return hashlib.sha256(
        b"".join((paths.INSIDE / name).read_bytes() for name in (wanted.program, *wanted.parts))
    ).hexdigest()


def cached_path(wanted: Checkpoint, name: str) -> Path:
    """Return the path of the user's cached checkpoint, which may not exist yet.

    Raises:
        UsageError: ``name`` leads out of the cache.
    """
    key = f"{wanted.recipe}-{wanted.size}-{wanted.seed}-{recipe_sha256(wanted.recipe)[:12]}"
    return files.below(paths.cache() / "checkpoints" / key, [name])


def is_cached(wanted: Checkpoint, name: str) -> bool:
    """Tell whether the user's cache has such a checkpoint."""
    return (cached_path(wanted, name) / MANIFEST).is_file()


def cached(engine: Engine, wanted: Checkpoint, name: str) -> tuple[Path, bool]:
    """Return the user's cached checkpoint in a folder called ``name``, and whether it was made just now.

    Raises:
        what `make` raises.
        UsageError: the one that is there was damaged or edited since it was made.
    """
    folder = cached_path(wanted, name)
    if (folder / MANIFEST).is_file():
        _refuse_changed(folder)
        return folder, False
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"the cache cannot be written: {error.strerror}", where=folder.parent, todo="set XDG_CACHE_HOME"
        ) from error
    from filelock import FileLock  # noqa: PLC0415 - only a run that makes something needs it

    with FileLock(folder.parent / ".lock"):
        for left in folder.parent.glob(f".{name}.*"):  # nobody makes it now: half-made by one that was killed
            shutil.rmtree(left, ignore_errors=True)
        if (folder / MANIFEST).is_file():
            return folder, False
        return make(engine, wanted.recipe, wanted.size, folder, wanted.seed), True


def _refuse_changed(folder: Path) -> None:
    made = manifest(folder) or {}
    outline = made.get("outline_sha256")  # of names, sizes and headers: a file that was cut off has another
    if outline is not None and outline != identity.of_folder(folder, without=MANIFEST):
        raise UsageError(
            "the cached checkpoint was damaged or edited since it was made", where=folder,
            todo=f"rm -r {shlex.quote(str(folder))}; the next run makes it again",
        )  # fmt: skip


def sha256(folder: Path) -> str:
    """Return one hash over a checkpoint's files, names and bytes, without its manifest."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while block := file.read(HASH_BLOCK_BYTES):
                digest.update(block)
    return digest.hexdigest()


def content_sha256(folder: Path, made: Mapping[str, Any]) -> str | None:
    """Return the hash of a synthetic checkpoint as it is now: that in its manifest ``made`` while nothing is edited."""
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if size <= LARGEST_HASHED_BYTES:
        return sha256(folder)
    outline = identity.of_folder(folder, without=MANIFEST)
    return str(made["sha256"]) if outline == made.get("outline_sha256") else outline


def manifest(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of a synthetic checkpoint, None for any other."""
    try:
        known = schema.read(folder / MANIFEST)
    except (BenchError, ValueError):
        return None
    return known if isinstance(known, dict) and isinstance(known.get("sha256"), str) else None


def inspect(folder: Path) -> None:
    """Raise UsageError unless ``folder`` is a pipeline in diffusers layout whose components are all there."""
    index = folder / "model_index.json"
    if not folder.is_dir():
        raise UsageError(
            "no such model folder", where=folder, todo="give a folder in diffusers layout, or a hub name owner/model"
        )
    try:
        if not index.exists():
            raise UsageError(
                "no model_index.json: not a pipeline in diffusers layout",
                where=folder,
                todo="name a folder that has one; `invoke checkpoint` makes one with random weights",
            )
        content = schema.read(index)
        components = {name: value for name, value in content.items() if isinstance(value, list) and value[0]}
    except (InvalidDocument, AttributeError, IndexError) as error:
        raise UsageError(
            f"model_index.json cannot be read: {_what(error)}", where=index, todo="fetch it again"
        ) from error
    if "_class_name" not in content:
        raise UsageError("model_index.json names no pipeline class (_class_name)", where=index, todo="fetch it again")
    for name in components:
        if not (folder / name).is_dir() or not any(os.scandir(folder / name)):
            raise UsageError(f"component {name} is named in model_index.json but missing", where=folder / name)
    _check_weights(folder)


def _what(error: Exception) -> str:
    return error.what if isinstance(error, BenchError) else str(error)


def _check_weights(folder: Path) -> None:
    for index in folder.rglob("*.safetensors.index.json"):
        try:
            names = {str(name) for name in schema.read(index)["weight_map"].values()}
        except (InvalidDocument, TypeError, KeyError, AttributeError) as error:
            raise UsageError(f"not an index of weights: {_what(error)}", where=index) from error
        missing = sorted(name for name in names if not (index.parent / name).is_file())
        if missing:
            raise UsageError(
                f"weights are missing: {', '.join(missing[:3])}", where=index.parent, todo="fetch it again"
            )
    for path in folder.rglob("*.safetensors"):
        with files.opened(path) as file:
            header = int.from_bytes(file.read(8), "little")
        if not 0 < header < path.stat().st_size:
            raise UsageError("not a safetensors file, or cut short", where=path, todo="fetch it again")
