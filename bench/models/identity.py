"""What a model folder holds, as one hash, without reading tens of gigabytes."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from bench.models import hub

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TEXTS = (".json", ".txt", ".model", ".py", ".jinja")
"""Files that are hashed whole: indices, configurations, tokenizers, code."""
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf")
LENGTH_BYTES = 8
LARGEST_HEADER_BYTES = 100_000_000
"""The format's own limit; source: the safetensors specification."""
LARGEST_TEXT_BYTES = 1 << 28


def of_model(model: str, environment: Mapping[str, str]) -> str | None:
    """Return the hash of a model given as a folder or by its name on the hub; None for one that is not here yet."""
    folder: Path | None = Path(model)
    if folder is not None and not folder.is_dir():
        folder = hub.cached(model, environment)
    return None if folder is None else of_folder(folder)


def of_folder(folder: Path, *, without: str | None = None) -> str | None:
    """Return a hash over names, sizes, texts and safetensors headers of a folder's files; None where it has none.

    Files called ``without`` are left out.

    Equal headers and sizes do not prove equal weights: two fine-tunings of one model may share them.
    """
    digest, count = hashlib.sha256(), 0
    for path in _files(folder):
        if path.name == without:
            continue
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if path.suffix == ".safetensors":
                    start = file.read(LENGTH_BYTES)
                    content = start + file.read(min(int.from_bytes(start, "little"), LARGEST_HEADER_BYTES))
                else:
                    content = file.read() if path.suffix in TEXTS and size <= LARGEST_TEXT_BYTES else b""
        except OSError:
            return None
        name = path.relative_to(folder).as_posix()
        digest.update(f"{name}\0{size}\0{hashlib.sha256(content).hexdigest()}\n".encode())
        count += 1
    return digest.hexdigest() if count else None


def _files(folder: Path) -> Iterator[Path]:
    # the hub's snapshots are links to its blobs: names from here, content from there
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix in (*TEXTS, *WEIGHTS) and not hidden and path.is_file():
            yield path
