"""The classes and attention backends that an engine has, read from its package without importing it.

Source: runtime/models/registry.py and registry.py of 0.5.17 and 0.5.23: the ``EntryClass`` and ``_aliases`` of the
models' modules and a table of its own, the ``pipeline_name`` of the pipelines, and ``AttentionBackendEnum`` of
runtime/platforms/interface.py. They are read as text: parsing the modules takes seconds, and importing the registry
imports torch.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

from bench.fallback import finding as f
from bench.fallback.facts import CORE_COMPONENT, NATIVE_IMPLEMENTATION
from bench.fallback.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from bench.fallback.finding import Component

MODELS = "multimodal_gen/runtime/models"
PIPELINES = "multimodal_gen/runtime/pipelines"
PLATFORMS = "multimodal_gen/runtime/platforms/interface.py"
CODE = ("multimodal_gen", "srt/models")
"""Where the classes of components are defined: some text encoders are those of the language models."""
DEFINED = re.compile(r"^class (\w+)", re.MULTILINE)
NAMED = re.compile(r'^\s+pipeline_name(?:: str)? = "(\w+)"', re.MULTILINE)
SHARDED = "FSDP"
"""What torch puts in front of the name of a class that it shards."""
ENTRY = re.compile(r"^EntryClass\s*=\s*(\w+|\[[^\]]*\]|\([^)]*\))", re.MULTILINE)
ALIASES = re.compile(r"^\s+_aliases\s*=\s*[\[(]([^\])]*)[\])]", re.MULTILINE)
TABLED = re.compile(r'^\s+"(\w+)": \("', re.MULTILINE)
BACKENDS = re.compile(r"^class AttentionBackendEnum\b.*\n((?:(?: .*)?\n)+)", re.MULTILINE)
BACKEND = re.compile(r"^    ([A-Z]\w*) = ", re.MULTILINE)
OTHER_NAMES = frozenset({"fa3", "fa4"})
"""Names of attention backends that the engine takes besides those of its list, as they are spelled here only."""
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


@functools.cache
def pipelines(package: Path) -> frozenset[str]:
    """Return the names of the engine's native pipelines, as a model's index spells them; empty where it has none."""
    files = (package / PIPELINES).rglob("*.py")
    named = (name for path in files for name in NAMED.findall(path.read_text(encoding="utf-8")))
    return frozenset(name for name in named if not name.startswith("Diffusers"))


@functools.cache
def attention_backends(package: Path) -> frozenset[str]:
    """Return the attention backends that the engine lists, in lower case; empty where it lists none."""
    file = package / PLATFORMS
    listed = BACKENDS.search(file.read_text(encoding="utf-8")) if file.is_file() else None
    return frozenset() if listed is None else frozenset(map(str.lower, BACKEND.findall(listed[1])))


@functools.cache
def own_classes(package: Path) -> frozenset[str]:
    """Return every class that the engine's own code defines; empty where it has no registry of models."""
    if not (package / MODELS / "registry.py").is_file():
        return frozenset()
    files = (path for folder in CODE for path in (package / folder).rglob("*.py"))
    return frozenset(name for path in files for name in DEFINED.findall(path.read_text(encoding="utf-8")))


def foreign(components: Iterable[Component], package: Path) -> Iterator[Finding]:
    """Yield a finding for each component that the log calls the engine's own, and whose class is not in its code."""
    own = own_classes(package)
    for component in components if own else ():
        if component.implementation == NATIVE_IMPLEMENTATION and component.cls.removeprefix(SHARDED) not in own:
            yield Finding(
                id="component.foreign_class",
                category="component",
                severity=f.INVALID if CORE_COMPONENT.search(component.name) else f.DEGRADED,
                source="log",
                text=f"{component.name}: {component.cls}",
                means="the log calls this class the engine's own, and the engine's code does not define it",
                todo="use a checkpoint whose component has one of the engine's classes, and no code of its own",
                line=component.line,
                component=component.name,
            )
