"""Presets: a model and a workload under a name, read from ``presets/*.toml`` (one file per family)."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bench import paths, schema
from bench.catalog import entries
from bench.errors import InvalidDocument, UnknownName

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

UPSTREAM_TAGS = frozenset({"nightly", "current-source", "skill-only"})
"""Where upstream's helper has a preset from: its nightly comparison, the registry of models, or only its own text."""

FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""A name that cannot lead out of the folder that it is in."""


RUNS_CODE = re.compile(
    r"(?:LD|DYLD)_.*|PYTHON(?!HASHSEED$).*|PATH|BASH_ENV|ENV|SHELLOPTS|IFS|GCONV_PATH|GLIBC_TUNABLES"
    r"|CC|CXX|CUDA_HOME|CUDA_PATH|CUDA_INJECTION64_PATH|COMPILER_PATH|TRITON_\w+_PATH|\w*NVCC\w*|GIT_.*"
    r"|TORCH_EXTENSIONS_DIR|\w*CACHE_DIR|HF_MODULES_CACHE|SGLANG_EXTERNAL_\w+|\w+_PLUGINS?"
)
"""Variables that decide which code runs in an engine: libraries, programs, modules, and caches of compiled code."""


def runs_code(variable: str) -> bool:
    """Tell whether a variable decides which code runs in an engine."""
    return RUNS_CODE.fullmatch(variable) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A synthetic checkpoint: who makes it (recipe), how large it is, and the seed of its random weights."""

    recipe: str
    size: str
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """One preset; what is None is left to the engine's default for the model. Sizes are in pixels."""

    key: str
    description: str
    model: str
    modality: str
    prompt: str
    seed: int
    checkpoint: Checkpoint | None = None
    tags: tuple[str, ...] = ()
    nightly: str | None = None
    nightly_ignores: tuple[str, ...] = ()
    gated: bool = False
    negative_prompt: str | None = None
    image: str | None = None
    width: int | None = None
    height: int | None = None
    frames: int | None = None
    adjust_frames: bool | None = None
    fps: int | None = None
    steps: int | None = None
    guidance: float | None = None
    gpus: int = 1
    tensor_parallel: int | None = None
    ulysses: int | None = None
    ring: int | None = None
    cfg_parallel: int | bool | None = None
    pipeline: str | None = None
    variant: str | None = None
    quantization: str | None = None
    performance_mode: str | None = None
    quality: str | None = None
    attention_backend: str | None = None
    component_attention: Mapping[str, str] = field(default_factory=dict)
    precision: str | None = None
    text_encoders: int | None = None
    residency: Mapping[str, str] = field(default_factory=dict)
    offload: Mapping[str, bool] = field(default_factory=dict)
    pin_memory: bool | None = None
    prompt_rewrite: bool | None = None
    warmup: bool = True
    warmup_steps: int | None = None
    force_eager: bool = False
    graph_warmup_sizes: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    document: Mapping[str, Any] = field(repr=False)

    @property
    def sha256(self) -> str:
        """The hash of the preset's content, without its key: equal workloads have equal hashes."""
        canonical = json.dumps(self.document, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    @property
    def weights(self) -> str:
        """``synthetic`` or ``real``."""
        return "real" if self.checkpoint is None else "synthetic"

    @property
    def is_upstreams(self) -> bool:
        """Whether the benchmark helper of SGLang has it."""
        return not UPSTREAM_TAGS.isdisjoint(self.tags)


def _preset(key: str, document: Mapping[str, Any], source: str) -> Preset:
    schema.check(document, "preset", source)
    values = entries.frozen(document)
    for name in filter(runs_code, values.get("environment", ())):
        raise InvalidDocument(
            f"$.environment: {name} decides which code runs: a preset may not set it",
            where=source,
            todo="set it in the shell, whose record says so",
        )
    if "checkpoint" in values:
        if not FOLDER.fullmatch(values["model"]):
            raise InvalidDocument(
                f"$.model: {values['model']!r} is not the name of a folder, which a synthetic checkpoint needs",
                where=source,
            )
        values["checkpoint"] = Checkpoint(**values["checkpoint"])
    return Preset(key=key, document=document, **values)


def read_file(path: Path) -> dict[str, Preset]:
    """Return the presets of one TOML file by key.

    Raises:
        UsageError: the file cannot be read.
        InvalidDocument: it is not TOML, or a preset in it violates ``schemas/preset.json``.
    """
    content = schema.read_toml(path)
    for key, document in content.items():
        if not isinstance(document, dict):
            raise InvalidDocument(f"{key}: a preset must be a table: [{key}]", where=path)
    return {key: _preset(key, document, f"{path} [{key}]") for key, document in content.items()}


@functools.cache
def built_in() -> Mapping[str, Preset]:
    """Return all presets of this repository by key, in the order of the files and of the keys in them."""
    found: dict[str, Preset] = {}
    for path in sorted((paths.CATALOG / "presets").glob("*.toml")):
        for key, preset in read_file(path).items():
            if key in found:
                raise InvalidDocument(f"{key}: a second preset of this name", where=path)
            found[key] = preset
    return found


def listed(preset_file: Path | None = None) -> Mapping[str, Preset]:
    """Return all presets by key; those of the user's own file come before ours of the same name.

    Raises:
        UsageError: the file cannot be read.
        InvalidDocument: a preset violates its schema.
    """
    return built_in() if preset_file is None else {**built_in(), **read_file(preset_file)}


def get(key: str, preset_file: Path | None = None) -> Preset:
    """Return one preset.

    Raises:
        UnknownName: with the names that are closest, by key or by the model's name on the hub.
    """
    known = listed(preset_file)
    if key not in known:
        names = [(preset.model, name) for name, preset in known.items()]
        short = [(model.rpartition("/")[2], name) for model, name in names]
        raise UnknownName("model", key, known, aliases=(*names, *short), lister="invoke models")
    return known[key]


def chosen(names: Sequence[str], tag: str | None, *, everything: bool, preset_file: Path | None) -> list[str]:
    """Return the keys of the presets with these names, with a tag, or all; the last two in the catalogue's order.

    Raises:
        UnknownName: no preset has this name, or this tag.
    """
    known = listed(preset_file)
    if everything:
        return list(known)
    if tag is not None:
        keys = [key for key, preset in known.items() if tag in preset.tags]
        if not keys:
            raise UnknownName("tag", tag, {name for preset in known.values() for name in preset.tags})
        return keys
    return [get(name, preset_file).key for name in names]
