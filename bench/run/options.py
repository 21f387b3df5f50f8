"""What a user may ask of any run of an engine, whatever it is for."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_TIMEOUT_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What the user asked for; None is the preset's value or the default."""

    model: str
    engine: str | None = None
    model_path: str | None = None
    preset_file: Path | None = None
    label: str | None = None
    steps: int | None = None
    seed: int | None = None
    width: int | None = None
    height: int | None = None
    torch_compile: bool = False
    attention_backend: str | None = None
    timeout_s: float = DEFAULT_TIMEOUT_S
    output_dir: Path | None = None


DEFAULT_MAX_REPEATS = 100


PLACES = ("preset_file", "output_dir", "image", "model_cache_root", "seed_model_cache_root")
"""Options that are paths."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(RunOptions):
    """What the user asked of a measurement; None is the preset's value or the default."""

    warmup: bool = True
    quality: str | None = None
    cuda_graph: bool = False
    warmup_at_start: bool = False
    """Warm up while loading at the size of the request, which graphs need; a matrix warms all its cells so."""
    image: Path | None = None
    precheck: bool = True
    preflight: bool = True
    model_cache_root: Path | None = None
    cleanup_model_cache: bool = False
    seed_model_cache_root: Path | None = None
    extra: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    """Variables for the engine, as (name, value)."""
    repeats: int = 1
    launches: int = 1
    precision: float | None = None
    """Go on until the interval of the median denoise time is this narrow: half its width over the median."""
    max_repeats: int = DEFAULT_MAX_REPEATS
    stages: bool = False
    """Add a launch in which each stage waits for its device: the stage table, and what that costs."""
    check_accuracy: bool = False
    """Score the outputs of the timed requests."""
    require: str | None = None
    """The threshold that they have to meet; it asks for the check itself."""
    update_golden: str | None = None
    """The reason why they are to be the golden of their configuration."""

    @property
    def scored(self) -> bool:
        """Whether the outputs are scored."""
        return self.check_accuracy or self.require is not None or self.update_golden is not None

    @property
    def in_session(self) -> bool:
        """Whether engines are kept to serve several requests; otherwise `sglang generate` serves one."""
        return self.repeats > 1 or self.launches > 1 or self.precision is not None

    def document(self) -> dict[str, Any]:
        """Return the options as a record holds them, to resume from."""
        return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Options:
        """Return the options that a record holds."""
        places = {name: Path(document[name]) if document[name] else None for name in PLACES}
        pairs = tuple((name, value) for name, value in document["environment"])
        return cls(**{**document, **places, "extra": tuple(document["extra"]), "environment": pairs})
