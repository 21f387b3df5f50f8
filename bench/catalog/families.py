"""Model families for `invoke accuracy`: the names of each side's components, one file each in ``families/``."""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from bench import paths, schema
from bench.catalog import entries
from bench.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

EMBEDDED = "embedded"
NO_GUIDANCE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Transformer:
    """The call of a family's transformer; the fields are described in ``schemas/family.json``."""

    inputs: Mapping[str, str]
    perturb: tuple[str, ...]
    attention_out: tuple[str, ...]
    embedder: tuple[str, ...]
    perturb_slightly: tuple[str, ...] = ()
    rotary: str | None = None
    timestep: str = "timestep"
    padded: tuple[str, ...] = ()
    reference_row: int = 0
    sign: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One family; the fields are described in ``schemas/family.json``."""

    key: str
    pipelines: tuple[str, ...]
    tiny: str
    guidance: str
    transformer: Transformer
    text_encoders: Mapping[str, Mapping[str, str]]
    guidance_value: float | None = None
    reference_extra_steps: int = 0
    native_arguments: Mapping[str, Any] = field(default_factory=dict)

    def as_document(self) -> dict[str, Any]:
        """Return the family as the programs in the engine's interpreter read it."""
        return asdict(self)


@functools.cache
def families() -> tuple[Family, ...]:
    """Return all families by the order of their files.

    Raises:
        InvalidDocument: a file is not TOML, or violates ``schemas/family.json``.
    """
    found = []
    for path in sorted((paths.CATALOG / "families").glob("*.toml")):
        content = schema.read_toml(path)
        schema.check(content, "family", path)
        table = content["transformer"]
        transformer = Transformer(**entries.frozen({"perturb_slightly": table["perturb"], **table}))
        found.append(Family(key=path.stem, **(entries.frozen(content) | {"transformer": transformer})))
    return tuple(found)


def for_pipeline(class_name: str) -> Family:
    """Return the family whose pipelines include this class of diffusers.

    Raises:
        UsageError: no family has it.
    """
    for family in families():
        if class_name in family.pipelines:
            return family
    known = ", ".join(name for family in families() for name in family.pipelines)
    raise UsageError(
        f"unknown pipeline class {class_name}",
        todo=f"add a file to bench/catalog/families/ (schema: schemas/family.json); known: {known}",
    )
