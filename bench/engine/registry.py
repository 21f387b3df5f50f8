"""The model classes that an engine has of its own, read from its package without importing it.

Source: runtime/models/registry.py of 0.5.17 and 0.5.23: the ``EntryClass`` and ``_aliases`` of its modules, and a table
of its own. They are read as text: parsing the modules takes seconds, and importing the registry imports torch.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

MODELS = "multimodal_gen/runtime/models"
ENTRY = re.compile(r"^EntryClass\s*=\s*(\w+|\[[^\]]*\]|\([^)]*\))", re.MULTILINE)
ALIASES = re.compile(r"^\s+_aliases\s*=\s*[\[(]([^\])]*)[\])]", re.MULTILINE)
TABLED = re.compile(r'^\s+"(\w+)": \("', re.MULTILINE)
COMMENT = re.compile(r"#.*")
WORD = re.compile(r"[\w.]+")


@functools.cache
def native_classes(package: Path) -> frozenset[str]:
    """Return the classes that the engine in this package folder registers; empty where it has no registry there."""
    folder = package / MODELS
    registry = folder / "registry.py"
    if not registry.is_file():
        return frozenset()
    names = set(TABLED.findall(registry.read_text(encoding="utf-8")))
    for path in folder.glob("*/*.py"):
        text = path.read_text(encoding="utf-8")
        for pattern in (ENTRY, ALIASES):
            for entry in pattern.findall(text):
                names.update(WORD.findall(COMMENT.sub("", entry)))
    return frozenset(names)
